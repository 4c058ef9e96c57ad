"""ROMUL: differential evolution of the hyperparameters of models in training.

What the paper fixes ("ROMUL: Scale Adaptative Population Based Training", section 2.2): the scheme
current-to-best/1 of Storn & Price (1997) on a population of M >= 4, whose step sizes adapt because
they are differences inside the population. The rest is this project's own, and marked so.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

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
from romul_actors.slot import Outcome, Slot
from romul_actors.space import Space, Vector

GREEDY = "greedy"
PATIENT = "patient"
MIN_POOL = 4
"""Smallest population that differential evolution is defined for (the paper, section 2.2)."""
LEARNT_NOTHING = 0.75
"""Quantile of the first step's losses from which progress counts: diverged ones lie above it."""
MIN_LOSSES = 3
"""Losses from which on a patient slot is judged: the first two tell only how it starts."""

GAINED = 0.75
"""Quantile of the patient slots' gains that counts as what can be gained."""


@dataclass(frozen=True)
class Romul(Optimizer):
    """ROMUL's constants.

    Attributes:
        quorum_share: share of a pool whose outcomes must be known (source: this project).
        grace: for how many median trials an idle worker then waits for the rest; 0: not at all
            (source: this project).
        truncation: q, share of a pool that takes checkpoint and hyperparameters from the best ones,
            and share that it takes them from (truncation selection, Jaderberg et al. 2017).
        copying: share of a pool, the worst of it, that takes a checkpoint from the best ones; but
            for the share q it keeps its own base (source: this project).
        f1_max: F1 ~ U(0, f1_max), weight of the random difference (Storn & Price 1997).
        f2_max: F2 ~ U(0, f2_max), weight of the attraction to the best (the same).
        shared_factors: whether F1 and F2 are drawn once for all coordinates (source: this project).
        ageing: a base that is not replaced becomes easier to replace by so many ranks of the known
            ones at each decision (source: this project).
        crossover: CR, probability that a coordinate comes from the donor (the same).
        probe: probability that a slot draws one hyperparameter anew in place of a mutation, where
            there are no more slots than hyperparameters; with twice as many slots half of it, and
            so on, so that each hyperparameter is probed as often (source: this project).
        explorer_sigma: standard deviation of an explorer's step (source: this project).
        explorer_redraw: probability that an explorer draws a choice anew (source: this project).
        keep_best: whether the best share q goes on with its tested vector (source: this project).
        patient_share: share of the slots that are patient, but for four: they hold what they drew
            as long as they keep pace (source: this project).
        patience: share of the steps after which they decide among themselves.
        held_to_end: share of those that hold until then, but for four, or for half of those that
            began so, that hold on as long as they gain beside those that search (source: this
            project).
        late_pace: share of the others' gain that they must make.
        merge: share of the steps after which all slots are one pool.
    """

    name: ClassVar[str] = "romul"
    quorum_share: float = 0.75
    grace: float = 0.05
    truncation: float = 0.125
    copying: float = 0.25
    f1_max: float = 1.8
    f2_max: float = 1.0
    shared_factors: bool = True
    ageing: float = 2.0
    crossover: float = 0.7
    probe: float = 0.24
    explorer_sigma: float = 0.05
    explorer_redraw: float = 0.1
    keep_best: bool = True
    patient_share: float = 0.5
    patience: float = 0.6
    held_to_end: float = 0.5
    late_pace: float = 0.33
    merge: float = 0.85

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """A Latin hypercube in each tier, the patient slots last."""
        n_patient = self._n_patient(n_slots)
        starts: list[Start] = []
        for tier, n in ((GREEDY, n_slots - n_patient), (PATIENT, n_patient)):
            starts += [
                Start(tier, tuple(row)) for row in latin_hypercube(n, len(space), rng).tolist()
            ]
        return starts

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """All slots, but for a while the patient and the others apart, if there are enough."""
        everybody = range(len(slots))
        if not self._apart(slot.step, steps):
            return everybody
        patient, others = _by_tier(everybody, slots)
        # A few look at what the others have found: it must not depend on who is ahead of whom.
        if len(patient) < MIN_POOL:
            return everybody
        return patient if slot.tier == PATIENT else others

    def quorum(self, n_pool: int) -> int:
        """Share of the pool, and never fewer than differential evolution needs."""
        return min(n_pool, max(MIN_POOL, share(self.quorum_share, n_pool)))

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Select for all slots due, then mutate them, so that their order changes nothing."""
        if not self._apart(view.step, view.steps):
            return self._decide(view, due)
        moves: dict[int, Move] = {}
        for tier in _by_tier(view.pool, view.slots):
            members = {i: view.known[i] for i in tier if i in view.known}
            part = replace(view, pool=tier, known=members)
            moves |= {
                move.slot: move for move in self._decide(part, [i for i in due if i in members])
            }
        return [moves[i] for i in due]

    def _n_patient(self, n_slots: int) -> int:
        """How many of `n_slots` begin as patient: enough are left that search."""
        return _share_but_for(MIN_POOL, self.patient_share, n_slots)

    def _apart(self, step: int, steps: int) -> bool:
        """Whether the patient that are left are compared with each other only."""
        return self.patience * steps <= step < self.merge * steps

    def _decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Moves of slots that are compared with each other."""
        holding = self._holding(view)
        ranking = self._ranking(view, holding)
        best = [i for i in ranking.best if not view.known[i].failed]
        rngs = {i: view.rng(i) for i in due}
        selected = {
            i: self._select(view, i, ranking, best, rngs[i]) for i in due if i not in holding
        }
        bases = {i: base for i, (_, base, _, _) in selected.items()}
        probe = self.probe * min(1.0, sum(view.space.mutable) / len(view.slots))
        late = view.step >= self.patience * view.steps
        others = sorted(set(range(len(view.slots))) - set(view.pool))
        few = _patient_alone(view) and len(others) > 0 and len(view.pool) < MIN_POOL

        moves = []
        for i in due:
            slot, tested = view.slots[i], view.known[i].vector
            if i in holding:
                memory = {"base": list(tested), **holding[i].memory}
                moves.append(Move(i, i, tested, memory, {"rule": "held", **holding[i].why}))
                continue
            source, base, rho, why = selected[i]
            if self.keep_best and i in best:
                vector, rule = tested, {"rule": "kept"}
            elif i in ranking.worst[-2:] and not few:
                vector, rule = self._explore(view.space, base, rngs[i])
            elif rngs[i].random() < probe:
                vector, rule = self._probe(view.space, base, rngs[i])
            else:
                champion = ranking.order[0]
                towards = view.known[champion].vector
                if few:
                    # A few that held alike differ too little; the others have searched meanwhile.
                    champion = others[int(rngs[i].integers(len(others)))]
                    towards = _base(view.slots[champion])
                elif view.known[champion].failed:
                    champion, towards = i, tested
                vector, rule = self._mutate(view, i, bases, champion, towards, rngs[i])
            memory = {"base": list(base), "rho": rho}
            if late and source == i:
                memory |= _gaining(slot, view.known[i].loss)
            tier = slot.tier if late else GREEDY
            moves.append(Move(i, source, vector, memory, {**why, **rule}, tier=tier))
        return moves

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Join the greedy tier: a patient slot is worth its history, which a new one lacks."""
        _, move = super().join(view, slot)
        return GREEDY, move

    def spares(self, slot: Slot) -> bool:
        """Whether it holds what it drew: what it would show later, it shows not yet."""
        return slot.tier == PATIENT

    def _holding(self, view: View) -> dict[int, "_Held"]:
        """Patient slots that hold on, and why.

        Early in a run a slot may lag behind for a better end, but not by any distance: it must have
        made a share of the leader's progress, the share of the steps that have passed. Progress
        counts from where the worst quarter of the first step's losses begins, and only its ratio
        matters, so the losses' scale and origin do not.
        """
        losses = {i: outcome.loss for i, outcome in view.known.items() if not outcome.failed}
        if not losses:
            return {}
        if view.step >= self.patience * view.steps:
            patient = {i: loss for i, loss in losses.items() if view.slots[i].tier == PATIENT}
            return self._holding_late(view, patient)
        leader = min(losses, key=lambda i: (losses[i], i))
        passed = (view.step + 1) / view.steps
        first = float(np.quantile(list(losses.values()), LEARNT_NOTHING))
        holding = {}
        for i, loss in losses.items():
            if view.slots[i].tier != PATIENT:
                continue
            start = float(view.slots[i].memory.get("start", first))
            bar = start - passed * (start - losses[leader])
            if view.step + 1 < MIN_LOSSES:
                holding[i] = _Held({"start": start}, {})
            elif loss <= bar:
                holding[i] = _Held({"start": start}, {"bar": bar, "leader": leader})
        return holding

    def _holding_late(self, view: View, losses: Mapping[int, float]) -> dict[int, "_Held"]:
        """Patient slots that hold on while the other patient ones begin to search, and why.

        Where it is time for other hyperparameters, those that search soon gain much more than those
        that hold. Where it is not, whoever goes on as it began comes to the better end. Gains count
        from where the search began, and only their ratio matters.

        Args:
            view: what is known.
            losses: of the patient slots, none of them failed.
        """
        # The more have given up, the less speaks for holding.
        n_searching = min(MIN_POOL, self._n_patient(len(view.slots)) // 2)
        n = _share_but_for(n_searching, self.held_to_end, len(losses))
        best = sorted(losses, key=lambda i: (losses[i], i))[:n]
        memories = {i: view.slots[i].memory for i in losses}
        gains = [m["since"] - losses[i] for i, m in memories.items() if "since" in m]
        # Not the highest, which would be that of the luckiest.
        gain = float(np.quantile(gains, GAINED)) if gains else 0.0
        holding = {}
        for i, memory in memories.items():
            if "start" in memory and i in best:
                holding[i] = _Held({"since": losses[i]}, {})
            elif "since" in memory and "rho" not in memory:
                bar = memory["since"] - self.late_pace * gain
                if losses[i] <= bar:
                    holding[i] = _Held({"since": memory["since"]}, {"bar": bar})
        return holding

    def _ranking(self, view: View, holding: Mapping[int, "_Held"]) -> "_Ranking":
        """Ranking of those that do not hold, and of those that are better than all of these.

        With the others' losses there are enough to select.
        """
        ranked = {i: outcome for i, outcome in view.known.items() if i not in holding}
        n = share(self.truncation, len(ranked))
        if ranked:
            # Whoever holds what makes it the best is worth a copy, like any other.
            best = min(outcome.loss for outcome in ranked.values())
            ranked |= {i: view.known[i] for i in holding if view.known[i].loss < best}
        # Patient slots that decide among themselves may be few, and have waited long enough. Who is
        # ahead of them does not tell yet who comes to the better end: only the worst copy.
        alone = _patient_alone(view)
        n_needed, behind = (2, 1.0) if alone else (MIN_POOL, 1.0 - self.copying)
        return _Ranking.of(ranked, n if len(view.known) >= n_needed else 0, behind)

    def _select(
        self, view: View, i: int, ranking: "_Ranking", best: Sequence[int], rng: Generator
    ) -> tuple[int | None, tuple[float, ...], float, dict[str, Any]]:
        """Source, base, rho and reasons of slot `i`: hyperparameters and weights by two rules.

        `best`: the slots that it may copy.
        """
        own, slot, rank, m = view.known[i], view.slots[i], ranking.rank(i), len(ranking.order)
        why: dict[str, Any] = {"rank": rank, "known": m, "pool": len(view.pool)}
        base, rho = _base(slot), float(slot.memory.get("rho", 1.0))
        if not own.failed and ("base" not in slot.memory or rank <= rho):
            base, rho = own.vector, rank
        else:
            # Ageing: one lucky batch cannot hold a base for ever.
            rho = min(1.0, rho + self.ageing / m)
        worst = i in ranking.worst or own.failed
        gave_up = slot.tier == PATIENT and view.step < self.patience * view.steps
        behind = rank >= ranking.behind
        if not best or not (worst or ((gave_up or behind) and i not in ranking.best)):
            return (None if own.failed else i), base, rho, why
        j = best[int(rng.integers(len(best)))]
        why["copied"] = j
        if worst:
            base, rho = view.known[j].vector, ranking.rank(j)
        else:
            # They cost no differences between hyperparameters, which mutation lives on, and whoever
            # goes on from the same ones is compared by its vector.
            why["hyperparameters_of"] = i
        return j, base, rho, why

    def _mutate(
        self,
        view: View,
        i: int,
        bases: Mapping[int, tuple[float, ...]],
        champion: int,
        towards: tuple[float, ...],
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
        attractor = np.array(towards)
        donor = here + f1 * (from_a - from_b) + f2 * (attractor - here)
        for c in view.space.choice_axes:
            n = view.space.n_choices[c]
            weight = float(f2[c % n_factors])
            donor[c] = _choose(n, here[c], attractor[c], from_a[c], from_b[c], weight, rng)
        vector, crossed = self._cross(here, donor, rng, attractor)
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

    def _probe(
        self, space: Space, base: tuple[float, ...], rng: Generator
    ) -> tuple[tuple[float, ...], dict[str, Any]]:
        """Draw one coordinate anew from all of its range, and leave the others.

        A hyperparameter that matters late only comes early from whoever leads for other reasons;
        then all slots have the same value, and no difference of theirs leads away from it.
        """
        mask = np.arange(len(base)) == rng.choice(np.flatnonzero(space.mutable))
        vector = np.where(mask, rng.random(), base)
        return tuple(vector.tolist()), {"rule": "probed", **_whence(base, mask, ())}

    def _cross(
        self, base: Vector, donor: Vector, rng: Generator, best: Vector | None = None
    ) -> tuple[tuple[float, ...], dict[str, Any]]:
        """Cross binomially: each coordinate from the donor with probability CR, one at least.

        What is out of bounds is folded back, but stops at the bound where that would lead farther
        from it than `best` lies.

        Returns:
            The vector, and reasons: the base, whence each coordinate, and which were out of bounds.
        """
        mask = rng.random(len(base)) < self.crossover
        mask[rng.integers(len(base))] = True
        crossed = np.where(mask, donor, base)
        vector = reflect(crossed)
        outside = vector != crossed
        if best is not None:
            # The best may lie at a bound: folding would lead away from it for ever.
            bound = np.where(crossed > 1.0, 1.0, 0.0)
            farther = np.abs(vector - bound) > np.abs(best - bound)
            vector = np.where(outside & farther, bound, vector)
        return tuple(vector.tolist()), _whence(
            base.tolist(), mask, np.flatnonzero(outside).tolist()
        )


class _Held(NamedTuple):
    """Why a patient slot holds on, and what it must remember: the loss it counts from."""

    memory: Mapping[str, float]
    why: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Known losses of one pool at one step.

    Attributes:
        order: slot indices, best first.
        losses: their losses.
        best: the best n of them; empty where there are too few to select from.
        worst: as many of the worst, the very worst last.
        behind: rank from which on a slot takes weights; 1.0, which none has: only the worst do.
    """

    order: Sequence[int]
    losses: Sequence[float]
    best: Sequence[int]
    worst: Sequence[int]
    behind: float

    @classmethod
    def of(cls, known: Mapping[int, Outcome], n: int, behind: float) -> "_Ranking":
        pairs = sorted((outcome.loss, i) for i, outcome in known.items())
        order = [i for _, i in pairs]
        losses = [loss for loss, _ in pairs]
        return cls(order, losses, order[:n], order[len(order) - n :], behind)

    def rank(self, i: int) -> float:
        """Share of the known losses that are lower than that of slot `i`."""
        loss = self.losses[self.order.index(i)]
        return bisect_left(self.losses, loss) / len(self.losses)


