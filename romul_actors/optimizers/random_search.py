"""Random search (Bergstra & Bengio 2012): what every other optimizer must beat.

Each slot draws its hyperparameters once and trains with them to the end; no slot looks at another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from numpy.random import Generator

from romul_actors.optimizers.base import Move, Optimizer, Start, View, uniform_starts
from romul_actors.slot import Slot
from romul_actors.space import Space


@dataclass(frozen=True)
class RandomSearch(Optimizer):
    """Random search; it has no constants."""

    name: ClassVar[str] = "random"

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """Independent uniform draws."""
        return uniform_starts(space, n_slots, rng)

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """Compare the slot with nobody else."""
        del slots, steps
        return [slot.index]

    def quorum(self, n_pool: int) -> int:
        """Wait for nobody."""
        del n_pool
        return 1

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Go on; a slot that failed draws anew and starts from scratch."""
        moves = []
        for i in due:
            if view.known[i].failed:
                vector = tuple(view.rng(i).random(len(view.space)).tolist())
                moves.append(Move(i, None, vector, why={"rule": "drawn anew"}, fresh=True))
            else:
                moves.append(Move(i, i, view.known[i].vector, why={"rule": "held"}))
        return moves
