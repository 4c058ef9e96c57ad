"""How a population follows its workers: when to grow, to park, to run a second copy.

Pure policy: numbers in, a request out; `membership.py` carries it out. The population does not
depend on the workers otherwise: any worker takes any slot's trial, and more slots than workers is
the normal case (source: this project).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from romul_actors.core.slot import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """The policy's constants.

    Attributes:
        min_slots: parking never leaves fewer.
        max_slots: growing never makes more.
        per_worker: slots allowed for each living worker; above that the worst are parked.
            None: slots are never parked.
        second_copy: multiple of the median trial after which an idle worker gets a second copy
            of a trial that is still out; 0: never.
    """

    min_slots: int = 4
    max_slots: int = 0
    per_worker: float | None = None
    second_copy: float = 3.0

    def bound(self, workers: int, n_slots: int) -> int:
        """How many slots may be active with so many living workers.

        Args:
            workers: living workers.
            n_slots: the population at its start; what `max_slots` is if it was left out.
        """
        most = max(self.max_slots, n_slots)
        if self.per_worker is None:
            return most
        return min(most, max(self.min_slots, math.ceil(self.per_worker * workers)))


def median_trial_s(slots: Sequence[Slot]) -> float:
    """Median duration of the slots' latest trials, in seconds; 0 before the first."""
    seconds = [slot.seconds for slot in slots if slot.seconds > 0]
    return median(seconds) if seconds else 0.0


def round_s(slots: Sequence[Slot], workers: int) -> float:
    """Expected time in which every active slot ends one trial, in seconds."""
    active = sum(slot.active for slot in slots)
    return median_trial_s(slots) * math.ceil(active / max(1, workers))


def expected_steps(slots: Sequence[Slot], workers: int, left_s: float, steps: int) -> int:
    """How many steps a slot is expected to come to within `left_s` seconds, of `steps` at most."""
    active = sorted(slot.step for slot in slots if slot.active)
    one_round_s = round_s(slots, workers)
    if not active or one_round_s <= 0:
        return steps
    reached = active[len(active) // 2]
    return max(1, min(steps, reached + int(max(0.0, left_s) / one_round_s)))


def overdue(slots: Sequence[Slot], at_ms: int, limit_ms: float) -> list[Slot]:
    """Slots whose one live attempt is out for longer than `limit_ms`, oldest first."""
    late = [
        slot
        for slot in slots
        if slot.status == "queued"
        and len(slot.live_attempts) == 1
        and at_ms - slot.since_ms > limit_ms
    ]
    return sorted(late, key=lambda slot: slot.since_ms)


def to_park(slots: Sequence[Slot], excess: int) -> list[Slot]:
    """The `excess` active slots that are missed least: worst loss first.

    A slot that has not ended a trial yet is not judged, and not parked; nor is a pinned one.
    """
    judged = [slot for slot in slots if slot.active and slot.outcomes and not slot.pinned]
    judged.sort(key=lambda slot: -slot.outcomes[max(slot.outcomes)].loss)
    return judged[:excess]
