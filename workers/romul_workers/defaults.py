"""Default settings of a worker; a small module, because the command line imports it first."""

SHIPPED_TASKS = "romul_workers.tasks.*"
PACE_S = 0.5
"""Longest wait for a trial at a time; also how soon an idle worker notices that it should stop."""
GARBAGE_MS = 60_000
"""How long unneeded checkpoints are kept. A server that came back with data a second older may
still ask for them."""
