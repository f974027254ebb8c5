"""A library: files read once into a memory that is kept, asked, extended and shared."""