def _share_but_for(n_left: int, fraction: float, n: int) -> int:
    """Size of a fraction of `n` slots that leaves `n_left` of them at least."""
    return max(0, min(share(fraction, n), n - n_left))


def _whence(
    base: Sequence[float], mask: NDArray[np.bool_], outside: Sequence[int]
) -> dict[str, Any]:
    """Reasons of a vector: its base, which coordinates are new, and which were out of bounds."""
    return {
        "base": list(base),
        "crossover": mask.astype(int).tolist(),
        "outside": list(outside),
    }


def _gaining(slot: Slot, loss: float) -> dict[str, float]:
    """The loss from which a patient slot's own training gains, once the pool has begun to search.

    Those that hold on are measured by it.
    """
    if "since" in slot.memory:
        return {"since": slot.memory["since"]}
    return {"since": loss} if "start" in slot.memory else {}


def _patient_alone(view: View) -> bool:
    """Whether the pool consists of patient slots that decide among themselves."""
    return all(view.slots[i].tier == PATIENT for i in view.pool)


def _by_tier(indices: Sequence[int], slots: Sequence[Slot]) -> tuple[list[int], list[int]]:
    """Those of `indices` that are patient still, and the others."""
    patient = [i for i in indices if slots[i].tier == PATIENT]
    return patient, [i for i in indices if slots[i].tier != PATIENT]


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
