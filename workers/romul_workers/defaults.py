"""What a worker does unless it is set otherwise. Imported by the command line before all else."""

SHIPPED_TASKS = "romul_workers.tasks.*"
PACE_S = 0.5
"""Longest wait for a trial at a time; also how soon an idle worker notices that it should stop."""
GARBAGE_MS = 60_000
"""How long garbage is kept: a server that lost its last second may still ask for it."""
