"""ROMUL: differential evolution of the hyperparameters of models in training.

What the paper fixes ("ROMUL: Scale Adaptative Population Based Training", section 2.2): the scheme
current-to-best/1 of Storn & Price (1997) on a population of M >= 4, whose step sizes adapt because
they are differences inside the population. The rest is this project's own, and marked so.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from romul_actors.optimizers.base import (
    Move,
    Optimizer,
    Start,
    View,
    latin_hypercube,
    reflect,
    share,
    step_around,
)
from romul_actors.optimizers.trend import Trend
from romul_actors.slot import Outcome, Slot
from romul_actors.space import Space, Vector

GREEDY = "greedy"
PATIENT = "patient"
TENTATIVE = "tentative"
MIN_POOL = 4
"""Smallest population that differential evolution is defined for (the paper, section 2.2)."""
MIN_TREND = 3
"""Losses from which on a learning curve is believed."""


@dataclass(frozen=True)
class Romul(Optimizer):
    """ROMUL's constants.

    Attributes:
        quorum_share: share of a pool whose outcomes must be known (source: this project).
        grace: for how many median trials an idle worker then waits for the rest; 0: not at all
            (source: this project).
        truncation: q, share of a pool that takes a checkpoint from the best ones, and share that
            it takes them from (truncation selection, Jaderberg et al. 2017).
        f1_max: F1 ~ U(0, f1_max), weight of the random difference (Storn & Price 1997).
        f2_max: F2 ~ U(0, f2_max), weight of the attraction to the best (the same).
        shared_factors: whether F1 and F2 are drawn once for all coordinates (source: this project).
        ageing: a base that is not replaced becomes easier to replace by so many ranks of the known
            ones at each decision (source: this project).
        crossover: CR, probability that a coordinate comes from the donor (the same).
        explorer_sigma: standard deviation of an explorer's step (source: this project).
        explorer_redraw: probability that an explorer draws a choice anew (source: this project).
        keep_best: whether the best share q goes on with its tested vector (source: this project).
        patient_from: smallest population with a patient tier, whose slots hold what they drew
            whatever happens (source: this project).
        patient_share: share of the slots that are patient there.
        tentative_share: in a smaller population, share of the slots that hold what they drew as
            long as they promise to overtake the others (source: this project).
        patience: share of the steps for which they hold it at most.
        review: share of the steps after which a tentative one must promise more than the leader.
        merge: share of the steps after which all slots are one pool.
    """

    name: ClassVar[str] = "romul"
    quorum_share: float = 0.75
    grace: float = 0.05
    truncation: float = 0.125
    f1_max: float = 1.8
    f2_max: float = 1.0
    shared_factors: bool = True
    ageing: float = 2.0
    crossover: float = 0.7
    explorer_sigma: float = 0.05
    explorer_redraw: float = 0.1
    keep_best: bool = True
    patient_from: int = 16
    patient_share: float = 1 / 3
    tentative_share: float = 0.25
    patience: float = 0.7
    review: float = 0.35
    merge: float = 0.85

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """A Latin hypercube in each tier; those that hold what they draw are the last ones."""
        large = n_slots >= self.patient_from
        holding, holding_share = (
            (PATIENT, self.patient_share) if large else (TENTATIVE, self.tentative_share)
        )
        n_holding = max(0, min(share(holding_share, n_slots), n_slots - MIN_POOL))
        starts: list[Start] = []
        for tier, n in ((GREEDY, n_slots - n_holding), (holding, n_holding)):
            starts += [
                Start(tier, tuple(row)) for row in latin_hypercube(n, len(space), rng).tolist()
            ]
        return starts

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """All slots, or the patient ones apart until late in the run; one that holds: itself."""
        if slot.step >= self.merge * steps:
            return range(len(slots))
        if slot.tier == PATIENT and slot.step < self.patience * steps:
            return [slot.index]
        patient = slot.tier == PATIENT
        return [peer.index for peer in slots if (peer.tier == PATIENT) is patient]

    def quorum(self, n_pool: int) -> int:
        """Share of the pool, and never fewer than differential evolution needs."""
        return min(n_pool, max(MIN_POOL, share(self.quorum_share, n_pool)))

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Select for all slots due, then mutate them, so that their order changes nothing."""
        trends = self._trends(view)
        holding = self._holding(view, trends)
        # Whoever holds is compared with nobody; but with its losses there are enough to select.
        n_selected = share(self.truncation, len(view.known) - len(holding))
        ranking = _Ranking.of(
            {i: outcome for i, outcome in view.known.items() if i not in holding},
            n_selected if len(view.known) >= MIN_POOL else 0,
        )
        best = [i for i in ranking.best if not view.known[i].failed]
        rngs = {i: view.rng(i) for i in due}
        selected = {}
        for i in due:
            if i in holding:
                continue
            # Whoever gives up what it held begins anew where the others are.
            gave_up = i in trends and _tentative(view.slots[i]) and i not in ranking.best
            copies = i in ranking.worst or view.known[i].failed or gave_up
            selected[i] = self._select(view, i, ranking, best if copies else [], rngs[i])
        bases = {i: base for i, (_, base, _, _) in selected.items()}

        moves = []
        for i in due:
            if i in holding:
                vector = view.known[i].vector
                why = {"rule": "held", **holding[i]}
                kept = {"base": list(vector), "trend": list(trends[i])}
                moves.append(Move(i, i, vector, kept, why))
                continue
            source, base, rho, why = selected[i]
            if self.keep_best and i in best:
                vector, rule = view.known[i].vector, {"rule": "kept"}
            elif len(view.pool) == 1 and source == i:
                vector, rule = view.known[i].vector, {"rule": "held"}
            elif i in ranking.worst[-2:]:
                vector, rule = self._explore(view.space, base, rngs[i])
            else:
                champion = ranking.order[0]
                champion = i if view.known[champion].failed else champion
                vector, rule = self._mutate(view, i, bases, champion, rngs[i])
            memory: dict[str, Any] = {"base": list(base), "rho": rho}
            if trends:
                memory["trend"] = list(trends[i if source is None else source])
            moves.append(Move(i, source, vector, memory, {**why, **rule}))
        return moves

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Join the greedy tier: a patient slot is worth its history, which a new one lacks."""
        _, move = super().join(view, slot)
        return GREEDY, move

    def spares(self, slot: Slot) -> bool:
        """Whether it holds what it drew: what it would show later, it shows not yet."""
        return slot.tier == PATIENT or _tentative(slot)

    def _trends(self, view: View) -> dict[int, Trend]:
        """Learning curves of the known lines, while slots hold on condition; else none."""
        if view.step >= self.patience * view.steps or all(
            slot.tier != TENTATIVE for slot in view.slots
        ):
            return {}
        trends = {}
        for i, outcome in view.known.items():
            trend = Trend.of(view.slots[i].memory.get("trend", ()))
            # One that was decided before the others has this loss in it; infinity fits no line.
            old = view.slots[i].step == view.step or not trend.weight
            if old and not outcome.failed:
                trend = trend.after(view.step + 1, outcome.loss)
            trends[i] = trend
        return trends

    def _holding(self, view: View, trends: Mapping[int, Trend]) -> dict[int, dict[str, Any]]:
        """Slots that hold on, and what they promise.

        Early, one holds as long as its curve leads below where the leader is now: whoever learns
        slowly for a better end looks bad for a long time. After the review, curves are long enough
        to be compared: it must promise a better end than the leader's own line does.
        """
        known = view.known
        tentative = [i for i in trends if _tentative(view.slots[i]) and not known[i].failed]
        others = [i for i in trends if not _tentative(view.slots[i]) and not known[i].failed]
        if not tentative or not others:
            return {}
        leader = min(others, key=lambda i: (known[i].loss, i))
        ends = {i: trends[i].at(view.steps) for i in (*tentative, leader)}
        reviewed = view.step + 1 >= self.review * view.steps
        bar = ends[leader] if reviewed else known[leader].loss
        young = view.step + 1 < MIN_TREND
        return {
            i: {"promises": ends[i], "bar": bar, "leader": leader}
            for i in tentative
            if young or -math.inf < ends[i] <= bar
        }

    def _select(
        self, view: View, i: int, ranking: "_Ranking", best: Sequence[int], rng: Generator
    ) -> tuple[int | None, tuple[float, ...], float, dict[str, Any]]:
        """Source, base, rho and reasons of slot `i`: hyperparameters and weights by two rules.

        `best`: the slots that it may copy; empty unless it is among the worst.
        """
        own, slot, rank, m = view.known[i], view.slots[i], ranking.rank(i), len(ranking.order)
        why: dict[str, Any] = {"rank": rank, "known": m, "pool": len(view.pool)}
        base, rho = _base(slot), float(slot.memory.get("rho", 1.0))
        if not own.failed and ("base" not in slot.memory or rank <= rho):
            base, rho = own.vector, rank
        else:
            # Ageing: one lucky batch cannot hold a base for ever.
            rho = min(1.0, rho + self.ageing / m)
        if not best:
            return (None if own.failed else i), base, rho, why
        j = best[int(rng.integers(len(best)))]
        return j, view.known[j].vector, ranking.rank(j), {**why, "copied": j}

    def _mutate(
        self,
        view: View,
        i: int,
        bases: Mapping[int, tuple[float, ...]],
        champion: int,
        rng: Generator,
    ) -> tuple[tuple[float, ...], dict[str, Any]]:
        """Mutate by current-to-best/1: b_i + F1 (b_a - b_b) + F2 (x_best - b_i).

        `bases`: those of the slots that are decided together; all others lie in their memory.
        """
        pool = view.pool if len(view.pool) >= MIN_POOL else range(len(view.slots))
        a, b = _two_others(pool, i, rng)
        # One F1 and one F2 for all coordinates: drawn for each, they would turn the step away from
        # the direction that the population's differences know.
        n_factors = 1 if self.shared_factors else len(view.space)
        f1, f2 = rng.random((2, n_factors)) * ((self.f1_max,), (self.f2_max,))
        here, from_a, from_b = (
            np.array(bases[j] if j in bases else _base(view.slots[j])) for j in (i, a, b)
        )
        towards = np.array(view.known[champion].vector)
        donor = here + f1 * (from_a - from_b) + f2 * (towards - here)
        for c in view.space.choice_axes:
            n = view.space.n_choices[c]
            weight = float(f2[c % n_factors])
            donor[c] = _choose(n, here[c], towards[c], from_a[c], from_b[c], weight, rng)
        vector, crossed = self._cross(here, donor, rng)
        why = {
            "rule": "mutated",
            "a": a,
            "b": b,
            "best": champion,
            "F1": f1.tolist() if n_factors > 1 else float(f1[0]),
            "F2": f2.tolist() if n_factors > 1 else float(f2[0]),
            **crossed,
        }
        return vector, why

    def _explore(
        self, space: Space, base: tuple[float, ...], rng: Generator
    ) -> tuple[tuple[float, ...], dict[str, Any]]:
        """Take a small step in all directions: what keeps a small population from collapsing."""
        here = np.array(base)
        donor = step_around(space, here, self.explorer_sigma, self.explorer_redraw, rng)
        vector, crossed = self._cross(here, donor, rng)
        return vector, {"rule": "explored", **crossed}

    def _cross(
        self, base: Vector, donor: Vector, rng: Generator
    ) -> tuple[tuple[float, ...], dict[str, Any]]:
        """Cross binomially: each coordinate from the donor with probability CR, one at least.

        Returns:
            The vector, and reasons: the base, whence each coordinate, and which were folded back.
        """
        mask = rng.random(len(base)) < self.crossover
        mask[rng.integers(len(base))] = True
        crossed = np.where(mask, donor, base)
        vector = reflect(crossed)
        why = {
            "base": base.tolist(),
            "crossover": mask.astype(int).tolist(),
            "reflected": np.flatnonzero(vector != crossed).tolist(),
        }
        return tuple(vector.tolist()), why


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Known losses of one pool at one step.

    Attributes:
        order: slot indices, best first.
        losses: their losses.
        best: the best n of them; empty where there are too few to select from.
        worst: as many of the worst, the very worst last.
    """

    order: Sequence[int]
    losses: Sequence[float]
    best: Sequence[int]
    worst: Sequence[int]

    @classmethod
    def of(cls, known: Mapping[int, Outcome], n: int) -> "_Ranking":
        pairs = sorted((outcome.loss, i) for i, outcome in known.items())
        order = [i for _, i in pairs]
        return cls(order, [loss for loss, _ in pairs], order[:n], order[len(order) - n :])

    def rank(self, i: int) -> float:
        """Share of the known losses that are lower than that of slot `i`."""
        loss = self.losses[self.order.index(i)]
        return bisect_left(self.losses, loss) / len(self.losses)


