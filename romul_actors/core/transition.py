"""The mutable state between one population and the next.

A `Transition` starts from the population before a batch of events. The modules above it, from
`dispatch` to `decide`, change it, and `decision()` returns the frozen result. It maintains slots,
counts and history, and contains no rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.core.elasticity import median_trial_s
from romul_actors.core.events import TrialMessage
from romul_actors.core.history import Line, TimePassed
from romul_actors.core.population import (
    Best,
    Counts,
    Decision,
    Population,
    PopulationStatus,
    Progress,
)
from romul_actors.core.settings import Settings
from romul_actors.core.slot import Slot, changed_slot
from romul_actors.core.space import Value

MAX_STEPS = 8
"""Maximal number of steps whose progress is cached; few are judged at a time."""


@dataclass(slots=True)
class Transition:
    """A population while a batch of events changes it.

    Attributes:
        before: the population before the first event.
        at_ms: arrival time of the current event, in milliseconds since the epoch.
        slots: the current slots; change them only through the methods.
        trials: messages of the dispatched attempts, in order.
        history: recorded lines, in order.
        oldest: the lowest step of any active slot, and the number of active slots at it; None if no
            slot is active.
        oldest_before: the same, before the current event.
        status, reason, settings, best, causes, idle_since_ms, crowded_since_ms, horizon,
            started_ms: as in `Population`.
    """

    before: Population
    at_ms: int = 0
    settings: Settings = field(init=False)
    status: PopulationStatus = field(init=False)
    reason: str = field(init=False)
    slots: list[Slot] = field(init=False)
    best: Best | None = field(init=False)
    _counts: list[int] = field(init=False)
    causes: Mapping[str, int] = field(init=False)
    idle_since_ms: int | None = field(init=False)
    crowded_since_ms: int | None = field(init=False)
    horizon: int = field(init=False)
    started_ms: int | None = field(init=False)
    oldest: tuple[int, int] | None = field(init=False)
    oldest_before: tuple[int, int] | None = field(init=False)
    trials: list[TrialMessage] = field(init=False, default_factory=list)
    history: list[Line] = field(init=False, default_factory=list)
    _trial_s: float | None = field(init=False, default=None)
    _frozen: Population | None = field(init=False)
    _progress: dict[int, Progress] = field(init=False)

    def __post_init__(self) -> None:
        self._load(self.before)

    def _load(self, before: Population) -> None:
        """Take over the state of a population."""
        self._frozen = before
        self.settings = before.settings
        self.status = before.status
        self.reason = before.reason
        self.slots = list(before.slots)
        self.best = before.best
        counts = before.counts
        self._counts = [
            counts.created,
            counts.reported,
            counts.failed,
            counts.discarded,
            counts.retried,
        ]
        self.causes = before.causes
        self.idle_since_ms = before.idle_since_ms
        self.crowded_since_ms = before.crowded_since_ms
        self.horizon = before.horizon or before.settings.planned_steps
        self.started_ms = before.started_ms
        self.oldest = self.oldest_before = before.oldest or oldest_step(before.slots)
        self._progress = dict(before.progress)

    def begin(self, at_ms: int) -> None:
        """Begin the next event."""
        self.at_ms = at_ms
        self.oldest_before = self.oldest
        self._trial_s = self._frozen = None

    def decision(self) -> Decision:
        """The result of all events so far."""
        return Decision(self.freeze(), tuple(self.trials), tuple(self.history))

    def freeze(self) -> Population:
        """The current population."""
        if self._frozen is not None:
            return self._frozen
        return Population(
            settings=self.settings,
            status=self.status,
            reason=self.reason,
            slots=tuple(self.slots),
            best=self.best,
            counts=Counts(*self._counts),
            causes=self.causes,
            idle_since_ms=self.idle_since_ms,
            crowded_since_ms=self.crowded_since_ms,
            horizon=self.horizon,
            started_ms=self.started_ms,
            oldest=self.oldest,
            progress=dict(self._progress),
        )

    def end_tick(self, before: Population, n_lines: int, workers: int) -> None:
        """Record a tick if it changed the population, else restore the state before it.

        Args:
            before: the population before the tick.
            n_lines: number of lines recorded before the tick.
            workers: number of living workers.
        """
        if self.freeze() == before:
            self._load(before)
        else:
            # The tick caused the lines after it, so it must come first.
            self.history.insert(n_lines, TimePassed(at_ms=self.at_ms, workers=workers))

    @property
    def trial_s(self) -> float:
        """Median duration of the slots' latest trials, in seconds; 0 before the first has ended.

        It is computed once per event: an event adds at most one duration, before this is used.
        """
        if self._trial_s is None:
            self._trial_s = median_trial_s(self.slots)
        return self._trial_s

    @property
    def n_created(self) -> int:
        """Number of trials that have begun."""
        return self._counts[0]

    @property
    def deadline_ms(self) -> int | None:
        """When the search must have ended, in milliseconds since the epoch; None if never."""
        settings, deadlines = self.settings, []
        if settings.deadline_ms is not None:
            deadlines.append(settings.deadline_ms)
        if settings.max_ms is not None and self.started_ms is not None:
            deadlines.append(self.started_ms + settings.max_ms)
        return min(deadlines, default=None)

    @property
    def may_begin(self) -> bool:
        """Whether another trial may begin: `max_trials` allows it, and so does the deadline."""
        most, deadline_ms = self.settings.max_trials, self.deadline_ms
        if most is not None and self.n_created >= most:
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
        """Add to the counts of trials."""
        counts = self._counts
        counts[0] += created
        counts[1] += reported
        counts[2] += failed
        counts[3] += discarded
        counts[4] += retried

    def count_cause(self, cause: str) -> None:
        """Count an attempt that ended without a result, by its cause."""
        self.causes = {**self.causes, cause: self.causes.get(cause, 0) + 1}

    # -- slots ------------------------------------------------------------------------------------

    def hyperparameters(self, slot: Slot) -> Mapping[str, Value]:
        """The hyperparameters of a slot's current trial."""
        if slot.hyperparameters is not None:
            return slot.hyperparameters
        return self.settings.space.decode(slot.vector)

    def change_slot(self, slot: Slot, **changes: Any) -> Slot:
        """Change fields of a slot, store it, and return it."""
        return self.put_slot(changed_slot(slot, changes))

    def put_slot(self, slot: Slot) -> Slot:
        """Store a slot at its index, or append a new one."""
        before = self.slots[slot.index] if slot.index < len(self.slots) else None
        if before is None:
            self.slots.append(slot)
        else:
            self._leave_oldest(before)
            self.slots[slot.index] = slot
        for step, progress in self._progress.items():
            old = _NOTHING if before is None else _share(before, step)
            new = _share(slot, step)
            if old is not new:
                self._progress[step] = progress.with_other(old, new)
        if slot.active and self.oldest is not None:
            step, n = self.oldest
            if slot.step <= step:
                self.oldest = (slot.step, 1 if slot.step < step else n + 1)
        if self.oldest is None or not self.oldest[1]:
            self.oldest = oldest_step(self.slots)
        return slot

    def put_slots(self, slots: Iterable[Slot]) -> None:
        """Replace all slots."""
        self.slots = list(slots)
        self.oldest = oldest_step(self.slots)
        self._progress = {}

    def progress(self, step: int) -> Progress:
        """The progress of all slots at a step."""
        found = self._progress.get(step)
        if found is None:
            oldest = step if self.oldest is None else self.oldest[0]
            kept = {s: known for s, known in self._progress.items() if s >= oldest}
            found = progress_of(self.slots, step)
            self._progress = {**dict(list(kept.items())[1 - MAX_STEPS :]), step: found}
        return found

    def _leave_oldest(self, slot: Slot) -> None:
        """Remove a slot that is about to be replaced from the count in `oldest`."""
        if self.oldest is not None and slot.active and slot.step == self.oldest[0]:
            self.oldest = (slot.step, self.oldest[1] - 1)


