"""What an optimizer is: results in, next trials out, and nothing kept in between.

An optimizer holds its constants only. Whatever it must know again lies in `Slot.memory`, whatever
is random comes from the generator that belongs to the decision, so any replica of the actor, at
any time, decides the same (source: this project).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from romul_actors.core.slot import Outcome, Slot
from romul_actors.core.space import Space, Vector

JOIN_SHARE, JOIN_SIGMA, JOIN_REDRAW = 0.25, 0.05, 0.1
"""How a slot joins: from this best share, with this step, redrawing choices this often."""


@dataclass(frozen=True, slots=True)
class Start:
    """A slot's tier and first vector, shape (n_dims,)."""

    tier: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What a decision may look at.

    Attributes:
        space: the search space.
        slots: the whole population, by index.
        pool: indices of the slots that are compared with each other.
        step: the PBT step that is judged.
        steps: how many steps the experiment has.
        known: by slot index, the outcomes of the pool at `step`.
        rng: the generator of the decision for a slot; a fresh one at each call.
    """

    space: Space
    slots: Sequence[Slot]
    pool: Sequence[int]
    step: int
    steps: int
    known: Mapping[int, Outcome]
    rng: Callable[[int], Generator]


@dataclass(frozen=True, slots=True)
class Move:
    """The decision for one slot.

    Attributes:
        slot: the slot decided.
        source: the slot whose checkpoint of this step is continued; None where no slot has one:
            then the slot's previous checkpoint is, or with `fresh` none at all.
        vector: the next trial's place in the unit cube, shape (n_dims,).
        memory: what the optimizer wants to find in the slot at its next decision.
        why: the reasons, for people, as JSON values.
        fresh: start from scratch.
        tier: the slot's tier from now on; None: it stays.
    """

    slot: int
    source: int | None
    vector: tuple[float, ...]
    memory: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    tier: str | None = None


class Optimizer(ABC):
    """One algorithm of population based training, with its constants."""

    name: ClassVar[str]
    max_lead: ClassVar[int | None] = 2
    """How many steps a slot may be ahead of the last one; None: any number."""
    gone: ClassVar[Mapping[str, str]] = {}
    """Options that it has no more, and what takes their place."""
    grace: float = 0.05
    """For how many median trials an idle worker waits for the rest of a pool whose quorum is there.

    While no worker is idle the rest is waited for anyway: it costs nothing.
    """

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """Tiers and first vectors of all slots: one tier and independent uniform draws."""
        return [Start("all", tuple(row)) for row in rng.random((n_slots, len(space))).tolist()]

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """Indices of the slots that `slot` is compared with at its step, itself included: all.

        Two slots of one step are in each other's pool, or one of them is decided without the
        other. A slot that is due has an outcome of its step.
        """
        del slot, steps
        return range(len(slots))

    @abstractmethod
    def quorum(self, n_pool: int) -> int:
        """How many of a pool's outcomes of a step must be known before it is decided."""

    @abstractmethod
    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Moves of the slots `due`, all of one pool and with a known outcome, in their order."""

    def moved(
        self, memory: Mapping[str, Any], move: Callable[[Sequence[float]], tuple[float, ...]]
    ) -> Mapping[str, Any]:
        """A slot's memory when the bounds of the space have changed: its places are moved."""
        return {**memory, "base": list(move(memory["base"]))} if "base" in memory else memory

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Tier and first move of a slot that joins a population in training.

        It takes the checkpoint of one of the best quarter, and explores around its vector
        (source: this project).
        """
        rng = view.rng(slot)
        order = sorted(
            (i for i, outcome in view.known.items() if not outcome.failed),
            key=lambda i: (view.known[i].loss, i),
        )
        source = order[int(rng.integers(share(JOIN_SHARE, len(order))))]
        center = np.array(view.known[source].vector)
        moved = step_around(view.space, center, JOIN_SIGMA, JOIN_REDRAW, rng)
        vector = tuple(reflect(moved).tolist())
        why = {"rule": "joined", "copied": source, "known": len(order)}
        return view.slots[source].tier, Move(slot, source, vector, why=why)


class Alone(Optimizer):
    """An optimizer that decides each slot by itself, without waiting for others."""

    max_lead: ClassVar[int | None] = None
    grace = 0.0

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """The slot alone: it is compared with no other."""
        del slots, steps
        return [slot.index]

    def quorum(self, n_pool: int) -> int:
        """One: the slot waits for no other."""
        del n_pool
        return 1

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Draw anew, and start from scratch."""
        vector = tuple(view.rng(slot).random(len(view.space)).tolist())
        return "all", Move(slot, None, vector, why={"rule": "joined"}, fresh=True)


def step_around(
    space: Space, center: Vector, sigma: float, redraw: float, rng: Generator
) -> Vector:
    """Take a small normal step in all directions; a choice is drawn anew at times.

    Args:
        space: says which coordinates are choices.
        center: shape (n_dims,).
        sigma: standard deviation of the step.
        redraw: probability that a choice is drawn anew.
        rng: where the numbers come from.

    Returns:
        Shape (n_dims,); not folded back into [0, 1] yet.
    """
    moved = np.asarray(center + sigma * rng.standard_normal(len(center)))
    for c in space.choice_axes:
        n = space.n_choices[c]
        again = rng.random() < redraw
        moved[c] = (int(rng.integers(n)) + 0.5) / n if again else center[c]
    return moved


def latin_hypercube(n_points: int, n_dims: int, rng: Generator) -> Vector:
    """Points that fill each axis evenly, shape (n_points, n_dims) (McKay et al. 1979).

    Along an axis all lie at the same place in their cells (a random shift, Cranley & Patterson
    1976), so that no gap is wider than a cell.
    """
    cells = np.stack([rng.permutation(n_points) for _ in range(n_dims)], axis=1)
    return (cells + rng.random(n_dims)) / n_points


def reflect(vector: Vector) -> Vector:
    """Fold coordinates outside [0, 1] back, as a mirror at each end would."""
    folded = np.abs(vector) % 2.0
    return np.where(folded > 1.0, 2.0 - folded, folded)


def share(fraction: float, n: int) -> int:
    """Size of a fraction of `n`, rounded up, but for what is a whole number to 9 digits."""
    return math.ceil(fraction * n - 1e-9)
