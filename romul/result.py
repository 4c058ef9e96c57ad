"""What a search found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial.

    Attributes:
        trial: its id, "SLOT-STEP".
        value: the metric, with the user's sign.
        hyperparameters: those of the trial's own step.
        checkpoint: its folder, or where that is not on this machine its name.
        metrics: the other figures that the task returned.
    """

    trial: str
    value: float
    hyperparameters: Mapping[str, Any]
    checkpoint: str | Path
    metrics: Mapping[str, float] = field(default_factory=dict)
