"""Chaos: faults in all parts of the system, in virtual time (`romul chaos`)."""