def _tentative(slot: Slot) -> bool:
    """Whether a slot holds what it drew as long as it promises something.

    It was never ranked: that is what it is known by.
    """
    return slot.tier == TENTATIVE and "rho" not in slot.memory


def _two_others(pool: Sequence[int], i: int, rng: Generator) -> tuple[int, int]:
    """Two distinct members of `pool`, neither of them `i`."""
    own, n = pool.index(i), len(pool)
    first, second = int(rng.integers(n - 1)), int(rng.integers(n - 2))
    second += second >= first
    return pool[first + (first >= own)], pool[second + (second >= own)]


def _base(slot: Slot) -> tuple[float, ...]:
    """A slot's base, or before its first result the vector that it tries."""
    return tuple(slot.memory["base"]) if "base" in slot.memory else slot.vector


def _choose(
    n: int, here: float, towards: float, from_a: float, from_b: float, f2: float, rng: Generator
) -> float:
    """Donor's place on an axis of `n` choices, which are never interpolated (source: this project).

    The best's choice with probability F2 / (1 + F2), as F2 weighs it against the base; else a's
    where a and b differ, as their difference would move a number; else the base's own.
    """
    if rng.random() < f2 / (1.0 + f2):
        return towards
    return from_a if int(from_a * n) != int(from_b * n) else here
