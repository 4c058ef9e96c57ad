"""The decision actor: a loop around the core, which holds nothing that must last."""