def progress_of(slots: Iterable[Slot], step: int) -> Progress:
    """The progress of some slots at a step."""
    shares = [_share(slot, step) for slot in slots]
    return Progress(*map(sum, zip(*shares, strict=True))) if shares else _NOTHING


_NOTHING = Progress()
_MISSING = Progress(missing=1)
_KNOWN = {
    (sound, place): Progress(
        known=1, sound=int(sound), waiting=int(place == "waits"), decided=int(place == "decided")
    )
    for sound in (True, False)
    for place in ("", "waits", "decided")
}


def _share(slot: Slot, step: int) -> Progress:
    """What one slot adds to the progress at a step."""
    # Called for each slot that changes: faster than `Slot.active`.
    status = slot.status
    outcome = slot.outcomes.get(step)
    if outcome is None:
        may = slot.joined <= step and slot.step <= step
        missing = may and (status == "queued" or status == "waiting")  # noqa: PLR1714
        return _MISSING if missing else _NOTHING
    place = ""
    if slot.step > step:
        place = "decided"
    elif slot.step == step and status == "waiting":
        place = "waits"
    return _KNOWN[not outcome.failed, place]


def oldest_step(slots: Sequence[Slot]) -> tuple[int, int] | None:
    """The lowest step of any active slot, and the number of active slots at it, or None."""
    # Called often: faster than `Slot.active`.
    steps = [s.step for s in slots if s.status == "queued" or s.status == "waiting"]  # noqa: PLR1714
    step = min(steps, default=None)
    return None if step is None else (step, steps.count(step))
