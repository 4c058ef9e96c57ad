"""Tasks that come with ROMUL: the only modules that a worker imports by default."""
