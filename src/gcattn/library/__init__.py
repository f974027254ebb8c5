"""A library: files read once into a saved memory that can be asked, extended and shared."""
