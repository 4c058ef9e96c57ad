"""What changes on the way from one population to the next.

A `Transition` begins as the population stands when an event arrives. The functions of `dispatch`,
`quorum`, `reports` and `membership` change it; `decision()` freezes what came out. It keeps the
books (slots, counts, history) and knows no rule and no event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from romul_actors.core.elasticity import median_trial_s
from romul_actors.core.events import TrialMessage
from romul_actors.core.history import Line, TimePassed
from romul_actors.core.population import Best, Counts, Decision, Population, PopulationStatus
from romul_actors.core.settings import Settings
from romul_actors.core.slot import Slot


@dataclass(slots=True)
class Transition:
    """A population while one event changes it.

    Attributes:
        before: the population as it was.
        at_ms: when the event arrived, in milliseconds since the epoch.
        slots: as they stand by now; put and changed by the methods alone.
        trials: attempts that were dispatched, in order.
        history: lines that were recorded, in order.
        oldest: step of the active slots that are farthest behind, and how many these are; None:
            no slot is active.
        oldest_before: the same, before the event.
        living_workers: how many workers are alive, if the event is a tick of a running search.
        status, reason, settings, best, counts, causes, idle_since_ms, crowded_since_ms, horizon,
            started_ms: as in `Population`.
    """

    before: Population
    at_ms: int
    settings: Settings = field(init=False)
    status: PopulationStatus = field(init=False)
    reason: str = field(init=False)
    slots: list[Slot] = field(init=False)
    best: Best | None = field(init=False)
    counts: Counts = field(init=False)
    causes: Mapping[str, int] = field(init=False)
    idle_since_ms: int | None = field(init=False)
    crowded_since_ms: int | None = field(init=False)
    horizon: int = field(init=False)
    started_ms: int | None = field(init=False)
    oldest: tuple[int, int] | None = field(init=False)
    oldest_before: tuple[int, int] | None = field(init=False)
    living_workers: int | None = field(init=False, default=None)
    trials: list[TrialMessage] = field(init=False, default_factory=list)
    history: list[Line] = field(init=False, default_factory=list)
    _trial_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        before = self.before
        self.settings = before.settings
        self.status = before.status
        self.reason = before.reason
        self.slots = list(before.slots)
        self.best = before.best
        self.counts = before.counts
        self.causes = before.causes
        self.idle_since_ms = before.idle_since_ms
        self.crowded_since_ms = before.crowded_since_ms
        self.horizon = before.horizon or before.settings.planned_steps
        self.started_ms = before.started_ms
        self.oldest = self.oldest_before = before.oldest or oldest_step(before.slots)

    def decision(self) -> Decision:
        """What the event leads to."""
        population = Population(
            settings=self.settings,
            status=self.status,
            reason=self.reason,
            slots=tuple(self.slots),
            best=self.best,
            counts=self.counts,
            causes=self.causes,
            idle_since_ms=self.idle_since_ms,
            crowded_since_ms=self.crowded_since_ms,
            horizon=self.horizon,
            started_ms=self.started_ms,
            oldest=self.oldest,
        )
        if self.living_workers is not None:
            # Most ticks change nothing; a tick that does is a part of what led to the rest.
            if population == self.before:
                return Decision(self.before)
            self.history.insert(0, TimePassed(at_ms=self.at_ms, workers=self.living_workers))
        return Decision(population, tuple(self.trials), tuple(self.history))

    @property
    def trial_s(self) -> float:
        """Median duration of the slots' latest trials, in seconds; 0 before the first.

        It is computed once: an event brings one duration at most, before any rule needs this.
        """
        if self._trial_s is None:
            self._trial_s = median_trial_s(self.slots)
        return self._trial_s

    @property
    def deadline_ms(self) -> int | None:
        """When the search must have ended, in milliseconds since the epoch; None: at any time."""
        settings, deadlines = self.settings, []
        if settings.deadline_ms is not None:
            deadlines.append(settings.deadline_ms)
        if settings.max_ms is not None and self.started_ms is not None:
            deadlines.append(self.started_ms + settings.max_ms)
        return min(deadlines, default=None)

    @property
    def may_begin(self) -> bool:
        """Whether one more trial may begin, and is expected to end before the deadline."""
        most, deadline_ms = self.settings.max_trials, self.deadline_ms
        if most is not None and self.counts.created >= most:
            return False
        return deadline_ms is None or (self.at_ms + 1000 * self.trial_s <= deadline_ms)

    # -- history and counts -----------------------------------------------------------------------

    def record(self, line: Line) -> None:
        """Add a line to the run's history."""
        self.history.append(line)

    def count(
        self,
        *,
        created: int = 0,
        reported: int = 0,
        failed: int = 0,
        discarded: int = 0,
        retried: int = 0,
    ) -> None:
        """Change the trials' counts by so many."""
        before = self.counts
        self.counts = Counts(
            before.created + created,
            before.reported + reported,
            before.failed + failed,
            before.discarded + discarded,
            before.retried + retried,
        )

    def count_cause(self, cause: str) -> None:
        """Count an attempt that ended without a result, by its cause."""
        self.causes = {**self.causes, cause: self.causes.get(cause, 0) + 1}

    # -- slots ------------------------------------------------------------------------------------

    def change_slot(self, slot: Slot, **changes: Any) -> Slot:
        """Put a slot's changed form into its place."""
        return self.put_slot(replace(slot, **changes))

    def put_slot(self, slot: Slot) -> Slot:
        """Put a slot into its place, or a new one into the next."""
        if slot.index == len(self.slots):
            self.slots.append(slot)
        else:
            self._leave_oldest(self.slots[slot.index])
            self.slots[slot.index] = slot
        if slot.active and self.oldest is not None:
            step, n = self.oldest
            if slot.step <= step:
                self.oldest = (slot.step, 1 if slot.step < step else n + 1)
        if self.oldest is None or not self.oldest[1]:
            self.oldest = oldest_step(self.slots)
        return slot

    def _leave_oldest(self, slot: Slot) -> None:
        """Count a slot out that is about to be replaced."""
        if self.oldest is not None and slot.active and slot.step == self.oldest[0]:
            self.oldest = (slot.step, self.oldest[1] - 1)


def oldest_step(slots: Sequence[Slot]) -> tuple[int, int] | None:
    """Step of the active slots that are farthest behind, and their number; None: none is active."""
    # Called often, hence without `Slot.active`.
    steps = [s.step for s in slots if s.status == "queued" or s.status == "waiting"]  # noqa: PLR1714
    step = min(steps, default=None)
    return None if step is None else (step, steps.count(step))
