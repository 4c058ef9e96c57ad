"""Chaos: everything breaks, in virtual time (`romul chaos`)."""
