"""What the dashboard knows of an experiment: read once, then kept up with what is new.

A refresh asks for the experiment's own fields, the workers, and the lines of history since the
last one; the slots' states follow from these lines: a large population costs no more than a small.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.observe.snapshot import Snapshot, read_glance
from romul_actors.store import ReaderStore

PAGE = 5_000
"""Lines of history in one round trip."""
SPANS = 3_000
FAILURES = 200
TRIALS = 2_000
"""Most attempts on the timeline, failures, and trials for parallel coordinates that are kept."""
SHOWN = 30
"""Slots whose curves are drawn: the best; of all others only quartiles."""


@dataclass(slots=True)
class SlotState:
    """A slot, as history tells it.

    Attributes:
        index: its number.
        status: queued, waiting, parked or done, as far as it can be told.
        step, trial, parent, copied, rule: of its current trial.
        hyperparameters: of its current trial.
        value: of its latest result.
        steps, values: all its results.
        schedule: hyperparameters by step, in the order of the space.
        attempts: of its current trial.
    """

    index: int
    status: str = "queued"
    step: int = 0
    trial: str = ""
    parent: str | None = None
    copied: int | None = None
    rule: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    schedule: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    attempts: int = 1
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt on the timeline, in seconds from the search's begin."""

    worker: str
    begin_s: float
    end_s: float
    how: str
    trial: str


class Feed:
    """One experiment, kept up to date for all who look at it.

    Args:
        store: where it lies.
        name: its name.
    """

    def __init__(self, store: ReaderStore, name: str) -> None:
        self._store = store
        self.name = name
        self.seen: Snapshot | None = None
        self.slots: dict[int, SlotState] = {}
        self.parents: dict[str, str | None] = {}
        self.results: dict[str, float] = {}
        self.attempts: deque[Attempt] = deque(maxlen=SPANS)
        self.failures: deque[Mapping[str, Any]] = deque(maxlen=FAILURES)
        self.trials: deque[tuple[tuple[Any, ...], float, int]] = deque(maxlen=TRIALS)
        self.actions: deque[Mapping[str, Any]] = deque(maxlen=FAILURES)
        self.began_ms: int | None = None
        self.took_s = 0.0
        self.lines = 0
        self._after = "0"

    async def refresh(self) -> Snapshot:
        """Read what is new; the first time everything.

        Raises:
            UnknownExperimentError: it is no more.
        """
        began = time.perf_counter()
        while True:
            glance = await self._store.glance(self.name, (), self._after, PAGE)
            known = None if self.seen is None else self.seen.experiment
            self.seen = read_glance(glance, known)
            self._after = self.seen.last_id or self._after
            for line in self.seen.history:
                self._take(line)
            self.lines += len(glance.history)
            if len(glance.history) < PAGE:
                break
        self.took_s = time.perf_counter() - began
        return self.seen

    # -- lines of history -----------------------------------------------------------------------

    def _take(self, line: Mapping[str, Any]) -> None:
        event = line["event"]
        if self.began_ms is None:
            self.began_ms = line.get("at_ms", 0)
        if event == "trial":
            self._trial(line)
        elif event == "result":
            self._result(line)
        elif event in ("failed", "released"):
            self._ended_otherwise(line)
        elif event == "parked":
            self.slots[line["slot"]].status = "parked"
        elif event in ("pin", "unpin"):
            self.slots[line["slot"]].pinned = event == "pin"
        elif event == "finished":
            for slot in self.slots.values():
                slot.status = "done"
        if "by" in line:
            self.actions.append(line)

    def _trial(self, line: Mapping[str, Any]) -> None:
        slot = self.slots.setdefault(line["slot"], SlotState(line["slot"]))
        slot.status, slot.attempts = "queued", 1
        slot.step, slot.trial, slot.parent = line["step"], line["trial"], line["parent"]
        slot.copied = line["why"].get("copied")
        slot.rule = line["why"].get("rule", "")
        slot.hyperparameters = line["hyperparameters"]
        slot.schedule.append((line["step"], tuple(line["hyperparameters"].values())))
        self.parents[line["trial"]] = line["parent"]

    def _result(self, line: Mapping[str, Any]) -> None:
        slot = self.slots.get(line["slot"])
        if slot is None:
            return
        last = self.seen is not None and line["step"] + 1 >= self.seen.experiment.steps
        slot.status, slot.value = "done" if last else "waiting", line["value"]
        slot.steps.append(line["step"])
        slot.values.append(line["value"])
        self.results[line["trial"]] = line["value"]
        self.trials.append((tuple(slot.hyperparameters.values()), line["value"], line["step"]))
        self._attempt(line, line["seconds"], "result")

    def _ended_otherwise(self, line: Mapping[str, Any]) -> None:
        index = int(line["trial"].partition("-")[0])
        if index in self.slots:
            self.slots[index].attempts += 1
        if line["event"] == "failed":
            self.failures.append(line)
        self._attempt(line, line.get("seconds", 0.0), line.get("reason", "failed"))

    def _attempt(self, line: Mapping[str, Any], seconds: float, how: str) -> None:
        end_s = (line["at_ms"] - (self.began_ms or 0)) / 1000
        begin_s = max(0.0, end_s - seconds)
        self.attempts.append(Attempt(line["worker"], begin_s, end_s, how, line["trial"]))

    # -- what is drawn --------------------------------------------------------------------------

    @property
    def maximize(self) -> bool:
        """Whether a higher metric is better."""
        return self.seen is not None and self.seen.experiment.direction == "maximize"

    def ranked(self) -> list[SlotState]:
        """Slots, the best first."""
        sign = -1 if self.maximize else 1
        return sorted(
            self.slots.values(),
            key=lambda slot: (slot.value is None, sign * (slot.value or 0.0), slot.index),
        )

    def quartiles(self) -> list[tuple[int, float, float, float]]:
        """(step, lower quartile, median, upper quartile) of all slots' results."""
        by_step: dict[int, list[float]] = {}
        for slot in self.slots.values():
            for step, value in zip(slot.steps, slot.values, strict=True):
                by_step.setdefault(step, []).append(value)
        told = []
        for step, values in sorted(by_step.items()):
            values.sort()
            low, middle, high = (values[int(q * (len(values) - 1))] for q in (0.25, 0.5, 0.75))
            told.append((step, low, middle, high))
        return told

    def line_of(self, trial: str | None) -> list[str]:
        """Ids of a trial's ancestors and its own, oldest first."""
        line: list[str] = []
        while trial is not None and trial in self.parents:
            line.append(trial)
            trial = self.parents[trial]
        return line[::-1]

    def copies(self, slots: Sequence[int]) -> list[tuple[int, int, int]]:
        """(step, from slot, to slot) of all copies that touch one of `slots`."""
        wanted = set(slots)
        told = []
        for trial, parent in self.parents.items():
            if parent is None:
                continue
            slot, step = map(int, trial.split("-"))
            source = int(parent.partition("-")[0])
            if source != slot and (slot in wanted or source in wanted):
                told.append((step, source, slot))
        return told
