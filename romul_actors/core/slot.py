"""A slot: one place in the population, and its line of descent.

Optimizers read slots, and the store keeps them; this module contains no rules and no I/O. All
losses are minimised: the sign of a metric to maximise has already been changed.
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
    "waiting",  # its trial has ended, and its next one is not decided yet
    "parked",  # set aside, because there are too few workers for all slots
    "done",  # it has ended its last step, or the search has ended
]


@value()
class Outcome:
    """How a slot's trial of one step ended.

    A trial that was given up has an outcome too, with infinite loss and without a checkpoint. It
    ranks last, and no slot waits for it.
    """

    loss: float
    vector: tuple[float, ...]
    checkpoint: str | None

    @property
    def failed(self) -> bool:
        """Whether the trial was given up, so that there is nothing to continue from."""
        return self.checkpoint is None


def failed(vector: tuple[float, ...]) -> Outcome:
    """The outcome of a trial that was given up."""
    return Outcome(math.inf, vector, None)


@value()
class Slot:
    """One place in the population.

    Attributes:
        index: number of the slot, from 0.
        vector: the current trial's hyperparameters as a point of the unit cube, shape (n_dims,).
        tier: the optimizer's name for the group in which the slot is judged.
        status: see `Status`.
        step: PBT step of the current trial, from 0.
        attempt: number of the latest attempt at the current trial, from 1; part of the fencing
            token.
        live_attempts: attempts whose reports count: one, or two while a second copy runs.
        failures: number of failed attempts at the current trial.
        lost_attempts: number of attempts lost with their workers.
        seed: training seed of the current trial.
        parent: id of the trial whose checkpoint the current one continues from.
        checkpoint: name of that checkpoint.
        partial: name of a partial checkpoint of the current trial, from an interrupted attempt.
        position: position of the training in the partial checkpoint, in the unit of the budget.
        joined: the slot's first step; above 0 if it joined later.
        parking: whether the slot will be parked when its trial ends.
        pinned: whether an operator has pinned its hyperparameters and its line of descent.
        memory: state that the optimizer keeps between decisions, as JSON values.
        outcomes: outcomes by step, for the steps at which slots may still be compared.
        since_ms: when the slot got its status, in milliseconds since the epoch.
        seconds: duration of its latest successful trial, in seconds; 0 before the first.
        hyperparameters: values of the current trial if they differ from `vector`, because bounds
            have been changed since it began; else None.
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
        """Whether the slot takes part: it is neither done nor parked."""
        return self.status in ("queued", "waiting")

    def can_report(self, step: int) -> bool:
        """Whether the slot has an outcome of `step`, or may still get one."""
        return step in self.outcomes or (self.joined <= step and self.step <= step and self.active)


_PLACES = {f.name: place for place, f in enumerate(fields(Slot))}
_values = attrgetter(*_PLACES)


def changed_slot(slot: Slot, changes: Mapping[str, Any]) -> Slot:
    """A slot with some values changed. The same as `dataclasses.replace`, but faster."""
    values = list(_values(slot))
    for name, new in changes.items():
        values[_PLACES[name]] = new
    return Slot(*values)


def needed(slot: Slot) -> set[str]:
    """Names of the checkpoints that the slot's trial, or a later decision, may need."""
    names = [outcome.checkpoint for outcome in slot.outcomes.values()]
    # The parent of a discarded trial is kept: if the search is extended, the trial is retried.
    if slot.active or (slot.status == "done" and slot.step not in slot.outcomes):
        names += slot.checkpoint, slot.partial
    return {name for name in names if name is not None}
