"""What a worker needs from a trainer, and how a trial in training can end.

The worker knows `Trainer` only, so that the simulator can stand in for the hours of training.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from romul_actors.core.events import FailureReason, TrialMessage
from romul_actors.protocol.experiment import Experiment


@dataclass(frozen=True, slots=True)
class Restored:
    """How a trial's parent came to it.

    Attributes:
        seconds: how long that took: the files found and checked, and their content restored.
        warm: whether it was in the memory of the process that trained it.
    """

    seconds: float
    warm: bool


@dataclass(frozen=True, slots=True)
class Success:
    """A trial trained its whole budget, and its checkpoint is stored.

    Attributes:
        value: the experiment's metric.
        checkpoint: its name.
        metrics: all other figures that the task returned.
        in_effect: hyperparameters that were read back after they had been applied.
        left_out: what the task returned and is no figure; see `romul_workers.figures`.
        provenance: where the result comes from; see `romul_workers.provenance`.
        restored: how its parent came to it; None: it has none.
    """

    value: float
    checkpoint: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    in_effect: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A trial failed, for a reason of its own.

    Attributes:
        reason: one of `romul_actors.core.events.FailureReason`.
        message: for people.
    """

    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The task followed `trial.should_stop` before it had trained its whole budget.

    Attributes:
        checkpoint: name of the partial checkpoint that it left; None: nothing is left.
        at: where training stands in it, in the budget's unit.
    """

    checkpoint: str | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing can be stored here now; the trial is not at fault, and the state may pass.

    Attributes:
        message: for people.
    """

    message: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The storage of checkpoints refuses, or does not answer; it did before, and may again.

    Attributes:
        message: for people.
    """

    message: str


Ending = Success | Failure | Stopped | NoRoom | Outage


def ignore() -> None:
    """Do nothing: the checkpoint is stored before another trial is trained."""


class Trainer(ABC):
    """Trains trials, one at a time; the one before may still be stored meanwhile."""

    at: float | None = None
    """Where the trial in training last reported it stands, in the budget's unit; None: nowhere."""
    output: str = ""
    """What the trial that was trained last printed, if that is known."""

    @abstractmethod
    async def train(
        self, experiment: Experiment, trial: TrialMessage, stores: Callable[[], None] = ignore
    ) -> Ending:
        """Train one trial to its end. If cancelled, the trial ends at once and leaves nothing.

        Args:
            experiment: the trial's.
            trial: the trial.
            stores: is called once all that is left to do is to store the checkpoint: from then on
                another trial may be trained. `output` is this trial's at that moment.
        """

    def has_room(self) -> bool:
        """Whether another trial's checkpoint may be made beside the one that is being stored."""
        return True

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Set `trial.should_stop`, for good: the worker is about to end."""

    @abstractmethod
    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        """Remove a checkpoint that no trial needs; nothing is done if there is none of that name.

        Raises:
            CheckpointError: it cannot be removed, or not at once.
        """

    @abstractmethod
    async def close(self) -> None:
        """End everything that still runs."""
