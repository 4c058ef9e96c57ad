"""ROMUL: population based training on machines that come and go."""

__version__ = "0.1.0"
