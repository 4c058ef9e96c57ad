"""The decision actor: a stateless loop around the core."""
