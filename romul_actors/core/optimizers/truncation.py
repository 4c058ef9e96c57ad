"""Truncation PBT (Jaderberg et al. 2017, "Population Based Training of Neural Networks")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.random import Generator

from romul_actors.core.optimizers.base import (
    Move,
    Optimizer,
    Start,
    View,
    latin_hypercube,
    share,
)
from romul_actors.core.parameter import BooleanParameter, Parameter, cell
from romul_actors.core.space import Space

MIN_POOL = 2


@dataclass(frozen=True)
class Truncation(Optimizer):
    """Constants of truncation PBT.

    Attributes:
        quorum_share: share of the pool whose outcomes must be known. The rule is that of ROMUL, so
            that the two differ only in their moves.
        truncation: share of the population that copies, and share that is copied.
        resample: probability that a copied hyperparameter is redrawn.
        down, up: factors of which one, chosen at random, multiplies a copied hyperparameter.
        latin_hypercube: whether to start from a Latin hypercube, as ROMUL does, instead of the
            independent draws of the authors.
    """

    name: ClassVar[str] = "truncation"

    quorum_share: float = 0.75
    truncation: float = 0.2
    resample: float = 0.25
    down: float = 0.8
    up: float = 1.2
    latin_hypercube: bool = False

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """Independent uniform draws, or a Latin hypercube."""
        if not self.latin_hypercube:
            return super().start(space, n_slots, rng)
        rows = latin_hypercube(n_slots, len(space), rng)
        return [Start("all", tuple(row)) for row in rows.tolist()]

    def quorum(self, n_pool: int) -> int:
        """A share of the pool, at least two slots."""
        return min(n_pool, max(MIN_POOL, share(self.quorum_share, n_pool)))

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Exploit: the worst slots copy the best. Explore: copies are perturbed or redrawn."""
        known = view.known
        order = sorted(known, key=lambda i: (known[i].loss, i))
        n = share(self.truncation, len(order)) if len(order) >= MIN_POOL else 0
        best = [i for i in order[:n] if not known[i].failed]
        leading = set(best)
        worst = {*order[len(order) - n :], *(i for i in due if known[i].failed)}
        moves = []
        for i in due:
            why: dict[str, Any] = {"known": len(order), "pool": len(view.pool)}
            if i not in worst or i in leading:
                moves.append(Move(i, i, known[i].vector, why={**why, "rule": "kept"}))
                continue
            rng = view.rng(i)
            j = best[int(rng.integers(len(best)))] if best else None
            copied = known[i if j is None else j].vector
            vector = tuple(
                perturb(parameter, position, rng, self.resample, (self.down, self.up))
                for parameter, position in zip(view.space, copied, strict=True)
            )
            moves.append(Move(i, j, vector, why={**why, "rule": "perturbed", "copied": j}))
        return moves


def perturb(
    parameter: Parameter,
    position: float,
    rng: Generator,
    resample: float,
    factors: tuple[float, float],
) -> float:
    """Move one coordinate: redraw it, or multiply its value by one of two factors.

    Instead of being multiplied, an ordered choice moves to the next one, and an unordered choice
    moves to a random other one with the probability `resample`.
    """
    if rng.random() < resample:
        return float(rng.random())
    if isinstance(parameter, BooleanParameter) or parameter.n_choices:
        n = parameter.n_choices
        step = int(rng.integers(1, n)) if rng.random() < resample else 0
        return ((cell(position, n) + step) % n + 0.5) / n
    return parameter.scaled(position, factors[int(rng.integers(2))])
