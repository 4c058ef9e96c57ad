"""Multiple-Frequencies PBT (arXiv 2506.03225, 2025), implemented from the paper.

Sub-populations evolve with different periods, so that the slow ones are less greedy. When a
sub-population evolves, it does truncation PBT internally. Then slots in its third quarter may be
replaced by better slots from outside: from a faster sub-population only the weights are copied,
with the hyperparameters of its own best slot; from a slower one both weights and hyperparameters
are copied. For a comparison with the authors' code, see docs/rivals.md.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from numpy.random import Generator

from romul_actors.core.optimizers.base import Move, Optimizer, Start, View, share
from romul_actors.core.optimizers.truncation import perturb
from romul_actors.core.space import Space


@dataclass(frozen=True)
class MultiFrequency(Optimizer):
    """Constants of MF-PBT.

    Attributes:
        quorum_share: share of the pool whose outcomes must be known.
        slowest: longest period, in steps. The periods are 1, and `slowest` divided by 4, 2 and 1.
        resample: probability that a copied hyperparameter is redrawn. The authors redraw none, but
            then choices would never change.
        down, up: factors of which one, chosen at random, multiplies it otherwise.
    """

    name: ClassVar[str] = "mf_pbt"

    quorum_share: float = 0.75
    slowest: int = 16
    resample: float = 0.25
    down: float = 0.8
    up: float = 1.25

    @property
    def periods(self) -> tuple[int, ...]:
        """Period of each sub-population, in steps."""
        return (1, max(1, self.slowest // 4), max(1, self.slowest // 2), self.slowest)

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """Independent uniform draws, in sub-populations of at least 4 slots, the fastest first."""
        n_tiers = max(1, min(len(self.periods), n_slots // 4))
        return [
            Start(str(self.periods[i * n_tiers // n_slots]), tuple(row))
            for i, row in enumerate(rng.random((n_slots, len(space))).tolist())
        ]

    def quorum(self, n_pool: int) -> int:
        """A share of the pool, at least four slots."""
        return min(n_pool, max(4, share(self.quorum_share, n_pool)))

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Exploit within the sub-populations whose period ends, then let slots migrate."""
        known = view.known
        order = sorted(known, key=lambda i: (known[i].loss, i))
        place = {i: n for n, i in enumerate(order)}
        weights = {i: i for i in due}
        vectors = {i: i for i in due}
        migrated = set()
        for tier in {view.slots[i].tier for i in order}:
            period = int(tier)
            if (view.step + 1) % period:
                continue
            inside = [i for i in order if view.slots[i].tier == tier]
            outside = deque(i for i in order if view.slots[i].tier != tier and not known[i].failed)
            n = max(1, len(inside) // 4)
            if len(inside) > 1:
                for loser, winner in zip(inside[-n:], inside[:n], strict=True):
                    weights[loser] = vectors[loser] = winner
            for i in inside[2 * n : 3 * n]:
                if not outside or place[outside[0]] > place[i]:
                    continue
                migrant = outside.popleft()
                migrated.add(i)
                weights[i] = migrant
                slower = int(view.slots[migrant].tier) > period
                vectors[i] = migrant if slower else inside[0]
        perturbed = {i for i in due if weights[i] != i} - migrated
        moves = []
        for i in due:
            if known[weights[i]].failed:
                weights[i] = vectors[i] = order[0]
                perturbed.add(i)
            moves.append(self._move(view, i, weights[i], vectors[i], explores=i in perturbed))
        return moves

    def _move(self, view: View, i: int, weights: int, vectors: int, *, explores: bool) -> Move:
        vector = view.known[vectors].vector
        why: dict[str, object] = {"rule": "kept", "period": int(view.slots[i].tier)}
        if explores and weights != i:
            rng = view.rng(i)
            vector = tuple(
                perturb(parameter, position, rng, self.resample, (self.down, self.up))
                for parameter, position in zip(view.space, vector, strict=True)
            )
            why |= {"rule": "perturbed", "copied": weights}
        elif weights != i:
            why |= {"rule": "migrated", "copied": weights, "hyperparameters_of": vectors}
        source = None if view.known[weights].failed else weights
        return Move(i, source, vector, why=why)
