"""The population and the result of a decision, as immutable values.

`decide` computes the next population from a population and an event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal, NamedTuple

from romul_actors.core.events import TrialMessage
from romul_actors.core.history import Line
from romul_actors.core.settings import Settings
from romul_actors.core.slot import Slot, needed
from romul_actors.core.space import Value
from romul_actors.core.value import value

PopulationStatus = Literal[
    "submitted",  # created; no slot yet
    "running",
    "paused",  # by an operator: results are kept, nothing is decided
    "finished",  # every slot has ended its last step, or a limit was reached
    "failed",  # every trial of one step failed; `resume` retries them
    "stopped",  # by an operator
]


@value()
class Best:
    """The trial with the lowest loss accepted so far, with its values at that time."""

    trial: str
    loss: float
    hyperparameters: Mapping[str, Value]
    checkpoint: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    vector: tuple[float, ...] = ()
    """Its vector, moved within the current bounds; actors of older versions read it."""


@value()
class Counts:
    """Numbers of trials by outcome. created = reported + failed + discarded + live, always."""

    created: int = 0
    reported: int = 0
    failed: int = 0
    discarded: int = 0
    retried: int = 0
    """Attempts beyond the first of a trial."""


class Progress(NamedTuple):
    """Numbers of slots of a pool by their state at one step.

    Attributes:
        known: slots that have an outcome of the step.
        sound: known slots whose outcome can be continued from.
        missing: slots without an outcome that may still get one.
        waiting: known slots that wait to be decided at this step.
        decided: known slots that are already at a later step.
    """

    known: int = 0
    sound: int = 0
    missing: int = 0
    waiting: int = 0
    decided: int = 0

    def with_other(self, before: "Progress", after: "Progress") -> "Progress":
        """The progress after the share of one slot has changed."""
        return Progress(
            self[0] - before[0] + after[0],
            self[1] - before[1] + after[1],
            self[2] - before[2] + after[2],
            self[3] - before[3] + after[3],
            self[4] - before[4] + after[4],
        )


@value(kw_only=True)
class Population:
    """Everything that a decision may depend on, except the event.

    Times are in milliseconds since the epoch.

    Attributes:
        settings: the fixed settings.
        status: see `PopulationStatus`.
        reason: explanation of the status, in words.
        slots: all slots, by index.
        best: the best trial so far.
        counts: numbers of trials by outcome.
        causes: numbers of attempts that ended without a result, and of stale reports, by cause.
        idle_since_ms: time since which there are more workers than trials; None if there are not.
        crowded_since_ms: time since which there are more slots than `elasticity` allows for the
            workers; None if there are not.
        horizon: number of steps that a slot is expected to reach; smaller than `settings.steps`
            only with a limit of time or trials.
        started_ms: when the search began; None if it has not begun, or if an older version did not
            record it.
        oldest: the lowest step of any active slot, and the number of active slots at it; None if
            not known. It is derived from the slots, and cached.
        progress: progress of all slots at the steps being judged; also derived and cached.
    """

    settings: Settings
    status: PopulationStatus = "submitted"
    reason: str = ""
    slots: tuple[Slot, ...] = ()
    best: Best | None = None
    counts: Counts = field(default_factory=Counts)
    causes: Mapping[str, int] = field(default_factory=dict)
    idle_since_ms: int | None = None
    crowded_since_ms: int | None = None
    horizon: int = 0
    started_ms: int | None = None
    oldest: tuple[int, int] | None = field(default=None, compare=False)
    progress: Mapping[int, Progress] = field(default_factory=dict, compare=False)

    def needed_checkpoints(self) -> set[str]:
        """Names of all checkpoints that must be kept. All others are garbage."""
        names = {name for slot in self.slots for name in needed(slot)}
        if self.status == "submitted":
            names |= {first.checkpoint for first in self.settings.inherited}
        return names | {self.best.checkpoint} if self.best is not None else names


@value()
class Decision:
    """The result of one or more events.

    Attributes:
        population: the new population. Slots that have not changed are the same objects.
        trials: messages to be queued for workers.
        history: new lines of the history.
    """

    population: Population
    trials: tuple[TrialMessage, ...] = ()
    history: tuple[Line, ...] = ()


def changed(before: Sequence[Slot], after: Sequence[Slot]) -> list[Slot]:
    """Slots of `after` that are not the same objects in `before`."""
    new = [slot for old, slot in zip(before, after, strict=False) if old is not slot]
    return [*new, *after[len(before) :]]
