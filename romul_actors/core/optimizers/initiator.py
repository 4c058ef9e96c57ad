"""Initiator PBT (Li et al. 2019, "A Generalized Framework for Population Based Training").

A slot that has ended its step draws an opponent, and continues the better of the two with perturbed
hyperparameters. There are no generations. One opponent is enough, but idle workers wait for the
grace, so that slots that end at about the same time can meet each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from romul_actors.core.optimizers.base import Move, Optimizer, View
from romul_actors.core.optimizers.truncation import perturb


@dataclass(frozen=True)
class Initiator(Optimizer):
    """Constants of Initiator PBT.

    Attributes:
        resample: probability that a hyperparameter is redrawn.
        down, up: factors of which one, chosen at random, multiplies it otherwise.
    """

    name: ClassVar[str] = "initiator"

    resample: float = 0.25
    down: float = 0.8
    up: float = 1.2

    def quorum(self, n_pool: int) -> int:
        """Two: the slot and one opponent."""
        return min(n_pool, 2)

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Continue the winner of a tournament of two."""
        sound = [j for j in view.known if not view.known[j].failed]
        place = {j: n for n, j in enumerate(sound)}
        moves = []
        for i in due:
            rng = view.rng(i)
            own = place.get(i, len(sound))
            n_others = len(sound) - (i in place)
            winner = i
            if n_others:
                n = int(rng.integers(n_others))
                j = sound[n + (n >= own)]
                winner = j if view.known[j].loss < view.known[i].loss else i
            vector = tuple(
                perturb(parameter, position, rng, self.resample, (self.down, self.up))
                for parameter, position in zip(view.space, view.known[winner].vector, strict=True)
            )
            source = None if view.known[winner].failed else winner
            why = {"rule": "perturbed", "known": len(view.known)}
            moves.append(
                Move(i, source, vector, why=why if winner == i else {**why, "copied": winner})
            )
        return moves
