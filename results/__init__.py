"""Studies, one JSON Lines file each, and the tables and pictures made of them."""
