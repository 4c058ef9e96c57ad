"""A run in figures, for programs: what `romul run` writes beside its pictures."""

from collections.abc import Mapping, Sized
from typing import Any

from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.stored_fields import StoredFields


def summary(experiment: Experiment, meta: Mapping[str, str], found: Sized) -> dict[str, Any]:
    """The run in figures, as JSON values.

    Args:
        experiment: its declaration.
        meta: fields of the experiment's own hash in the store.
        found: all trials that were decided.

    Raises:
        StoredDataError: a field of its hash holds what ROMUL never writes.
    """
    own = StoredFields.of_experiment(experiment.name, meta)
    best, failed = own.best(experiment.metric), own.count("failed", "0")
    return {
        "name": experiment.name,
        "status": own.text("status"),
        "reason": own.reason(),
        "metric": experiment.metric,
        "best": best.get(experiment.metric),
        "best_trial": best.get("trial"),
        "best_checkpoint": best.get("checkpoint"),
        "best_hyperparameters": best.get("hyperparameters"),
        "best_metrics": best.get("metrics"),
        "population": experiment.population,
        "steps": experiment.steps,
        "decisions": len(found),
        "trials": own.count("reported", "0") + failed,
        "failed": failed,
        "retried": own.count("retried", "0"),
    }
