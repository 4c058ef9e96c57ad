"""Random search (Bergstra & Bengio 2012): the baseline for all other optimizers.

Each slot draws its hyperparameters once, and trains with them to the end, independently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from romul_actors.core.optimizers.base import Alone, Move, View


@dataclass(frozen=True)
class RandomSearch(Alone):
    """Random search; it has no constants."""

    name: ClassVar[str] = "random"

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Continue; a slot that failed draws new hyperparameters and starts from scratch."""
        moves = []
        for i in due:
            if view.known[i].failed:
                vector = tuple(view.rng(i).random(len(view.space)).tolist())
                moves.append(Move(i, None, vector, why={"rule": "drawn anew"}, fresh=True))
            else:
                moves.append(Move(i, i, view.known[i].vector, why={"rule": "held"}))
        return moves
