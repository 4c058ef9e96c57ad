"""ROMUL."""
