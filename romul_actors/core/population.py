"""The population as a value, and what an event leads to.

Only data, frozen: `decide` makes the next population out of one and an event.
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
    "finished",  # every slot has ended its last step
    "failed",  # every slot failed at one step; `resume` tries it again
    "stopped",  # by an operator, for good
]


@value()
class Best:
    """The best loss ever accepted, and what was trained for it, whatever the bounds are now."""

    trial: str
    loss: float
    hyperparameters: Mapping[str, Value]
    checkpoint: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    vector: tuple[float, ...] = ()
    """Its place, or the nearest one between today's bounds; read by actors of older versions."""


@value()
class Counts:
    """Trials by their end. created = reported + failed + discarded + live, at all times."""

    created: int = 0
    reported: int = 0
    failed: int = 0
    discarded: int = 0
    retried: int = 0
    """Attempts beyond the first of a trial."""


class Progress(NamedTuple):
    """How many slots of a pool have come how far with one step.

    Attributes:
        known: have an outcome of it.
        sound: of these, have one that can be continued from.
        missing: have none, and may still get one.
        waiting: of those with an outcome, wait to be decided at this step.
        decided: of those with an outcome, are at a later step by now.
    """

    known: int = 0
    sound: int = 0
    missing: int = 0
    waiting: int = 0
    decided: int = 0

    def with_other(self, before: "Progress", after: "Progress") -> "Progress":
        """The progress when one slot's share of it is another one than before."""
        return Progress(
            self[0] - before[0] + after[0],
            self[1] - before[1] + after[1],
            self[2] - before[2] + after[2],
            self[3] - before[3] + after[3],
            self[4] - before[4] + after[4],
        )


@value(kw_only=True)
class Population:
    """All that a decision may depend on, but for the event.

    Attributes:
        settings: what is fixed.
        status: see `PopulationStatus`.
        reason: why it is so, for people.
        slots: by index.
        best: the best trial so far.
        counts: trials by their end.
        causes: how often attempts ended otherwise than well, by cause.
        idle_since_ms: since when there are more workers than trials; None: there are not.
        crowded_since_ms: since when there are more slots than the workers' number allows.
        horizon: how many steps a slot is expected to come to; fewer than `settings.steps` only
            with a limit of time or trials.
        started_ms: when it began; None: it has not, or an older version did not write it down.
        oldest: step of the active slots that are farthest behind, and how many these are; None:
            not known. It follows from the slots, and spares the next event a look at all of them.
        progress: of all slots with the steps that are judged by now; it follows from the slots
            in the same way.
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
        """Names of all checkpoints that must be kept; all others are garbage."""
        names = {name for slot in self.slots for name in needed(slot)}
        if self.status == "submitted":
            names |= {first.checkpoint for first in self.settings.inherited}
        return names | {self.best.checkpoint} if self.best is not None else names


@value()
class Decision:
    """What an event leads to.

    Attributes:
        population: the population after it; unchanged slots are the very same objects.
        trials: to be handed to workers.
        history: the lines that it adds to the run's history.
    """

    population: Population
    trials: tuple[TrialMessage, ...] = ()
    history: tuple[Line, ...] = ()


def changed(before: Sequence[Slot], after: Sequence[Slot]) -> list[Slot]:
    """Slots of `after` that are not the very same objects in `before`."""
    new = [slot for old, slot in zip(before, after, strict=False) if old is not slot]
    return [*new, *after[len(before) :]]
