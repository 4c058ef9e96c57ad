"""Workers: lease trials, train, save checkpoints, report. What a task's author needs is here too."""

from romul_workers.trial import Context, Trial

__all__ = ["Context", "Trial"]
