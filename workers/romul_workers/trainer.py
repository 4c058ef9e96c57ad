"""The interface of a trainer, and the ways in which a trial's training can end.

The worker knows only `Trainer`, so that the simulator can replace the real one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from romul_actors.core.events import FailureReason, TrialMessage
from romul_actors.protocol.experiment import Experiment


@dataclass(frozen=True, slots=True)
class Restored:
    """How a trial's parent was restored.

    Attributes:
        seconds: how long it took to find and check the files and to restore their content.
        warm: whether the parent was in the memory of the process that trained it.
    """

    seconds: float
    warm: bool


@dataclass(frozen=True, slots=True)
class Success:
    """A trial trained its whole budget, and its checkpoint is stored.

    Attributes:
        value: the experiment's metric.
        checkpoint: name of the checkpoint.
        metrics: all other figures that the task returned, by name.
        in_effect: hyperparameters as they were read back after they were applied, by name.
        left_out: why returned values that are not figures were left out, by name; see
            `romul_workers.child.figures`.
        provenance: which code and versions made the result; see `romul_workers.child.provenance`.
        restored: how the parent was restored; None: the trial had no parent.
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
    """A trial failed; the failure is reported with its reason.

    Attributes:
        reason: one of `romul_actors.core.events.FailureReason`.
        message: the cause, for people.
        elsewhere: whether this machine lacks what other machines may have. If so, the trial did not
            begin, and nothing is reported.
    """

    reason: FailureReason
    message: str
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The task followed `trial.should_stop` before it had trained its whole budget.

    Attributes:
        checkpoint: name of the partial checkpoint; None: there is none.
        at: the position in training that the partial checkpoint holds, in the budget's unit.
        message: why there is none although the task paused; "" otherwise.
    """

    checkpoint: str | None = None
    at: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class NoRoom:
    """This machine has no room for a checkpoint now; it does not count as a failure of the trial.

    Attributes:
        message: the cause, for people.
    """

    message: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The storage of checkpoints worked before, but now refuses or does not answer.

    Attributes:
        message: the cause, for people.
    """

    message: str


Ending = Success | Failure | Stopped | NoRoom | Outage


def ignore() -> None:
    """Do nothing: the default for `stores` in `Trainer.train`."""


class Trainer(ABC):
    """Trains one trial at a time, possibly while the previous trial's checkpoint is stored."""

    at: float | None = None
    """The position that the trial in training last reported, in the budget's unit; None: none."""
    output: str = ""
    """What the trial that was trained last printed, if the trainer knows it."""

    @abstractmethod
    async def train(
        self, experiment: Experiment, trial: TrialMessage, stores: Callable[[], None] = ignore
    ) -> Ending:
        """Train one trial to its end. If cancelled, the trial ends at once and leaves nothing.

        Args:
            experiment: the trial's experiment.
            trial: the trial.
            stores: called when training is over and only the checkpoint remains to be stored. From
                then on another trial may be trained. At that moment `output` is this trial's.
        """

    def has_room(self) -> bool:
        """Whether there is room for a checkpoint beside the one that is being stored."""
        return True

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Set `trial.should_stop` for this trial and all later ones: the worker is about to end."""

    @abstractmethod
    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        """Remove a checkpoint that no trial needs; do nothing if there is none of that name.

        Raises:
            CheckpointError: it cannot be removed, or its removal takes long.
        """

    @abstractmethod
    async def close(self) -> None:
        """End all processes that still run."""
