"""The dashboard's state of an experiment: read once, then updated from new lines of history.

A refresh reads the experiment's own fields, the workers, and the lines of history since the last
refresh. It does not read slots, whose states follow from the lines. So a large population costs no
more than a small one.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from romul_actors.core.history import (
    BoundsChanged,
    ControlIgnored,
    Line,
    SearchChanged,
    SearchExtended,
    SearchFailed,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStopped,
    SlotParked,
    SlotPinned,
    SlotResumed,
    SlotUnpinned,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
    WorkerDrained,
)
from romul_actors.errors import UnknownExperimentError
from romul_actors.observe.snapshot import Snapshot, rank, read_glance
from romul_actors.protocol.optimizer_options import make_stored
from romul_actors.store import ReaderStore

if TYPE_CHECKING:
    from romul_actors.core.space import Space

PAGE = 5_000
"""Lines of history per round trip."""
SPANS = 3_000
"""Maximum number of attempts on the timeline."""
FAILURES = 200
"""Maximum number of failures, and of operators' actions, in the lists."""
TRIALS = 2_000
"""Maximum number of trials kept for parallel coordinates."""
SHOWN = 30
"""Number of slots, the best ones, whose curves are drawn; others count only in the quartiles."""

OPERATOR_LINES = (
    SearchPaused,
    SearchResumed,
    SearchStopped,
    BoundsChanged,
    SearchExtended,
    SearchChanged,
    SlotPinned,
    SlotUnpinned,
    WorkerDrained,
)
"""Kinds of lines about operators' actions."""


@dataclass(slots=True)
class SlotState:
    """A slot with its curves, built from lines of history alone.

    Attributes:
        index: its number.
        status: queued, waiting, parked or done, according to the history.
        step, trial, copied_from, rule: those of its current trial.
        hyperparameters: those of its current trial.
        value: value of its latest trial that ended; None if none has, or if that trial failed.
        failed: whether that trial was given up.
        value_before: `value` before that trial ended.
        steps, values: steps and values of all its results.
        schedule: steps, each with values by names of coordinates.
        pinned: whether an operator pinned it.
        parking: whether it will be parked when its trial ends.
        discarded: whether its trial was discarded at the end of the search.
    """

    index: int
    status: str = "queued"
    step: int = 0
    trial: str = ""
    copied_from: int | None = None
    rule: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    failed: bool = False
    value_before: float | None = None
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    schedule: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    pinned: bool = False
    parking: bool = False
    discarded: bool = False

    def apply(self, line: SlotParked | SlotResumed | SlotPinned | SlotUnpinned) -> None:
        """Apply a line that concerns no trial."""
        match line:
            case SlotParked():
                self.parking = self.status == "queued"
                self.status = "queued" if self.parking else "parked"
            case SlotResumed():
                # If the slot starts a trial, that trial's line comes first.
                self.status = "waiting" if self.status == "parked" else self.status
                self.parking = False
            case SlotPinned() | SlotUnpinned():
                self.pinned = isinstance(line, SlotPinned)
                self.parking = self.parking and not self.pinned

    def end(self, status: str, value: float | None) -> None:
        """End its trial; `value` is None if the trial was given up."""
        self.status, self.parking, self.failed = status, False, value is None
        self.value_before, self.value = self.value, value

    def retry(self) -> None:
        """Retry a trial that was given up; a parked slot forks another slot instead."""
        if self.failed and self.status not in ("queued", "parked"):
            self.status, self.value, self.failed = "queued", self.value_before, False

    def close(self) -> None:
        """End the slot with the search."""
        self.status, self.discarded = "done", self.status == "queued"

    def reopen(self, status: str) -> None:
        """Continue with more steps as `status`, or with the trial that was discarded."""
        if self.status == "done":
            self.status, self.discarded = "queued" if self.discarded else status, False


