"""Workers: lease trials, train, save checkpoints, report. Here: what a task's author needs."""

from romul_workers.trial import Context, Trial

__all__ = ["Context", "Trial"]
