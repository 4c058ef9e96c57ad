"""The interface of optimizers: a stateless function from results to the next trials.

An optimizer object holds only constants. State that it needs between decisions is in `Slot.memory`,
and random numbers come from the generator of the decision. So every replica of the actor makes the
same decision, at any time (source: this project).
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
"""How a slot joins: the share of best slots that it may copy, the standard deviation of its step,
and the probability of redrawing a choice."""


@dataclass(frozen=True, slots=True)
class Start:
    """The tier and the first vector, of shape (n_dims,), of a slot."""

    tier: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The information that a decision may use.

    Attributes:
        space: the search space.
        slots: the whole population, by index.
        pool: indices of the slots that are compared with each other.
        step: the PBT step that is judged.
        steps: number of steps that a slot is expected to reach.
        known: known outcomes of the pool at `step`, by slot index.
        rng: function from a slot's index to the generator of its decision; each call returns a new
            generator with the same stream.
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
        slot: index of the slot that is decided.
        source: index of the slot whose checkpoint of this step the next trial continues from. None
            means the slot's own previous checkpoint, or no checkpoint with `fresh`.
        vector: the next trial's hyperparameters in the unit cube, shape (n_dims,).
        memory: state to store in the slot for its next decision, as JSON values.
        why: the reasons, for people, as JSON values.
        fresh: whether to start from scratch.
        tier: the slot's new tier; None keeps the old one.
    """

    slot: int
    source: int | None
    vector: tuple[float, ...]
    memory: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    tier: str | None = None


class Optimizer(ABC):
    """Base class of optimizers: an algorithm of population based training, with its constants.

    Subclasses are dataclasses; their fields are the constants, and all have defaults.
    """

    name: ClassVar[str]
    max_lead: ClassVar[int | None] = 2
    """Number of steps by which a slot may be ahead of the last one; None means any number."""
    gone: ClassVar[Mapping[str, str]] = {}
    """Options that were removed, each with what replaces it."""
    grace: float = 0.05
    """How long idle workers wait for missing outcomes once the quorum is met, in median trials.

    While no worker is idle, waiting costs nothing, and the missing outcomes are waited for.
    """

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """Tiers and first vectors of all slots. Default: one tier, independent uniform draws."""
        return [Start("all", tuple(row)) for row in rng.random((n_slots, len(space))).tolist()]

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """Indices of the slots that `slot` is compared with at its step, including itself.

        Default: all slots. For two slots at the same step, either each is in the other's pool, or
        one of them is decided without the other. A slot that is due has an outcome of its step.
        """
        del slot, steps
        return range(len(slots))

    @abstractmethod
    def quorum(self, n_pool: int) -> int:
        """Number of outcomes of a pool that must be known before its slots are decided."""

    @abstractmethod
    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Decide the next trials of slots.

        Args:
            view: the information to decide on.
            due: indices of the slots to decide. All are in the pool and have a known outcome.

        Returns:
            One move for each slot in `due`, in the same order.
        """

    def moved(
        self, memory: Mapping[str, Any], move: Callable[[Sequence[float]], tuple[float, ...]]
    ) -> Mapping[str, Any]:
        """Convert a slot's memory after the bounds of the space have changed.

        Args:
            memory: the slot's memory.
            move: converts a vector to the new bounds.
        """
        return {**memory, "base": list(move(memory["base"]))} if "base" in memory else memory

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Tier and first move of a slot that joins a running search.

        Default: it copies the checkpoint of one of the best quarter of the slots, and takes a small
        random step from its vector (source: this project).
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
    """Base class of optimizers that decide each slot by itself, without waiting for others."""

    max_lead: ClassVar[int | None] = None
    grace = 0.0

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """The slot alone."""
        del slots, steps
        return [slot.index]

    def quorum(self, n_pool: int) -> int:
        """One: the slot waits for no other."""
        del n_pool
        return 1

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Draw new hyperparameters, and start from scratch."""
        vector = tuple(view.rng(slot).random(len(view.space)).tolist())
        return "all", Move(slot, None, vector, why={"rule": "joined"}, fresh=True)


def step_around(
    space: Space, center: Vector, sigma: float, redraw: float, rng: Generator
) -> Vector:
    """Take a small normally distributed step in all coordinates; sometimes redraw a choice.

    Args:
        space: the search space.
        center: the vector to start from, shape (n_dims,).
        sigma: standard deviation of the step.
        redraw: probability that a choice is redrawn.
        rng: the generator.

    Returns:
        The new vector, shape (n_dims,). It may be outside [0, 1]; see `reflect`.
    """
    moved = np.asarray(center + sigma * rng.standard_normal(len(center)))
    for c in space.choice_axes:
        n = space.n_choices[c]
        again = rng.random() < redraw
        moved[c] = (int(rng.integers(n)) + 0.5) / n if again else center[c]
    return moved


def latin_hypercube(n_points: int, n_dims: int, rng: Generator) -> Vector:
    """Points that are spread evenly along each axis, shape (n_points, n_dims) (McKay et al. 1979).

    Along each axis, all points have the same offset within their cells (a random shift, Cranley &
    Patterson 1976), so that no gap is wider than a cell.
    """
    cells = np.stack([rng.permutation(n_points) for _ in range(n_dims)], axis=1)
    return (cells + rng.random(n_dims)) / n_points


def reflect(vector: Vector) -> Vector:
    """Reflect coordinates outside [0, 1] at the bounds."""
    folded = np.abs(vector) % 2.0
    return np.where(folded > 1.0, 2.0 - folded, folded)


def share(fraction: float, n: int) -> int:
    """`fraction * n`, rounded up, with a tolerance of 1e-9 for rounding errors."""
    return math.ceil(fraction * n - 1e-9)
