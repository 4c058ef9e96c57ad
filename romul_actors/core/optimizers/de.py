"""Plain differential evolution on loss values (Storn & Price 1997), for comparison with ROMUL.

It uses current-to-best/1. A trial's vector replaces its base if its loss is lower than that of the
base was. But losses fall during training, so the new vector nearly always wins. ROMUL avoids this
problem by comparing ranks within a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from romul_actors.core.optimizers.base import (
    Move,
    Optimizer,
    View,
    reflect,
    share,
)
from romul_actors.core.slot import Slot

MIN_POOL = 3
"""Smallest pool that has two other slots for a difference; `max_trials` may leave fewer slots."""


@dataclass(frozen=True)
class PlainDE(Optimizer):
    """Constants of plain differential evolution.

    Attributes:
        quorum_share: share of the pool whose outcomes must be known.
        f1, f2: weights of the random difference and of the attraction to the best.
        crossover: probability that a coordinate comes from the mutated vector.
    """

    name: ClassVar[str] = "de"

    quorum_share: float = 0.75
    f1: float = 0.8
    f2: float = 0.8
    crossover: float = 0.5

    def quorum(self, n_pool: int) -> int:
        """A share of the pool, at least four slots."""
        return min(n_pool, max(4, share(self.quorum_share, n_pool)))

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Select, then mutate. A checkpoint is copied only for a slot that has none."""
        order = sorted(view.known, key=lambda i: (view.known[i].loss, i))
        best = order[0]
        place = {i: n for n, i in enumerate(view.pool)}
        bases = {}
        for i in due:
            base, loss = _base(view.slots[i])
            own = view.known[i]
            bases[i] = (own.vector, own.loss) if own.loss <= loss else (base, loss)
        moves = []
        for i in due:
            base, loss = bases[i]
            vector: tuple[float, ...] = base
            why: dict[str, Any] = {"rule": "kept"}
            if len(view.pool) >= MIN_POOL:
                rng = view.rng(i)
                # Two other slots: numbers from its own place on are shifted by one.
                chosen = rng.choice(len(view.pool) - 1, size=2, replace=False)
                a, b = (view.pool[int(n) + int(n >= place[i])] for n in chosen)
                here, from_a, from_b = (
                    np.array(bases[j][0] if j in bases else _base(view.slots[j])[0])
                    for j in (i, a, b)
                )
                towards = np.array(view.known[best].vector)
                donor = here + self.f1 * (from_a - from_b) + self.f2 * (towards - here)
                mask = rng.random(len(here)) < self.crossover
                mask[rng.integers(len(here))] = True
                vector = tuple(reflect(np.where(mask, donor, here)).tolist())
                why = {"rule": "mutated", "a": a, "b": b, "best": best}
            source = best if view.known[i].failed else i
            memory = {"base": list(base), "loss": loss if np.isfinite(loss) else None}
            moves.append(
                Move(i, None if view.known[source].failed else source, vector, memory, why)
            )
        return moves


def _base(slot: Slot) -> tuple[tuple[float, ...], float]:
    """The base vector of a slot, and its loss."""
    if slot.memory.get("loss") is None:
        return slot.vector, float("inf")
    return tuple(slot.memory["base"]), float(slot.memory["loss"])
