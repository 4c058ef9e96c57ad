"""The policy by which a population follows the number of workers: grow, park, run second copies.

This module only computes numbers; `membership.py` carries them out. Otherwise the population is
independent of the workers: any worker takes any slot's trial, and usually there are more slots than
workers (source: this project).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from romul_actors.core.slot import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """Constants of the policy.

    Attributes:
        min_slots: smallest number of active slots that parking leaves.
        max_slots: largest number of slots that growing reaches.
        per_worker: number of active slots allowed for each living worker. Above it, the worst slots
            are parked. None means that slots are never parked.
        second_copy: multiple of the median trial's duration after which an idle worker gets a
            second copy of a trial that has not ended; 0 means never.
    """

    min_slots: int = 4
    max_slots: int = 0
    per_worker: float | None = None
    second_copy: float = 3.0

    def bound(self, workers: int, n_slots: int) -> int:
        """The number of slots that may be active.

        Args:
            workers: number of living workers.
            n_slots: initial size of the population, and a lower limit for `max_slots`.
        """
        most = max(self.max_slots, n_slots)
        if self.per_worker is None:
            return most
        return min(most, max(self.min_slots, math.ceil(self.per_worker * workers)))


def median_trial_s(slots: Sequence[Slot]) -> float:
    """Median duration of the slots' latest trials, in seconds; 0 before the first has ended."""
    seconds = [slot.seconds for slot in slots if slot.seconds > 0]
    return median(seconds) if seconds else 0.0


def round_s(slots: Sequence[Slot], workers: int) -> float:
    """Expected time in which every active slot ends one trial, in seconds."""
    active = sum(slot.active for slot in slots)
    return median_trial_s(slots) * math.ceil(active / max(1, workers))


def expected_steps(slots: Sequence[Slot], workers: int, left_s: float, steps: int) -> int:
    """Number of steps that a slot is expected to reach in `left_s` seconds, at most `steps`."""
    active = sorted(slot.step for slot in slots if slot.active)
    one_round_s = round_s(slots, workers)
    if not active or one_round_s <= 0:
        return steps
    reached = active[len(active) // 2]
    return max(1, min(steps, reached + int(max(0.0, left_s) / one_round_s)))


def overdue(slots: Sequence[Slot], at_ms: int, limit_ms: float) -> list[Slot]:
    """Slots with a single live attempt that is older than `limit_ms`, oldest first."""
    late = [
        slot
        for slot in slots
        if slot.status == "queued"
        and len(slot.live_attempts) == 1
        and at_ms - slot.since_ms > limit_ms
    ]
    return sorted(late, key=lambda slot: slot.since_ms)


def to_park(slots: Sequence[Slot], excess: int) -> list[Slot]:
    """Up to `excess` active slots to park, worst loss first.

    Slots that are pinned or have not ended a trial yet are never parked.
    """
    judged = [slot for slot in slots if slot.active and slot.outcomes and not slot.pinned]
    judged.sort(key=lambda slot: -slot.outcomes[max(slot.outcomes)].loss)
    return judged[:excess]
