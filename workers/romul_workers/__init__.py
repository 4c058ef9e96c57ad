"""Workers: lease trials, train, save checkpoints, report. Here: what a task's author needs."""

from romul_workers.trial import Context, Paused, Trial

__all__ = ["Context", "Paused", "Trial"]
