"""A run on this machine, for the commands that start one: play it, show it, and summarise it."""
