"""A run in figures, for programs: what `romul run` writes beside its pictures."""

import json
from collections.abc import Mapping, Sized
from typing import Any

from romul_actors.protocol.experiment import Experiment


def summary(experiment: Experiment, meta: Mapping[str, str], found: Sized) -> dict[str, Any]:
    """The run in figures, as JSON values.

    Args:
        experiment: its declaration.
        meta: fields of the experiment's own hash in the store.
        found: all trials that were decided.
    """
    best = json.loads(meta["best"]) if meta.get("best") else {}
    return {
        "name": experiment.name,
        "status": meta["status"],
        "reason": meta.get("reason", ""),
        "metric": experiment.metric,
        "best": best.get(experiment.metric),
        "best_trial": best.get("trial"),
        "best_checkpoint": best.get("checkpoint"),
        "best_hyperparameters": best.get("hyperparameters"),
        "best_metrics": best.get("metrics"),
        "population": experiment.population,
        "steps": experiment.steps,
        "decisions": len(found),
        "trials": int(meta.get("reported", 0)) + int(meta.get("failed", 0)),
        "failed": int(meta.get("failed", 0)),
        "retried": int(meta.get("retried", 0)),
    }
