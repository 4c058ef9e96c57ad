"""A slot: one place in the population, and the line of descent that it holds.

A slot is what an optimizer looks at and what the store keeps; it knows no rule and no I/O. All
losses here are minimised ones: a metric to maximise has changed its sign before it gets here.
"""

import math
from collections.abc import Mapping
from dataclasses import field, fields
from operator import attrgetter
from typing import Any, Literal

from romul_actors.core.space import Value
from romul_actors.core.value import value

Status = Literal[
    "queued",  # its trial waits for a worker, or is with one
    "waiting",  # its trial has ended; the next one waits for the quorum
    "parked",  # set aside, because there are too few workers for all slots
    "done",  # it has ended its last step
]


@value()
class Outcome:
    """How a slot's trial of one step ended.

    A trial that failed for good is an outcome too, of infinite loss and without a checkpoint: it
    ranks last and never keeps its peers waiting.
    """

    loss: float
    vector: tuple[float, ...]
    checkpoint: str | None

    @property
    def failed(self) -> bool:
        """Whether there is nothing to continue from."""
        return self.checkpoint is None


def failed(vector: tuple[float, ...]) -> Outcome:
    """Outcome of a trial that failed for good."""
    return Outcome(math.inf, vector, None)


@value()
class Slot:
    """One place in the population.

    Attributes:
        index: its number, from 0.
        vector: the current trial's place in the unit cube, shape (n_dims,).
        tier: the optimizer's name for the group it is judged in.
        status: see `Status`.
        step: PBT step of its current trial, from 0.
        attempt: how often the current trial was handed out; part of the fencing token.
        live_attempts: those whose report counts: one, or two while a second attempt runs.
        failures: how many attempts at the current trial failed.
        lost_attempts: how many were lost with their workers.
        seed: the current trial's training seed.
        parent: id of the trial whose checkpoint the current one continues from.
        checkpoint: name of that checkpoint.
        partial: name of a checkpoint inside the current trial, from an attempt that was cut short.
        position: where training stands in it, in the budget's unit.
        joined: its first step; above 0 for one that came later.
        parking: whether it is to be parked when its trial ends.
        pinned: whether an operator holds its hyperparameters, and its own line of descent.
        memory: what the optimizer wants to know again; numbers, texts, lists of them.
        outcomes: by step, those that a live peer may still be compared with.
        since_ms: when it came to its status.
        seconds: duration of its latest trial that succeeded; 0 before the first.
        hyperparameters: what the current trial trains with, where its vector has moved since it
            began, because bounds were changed; None: what the vector says.
    """

    index: int
    vector: tuple[float, ...]
    tier: str = ""
    status: Status = "queued"
    step: int = 0
    attempt: int = 1
    live_attempts: tuple[int, ...] = (1,)
    failures: int = 0
    lost_attempts: int = 0
    seed: int = 0
    parent: str | None = None
    checkpoint: str | None = None
    partial: str | None = None
    position: float = 0.0
    joined: int = 0
    parking: bool = False
    pinned: bool = False
    memory: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    since_ms: int = 0
    seconds: float = 0.0
    hyperparameters: Mapping[str, Value] | None = None

    @property
    def trial(self) -> str:
        """Id of the current trial."""
        return f"{self.index}-{self.step}"

    @property
    def active(self) -> bool:
        """Whether it takes part: neither done nor parked."""
        return self.status in ("queued", "waiting")

    def can_report(self, step: int) -> bool:
        """Whether it has an outcome of `step`, or may still get one."""
        return step in self.outcomes or (self.joined <= step and self.step <= step and self.active)


_PLACES = {f.name: place for place, f in enumerate(fields(Slot))}
_values = attrgetter(*_PLACES)


def changed_slot(slot: Slot, changes: Mapping[str, Any]) -> Slot:
    """A slot with some other values; what `dataclasses.replace` makes, in less time."""
    values = list(_values(slot))
    for name, new in changes.items():
        values[_PLACES[name]] = new
    return Slot(*values)


def needed(slot: Slot) -> set[str]:
    """Names of the checkpoints that the slot's trial, or a peer's next decision, may ask for."""
    names = [outcome.checkpoint for outcome in slot.outcomes.values()]
    # What a discarded trial would have continued from: an extended search tries it again.
    if slot.active or (slot.status == "done" and slot.step not in slot.outcomes):
        names += slot.checkpoint, slot.partial
    return {name for name in names if name is not None}
