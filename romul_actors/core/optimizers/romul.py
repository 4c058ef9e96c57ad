"""ROMUL: differential evolution of the hyperparameters of models in training.

From the paper ("ROMUL: Scale Adaptative Population Based Training", section 2.2): the scheme
current-to-best/1 of Storn & Price (1997) on a population of M >= 4, whose step sizes adapt because
they are differences within the population. The rest is this project's own. Numbers in parentheses
in the comments refer to the equations in docs/algorithm.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from romul_actors.core.optimizers.base import (
    Move,
    Optimizer,
    Start,
    View,
    latin_hypercube,
    share,
)
from romul_actors.core.slot import Slot
from romul_actors.core.space import Space, Vector

MIN_POOL = 4
"""Smallest population that differential evolution is defined for (the paper, section 2.2)."""
CHOICE_OF_BEST, CHOICE_OF_A = 0.3, 0.2
"""Probabilities that a mutation takes the choice of the best slot, and that of slot a."""
HALF_WAY = 0.5
"""If a choice would move farther than this towards a new draw, the draw replaces it."""


@dataclass(frozen=True)
class Romul(Optimizer):
    """Constants of ROMUL. docs/results.md shows the effect of some of them.

    Attributes:
        quorum_share: share of the pool whose outcomes must be known.
        grace: how long idle workers then wait for the other outcomes, as a multiple of the median
            trial; 0 means not at all.
        generations: maximal number of times that a run replaces slots. In a run with more steps,
            only the last step of each generation does; at other steps a slot simply continues,
            unless it has failed.
        donors: share of the known slots, the best ones, that are held and may be copied.
        rising: whether the share of the known slots that copy, the worst ones, changes linearly
            during the run: from `donors` before the first step to 1 - `donors` at the last one.
            Otherwise it stays at `donors`.
        factor: upper bound of the random weights F1 and F2 ~ U(0, factor) of the difference and of
            the attraction to the best. 0 turns current-to-best/1 off.
        power: each coordinate moves a fraction w^power of the way to a uniform draw, w ~ U(0, 1).
        guarded: share of the steps during which no move lowers a guarded hyperparameter
            (`core/guard.py`).
        guarded_generations: maximal number of generations with the guard; the moves at the end of
            the last of them are already free.
    """

    name: ClassVar[str] = "romul"
    gone: ClassVar[Mapping[str, str]] = {
        "replaced_first": "the share of slots that copy begins as that of `donors`",
        "replaced_last": "the share that copies rises to all others; `rising = false` keeps it",
        "mutation": "every copied vector moves by current-to-best/1; `factor = 0`: none does",
        "sigma": "noise and draws are one now: `power`",
        "redraw": "noise and draws are one now: `power`",
        "raised": "what is guarded is never below its base, and otherwise free",
    }
    quorum_share: float = 0.75
    grace: float = 0.05
    generations: int = 60
    donors: float = 0.25
    rising: bool = True
    factor: float = 1.0
    power: float = 4.0
    guarded: float = 0.7
    guarded_generations: int = 21

    def start(self, space: Space, n_slots: int, rng: Generator) -> list[Start]:
        """A Latin hypercube."""
        rows = latin_hypercube(n_slots, len(space), rng)
        return [Start("all", tuple(row)) for row in rows.tolist()]

    def _ends(self, step: int, steps: int) -> bool:
        """Whether a generation ends at `step`."""
        return self._ended(step + 1, steps) > self._ended(step, steps)

    def _ended(self, n_steps: int, steps: int) -> int:
        """Number of generations that have ended after `n_steps` steps, spread evenly."""
        return n_steps * min(self.generations, steps) // steps

    def _guards(self, step: int, steps: int) -> bool:
        """Whether the guard holds for the moves after `step`."""
        few = self._ended(step + 1, steps) < self.guarded_generations
        return few and (step + 1) / steps < self.guarded

    def pool(self, slots: Sequence[Slot], slot: Slot, steps: int) -> Sequence[int]:
        """All slots; but within a generation, a slot that has not failed is decided alone."""
        alone = not (self._ends(slot.step, steps) or slot.outcomes[slot.step].failed)
        return [slot.index] if alone else range(len(slots))

    def quorum(self, n_pool: int) -> int:
        """A share of the pool, at least the four slots that differential evolution needs."""
        return min(n_pool, max(MIN_POOL, share(self.quorum_share, n_pool)))

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Select for all slots first, then move vectors, so that the order has no effect."""
        known, m = view.known, len(view.known)
        # The expected number of steps may be less than the number already done.
        t = min(1.0, (view.step + 1) / view.steps)
        order = sorted(known, key=lambda i: (known[i].loss, i))  # (1)
        rank = {i: n for n, i in enumerate(order)}
        n_best = share(self.donors, m) if m >= MIN_POOL else 0
        best = [i for i in order[:n_best] if not known[i].failed]
        last = 1.0 - self.donors if self.rising else self.donors
        replaced = self.donors + (last - self.donors) * t  # (2)
        n_worst = round(replaced * m) if best and self._ends(view.step, view.steps) else 0
        leading = set(best)
        worst = {*order[m - n_worst :], *(i for i in due if known[i].failed)} - leading

        guarded = self._guards(view.step, view.steps)
        moving = [i for i in due if i in worst]
        rngs = {i: view.rng(i) for i in moving}
        sources = {i: best[int(rngs[i].integers(len(best)))] for i in moving} if best else {}  # (3)
        place = {i: n for n, i in enumerate(view.pool)} if moving else {}

        def vector_of(i: int) -> Vector:
            return np.array((known[i] if i in known else view.slots[i]).vector)

        # Each move sets the tier, because populations stored by older versions have two.
        moves = []
        for i in due:
            why: dict[str, Any] = {"rank": rank[i] / m, "known": m, "pool": len(view.pool)}
            if i not in worst:
                why["rule"] = "kept" if i in leading else "held"
                moves.append(Move(i, i, known[i].vector, why=why, tier="all"))
                continue
            if i in sources:
                why["copied"] = sources[i]
            vector, how = self._move(
                view, sources.get(i, i), vector_of, place[i], order[0], guarded, rngs[i]
            )
            moves.append(Move(i, sources.get(i), vector, why={**why, **how}, tier="all"))
        return moves

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """A slot that joins is an additional copy, (3) to (7); slots a and b are not its donor."""
        known, rng = view.known, view.rng(slot)
        order = sorted((i for i in known if not known[i].failed), key=lambda i: (known[i].loss, i))
        source = order[int(rng.integers(share(self.donors, len(order))))]
        vector, how = self._move(
            view,
            source,
            lambda i: np.array(known[i].vector),
            list(view.pool).index(source),
            order[0],
            self._guards(view.step, view.steps),
            rng,
        )
        why = {**how, "rule": "joined", "copied": source, "known": len(order)}
        return "all", Move(slot, source, vector, why=why)

    def _move(
        self,
        view: View,
        source: int,
        vector_of: Callable[[int], Vector],
        place: int,
        first: int,
        guarded: bool,  # noqa: FBT001
        rng: Generator,
    ) -> tuple[tuple[float, ...], dict[str, Any]]:
        """The new vector of a slot, and the reasons for the history.

        Args:
            view: the information to decide on.
            source: index of the donor, whose vector is the base.
            vector_of: function from a slot's index to the vector that the slot has tried last.
                These are the vectors before any copying in this decision: differences between
                copies would be zero, or all along one line.
            place: place of the slot in the pool.
            first: index of the best slot.
            guarded: whether the guard holds.
            rng: the generator of the decision.
        """
        space, base = view.space, vector_of(source)
        moved, choices = base, list(space.choice_axes)
        mutated = self.factor > 0.0 and len(view.pool) >= MIN_POOL
        why: dict[str, Any] = {"rule": "mutated" if mutated else "redrawn", "base": base.tolist()}
        if mutated:  # (4)
            a, b = _two_others(view.pool, place, rng)
            f1, f2 = (self.factor * rng.random(2)).tolist()
            best = np.array(view.known[first].vector)
            from_a, from_b = vector_of(a), vector_of(b)
            moved = base + f1 * (from_a - from_b) + f2 * (best - base)
            for c in choices:
                draw = rng.random()
                to_a = from_a if draw < CHOICE_OF_BEST + CHOICE_OF_A else base
                moved[c] = (best if draw < CHOICE_OF_BEST else to_a)[c]
            why |= {"a": a, "b": b, "best": first, "F1": f1, "F2": f2}
        part, drawn = rng.random(len(space)) ** self.power, rng.random(len(space))
        anew = part > HALF_WAY
        part[choices] = anew[choices]
        crossed = moved + part * (drawn - moved)  # (5)
        if guarded:  # (6)
            lower = np.array(space.guarded) & (crossed < base)
            crossed = np.where(lower, base, crossed)
            why["guarded"] = np.flatnonzero(lower).tolist()
        vector = np.clip(crossed, 0.0, 1.0)  # (7)
        why["drawn"] = anew.astype(int).tolist()
        why["outside"] = np.flatnonzero(vector != crossed).tolist()
        return tuple(vector.tolist()), why


def _two_others(pool: Sequence[int], own: int, rng: Generator) -> tuple[int, int]:
    """Two distinct members of `pool` other than the one at place `own`."""
    n = len(pool)
    first, second = int(rng.integers(n - 1)), int(rng.integers(n - 2))
    second += second >= first
    return pool[first + (first >= own)], pool[second + (second >= own)]