@dataclass(frozen=True, slots=True)
class AttemptSpan:
    """An attempt on the timeline, in seconds since the search began."""

    worker: str
    begin_s: float
    end_s: float
    how: str


class Feed:
    """One experiment, kept up to date for all pages that show it.

    Args:
        store: the store that holds it.
        name: its name.
    """

    def __init__(self, store: ReaderStore, name: str) -> None:
        self._store = store
        self.name = name
        self.snapshot: Snapshot | None = None
        self.slots: dict[int, SlotState] = {}
        self.parents: dict[str, str | None] = {}
        self.results: dict[str, float] = {}
        self.attempts: deque[AttemptSpan] = deque(maxlen=SPANS)
        self.failures: deque[TrialFailed] = deque(maxlen=FAILURES)
        self.trials: deque[tuple[Mapping[str, Any], float, int]] = deque(maxlen=TRIALS)
        self._space: Space | None = None
        self.actions: deque[Line] = deque(maxlen=FAILURES)
        self.began_ms: int | None = None
        self.took_s = 0.0
        self.n_lines = 0
        self._after = "0"
        self._epoch: str | None = None
        self._has_failed = False
        self.error = ""
        """Why the latest refresh failed; "" if it did not."""

    async def refresh(self) -> Snapshot:
        """Read what is new; the first call reads everything.

        Raises:
            UnknownExperimentError: it was removed, and perhaps another one has its name.
            ExperimentError, StoredDataError: the stored data cannot be read.
        """
        began = time.perf_counter()
        while True:
            glance = await self._store.glance(self.name, (), self._after, PAGE)
            epoch = glance.meta.get("epoch")
            if self.snapshot is not None and epoch != self._epoch:
                raise UnknownExperimentError(f"{self.name} was removed and submitted again")
            self._epoch = epoch
            self.snapshot = snapshot = read_glance(glance, self.name)
            self._after = snapshot.last_id or self._after
            for line in snapshot.history:
                self._add(line)
            self.n_lines += len(snapshot.history)
            if len(snapshot.history) < PAGE:
                break
        self.took_s = time.perf_counter() - began
        return snapshot

    # -- lines of history -----------------------------------------------------------------------

    def _add(self, line: Line) -> None:
        if self.began_ms is None:
            self.began_ms = line.at_ms
        if isinstance(line, OPERATOR_LINES) or (
            isinstance(line, ControlIgnored) and line.by is not None
        ):
            self.actions.append(line)
        match line:
            case TrialCreated():
                self._add_trial(line)
            case TrialReported():
                self._add_result(line)
            case TrialFailed() | TrialReleased():
                self._add_lost_attempt(line)
            case SlotParked() | SlotResumed() | SlotPinned() | SlotUnpinned():
                if line.slot in self.slots:
                    self.slots[line.slot].apply(line)
            case SearchFailed() | SearchResumed() | SearchFinished() | SearchStopped():
                self._follow(line)
            case SearchExtended():
                self._extend()

    def _extend(self) -> None:
        """Let finished slots take part again, as the core does without a line for each."""
        furthest = max((slot.step for slot in self.slots.values()), default=0)
        lead = self._max_lead()
        for slot in self.slots.values():
            parked = lead is not None and furthest - slot.step > lead
            slot.reopen("parked" if parked else "waiting")

    def _max_lead(self) -> int | None:
        """How many steps a slot may be ahead of the last one; None if unlimited or unknown."""
        if self.snapshot is None:
            return None
        spec = self.snapshot.experiment.optimizer
        try:
            return make_stored(spec.name, spec.options)[0].max_lead
        except Exception:  # noqa: BLE001  (an installed package may raise any)
            return None

    def _follow(self, line: SearchFailed | SearchResumed | SearchFinished | SearchStopped) -> None:
        """Apply a line that concerns the whole search to all slots."""
        for slot in self.slots.values():
            match line:
                case SearchFinished() | SearchStopped():
                    slot.close()
                case SearchResumed() if self._has_failed:
                    # The core retries without a line for each slot.
                    slot.retry()
        self._has_failed = isinstance(line, SearchFailed)

    def _add_trial(self, line: TrialCreated) -> None:
        slot = self.slots.setdefault(line.slot, SlotState(line.slot))
        slot.status, slot.step, slot.trial = "queued", line.step, line.trial
        slot.copied_from = line.why.get("copied")
        slot.rule = line.why.get("rule", "")
        slot.hyperparameters = line.hyperparameters
        slot.schedule.append((line.step, self._by_axis(line.hyperparameters)))
        self.parents[line.trial] = line.parent

    def _add_result(self, line: TrialReported) -> None:
        slot = self.slots.get(line.slot)
        if slot is None:
            return
        self._end_trial(slot, line.step, line.value)
        slot.steps.append(line.step)
        slot.values.append(line.value)
        self.results[line.trial] = line.value
        self.trials.append((self._by_axis(slot.hyperparameters), line.value, line.step))
        self._add_attempt(line, "result")

    def _end_trial(self, slot: SlotState, step: int, value: float | None) -> None:
        """End a slot's trial as the core does; `value` is None if it has failed."""
        last = self.snapshot is not None and step + 1 >= self.snapshot.experiment.steps
        slot.end("done" if last else "parked" if slot.parking else "waiting", value)

    def _by_axis(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values by names of coordinates, which do not depend on the bounds."""
        if self._space is None and self.snapshot is not None:
            self._space = self.snapshot.experiment.search_space()
        return values if self._space is None else self._space.by_axis(values)

    def _add_lost_attempt(self, line: TrialFailed | TrialReleased) -> None:
        if isinstance(line, TrialFailed):
            self.failures.append(line)
            if not line.again and line.slot in self.slots:
                self._end_trial(self.slots[line.slot], line.step, None)
        self._add_attempt(line, line.reason)

    def _add_attempt(self, line: TrialReported | TrialFailed | TrialReleased, how: str) -> None:
        end_s = (line.at_ms - (self.began_ms or 0)) / 1000
        begin_s = max(0.0, end_s - line.seconds)
        self.attempts.append(AttemptSpan(line.worker, begin_s, end_s, how))

    # -- what is drawn --------------------------------------------------------------------------

    @property
    def maximize(self) -> bool:
        """Whether a higher metric is better."""
        return self.snapshot is not None and self.snapshot.experiment.direction == "maximize"

    def ranked(self) -> list[SlotState]:
        """Slots, the best first."""
        maximize = self.maximize
        return sorted(self.slots.values(), key=lambda s: rank(s.value, s.index, maximize=maximize))

    def quartiles(self) -> list[tuple[int, float, float, float]]:
        """(step, lower quartile, median, upper quartile) of all slots' results."""
        by_step: dict[int, list[float]] = {}
        for slot in self.slots.values():
            for step, value in zip(slot.steps, slot.values, strict=True):
                by_step.setdefault(step, []).append(value)
        quartiles = []
        for step, values in sorted(by_step.items()):
            values.sort()
            low, middle, high = (values[int(q * (len(values) - 1))] for q in (0.25, 0.5, 0.75))
            quartiles.append((step, low, middle, high))
        return quartiles

    def line_of(self, trial: str | None) -> list[str]:
        """Ids of a trial's ancestors and its own, oldest first."""
        line: list[str] = []
        while trial is not None and trial in self.parents:
            line.append(trial)
            trial = self.parents[trial]
        return line[::-1]

    def copies(self, slots: Sequence[int]) -> list[tuple[int, int, int]]:
        """(step, from slot, to slot) of all copies from or to any of `slots`."""
        wanted = set(slots)
        found = []
        for trial, parent in self.parents.items():
            if parent is None:
                continue
            slot, step = map(int, trial.split("-"))
            source = int(parent.partition("-")[0])
            if source != slot and (slot in wanted or source in wanted):
                found.append((step, source, slot))
        return found
