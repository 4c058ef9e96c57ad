"""Workers, which train trials. This module exports the types that a task uses."""

from romul_workers.trial import Context, Paused, Trial

__all__ = ["Context", "Paused", "Trial"]
