"""Records of real runs: what happened to machines, and every line of history, with times.

A record is also a trace (`churn/`): another search can be simulated on the recorded machines. Its
history holds every event that led to decisions, so the decisions can be replayed (`replay.py`).
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TextIO, TypeVar

from romul_actors.actor.silence import Silence
from romul_actors.core import history
from romul_actors.core.history import (
    Line,
    ReportStale,
    SearchStarted,
    TrialFailed,
    TrialReleased,
    TrialReported,
    WorkerDrained,
)
from romul_actors.errors import ExperimentError, RomulError, UnknownExperimentError
from romul_actors.observe.stored_history import PAGE
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.experiment import from_json as experiment_of
from romul_actors.protocol.statuses import ENDED
from romul_actors.store import Store
from romul_sim.churn.trace import Change
from romul_sim.churn.trace_files import line_of, numbered_lines, read_trace

VERSION = 1
LEAVING = ("lost", "preempted", "drained")
"""Reasons for the end of an attempt that mean that its worker is gone."""
SLOWEST, FASTEST = 1e-4, 1e6
"""Limits of a machine's speed that is computed from history; at 0 it would never train."""

T = TypeVar("T")

_Attempt = TrialFailed | TrialReleased
"""Lines of attempts that ended without a result."""


class RecordError(RomulError, ValueError):
    """A record is invalid, or cannot be made."""


class Ask(Protocol):
    """Makes a request of the store that holds a run, and returns the answer, however late."""

    def __call__(self, request: Callable[[Store], Awaitable[T]], /) -> Awaitable[T]:
        """The answer to `request`, which may be made more than once."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """A recorded run.

    Attributes:
        experiment: the declaration.
        began_ms: when the run began, in milliseconds since the epoch.
        lines: lines of history, oldest first.
        changes: what happened to machines, in order of time.
        span_s: length of the record, in seconds.
    """

    experiment: Experiment
    began_ms: int
    lines: Sequence[Line]
    changes: Sequence[Change]
    span_s: float

    @property
    def trial_s(self) -> float | None:
        """Median duration of the trials, in seconds; None: no trial has a result."""
        seconds = [line.seconds for line in self.lines if isinstance(line, TrialReported)]
        return max(1e-3, median(seconds)) if seconds else None


async def record(
    ask: Ask,
    name: str,
    file: Path,
    every_s: float = 1.0,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Record a run until it ends; a run that has ended is recorded from its history.

    Args:
        ask: makes requests of the store that holds the run.
        name: name of the experiment.
        file: where to write the record; it can be read at any time.
        every_s: interval at which machines and history are read, in seconds.
        progress: called with the number of lines of history so far.

    Returns:
        The number of lines of history.

    Raises:
        RecordError: the store no longer has the beginning of the history, or the file cannot be
            written.
        UnknownExperimentError: there is no such experiment.
    """
    experiment = experiment_of(await ask(lambda store: store.spec(name)))
    try:
        opened = file.open("w", encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{file}: cannot be written: {error.strerror}") from None
    with opened as out:
        writer = _Writer(ask, experiment, out)
        while True:
            # Read before the history, so that the history then includes the end of the run.
            status = (await writer.answer(lambda store: store.experiments())).get(name)
            if status is None and not writer.n:
                raise UnknownExperimentError(f"no experiment {name!r}")
            await writer.write_new(final=status in (None, *ENDED))
            progress(writer.n)
            if status in (None, *ENDED):
                return writer.n
            await asyncio.sleep(every_s)


class _Writer:
    """Writes the lines that are new since the last call."""

    def __init__(self, ask: Ask, experiment: Experiment, out: TextIO) -> None:
        self._ask = ask
        self._experiment = experiment
        self._out = out
        self._after = "0"
        self._alive: set[str] = set()
        self._seen: set[str] = set()
        self._lines: list[Line] = []
        self._began_ms: int | None = None
        self._looked_ms = 0
        self._silence = Silence()
        self.n = 0

    def answer(self, request: Callable[[Store], Awaitable[T]]) -> Awaitable[T]:
        """The store's answer; whether the store was silent is noted."""
        return self._silence.timed(self._ask(request))

    async def write_new(self, *, final: bool) -> None:
        name = self._experiment.name
        while page := await self.answer(lambda store: store.history(name, self._after, PAGE)):
            self._after = page[-1][0]
            for _, text in page:
                self._history(json.loads(text))
        if self._began_ms is None:
            return
        if not final:
            await self._machines(name)
        else:
            for change in machines_of(self._lines, self._began_ms):
                if change.machine not in self._seen:
                    self._out.write(line_of(change) + "\n")
        self._out.flush()

    def _history(self, values: dict[str, Any]) -> None:
        """Write one line of history, in the form of `romul history --json`."""
        line = history.from_json(values)
        if self._began_ms is None:
            if not isinstance(line, SearchStarted) or "at_ms" not in values:
                raise RecordError(
                    f"{self._experiment.name}: the first lines of its history are gone: "
                    "raise history_keep, or record it while it runs"
                )
            self._began_ms = line.at_ms
            head = {
                "at": 0.0,
                "event": "record",
                "version": VERSION,
                "began_ms": self._began_ms,
                "experiment": self._experiment.model_dump(mode="json"),
            }
            self._out.write(json.dumps(head) + "\n")
        at_s = (line.at_ms - self._began_ms) / 1000
        whole = history.to_json(line)
        self._out.write(json.dumps({"at": at_s, "event": "history", "line": whole}) + "\n")
        self._lines.append(line)
        self.n += 1

    async def _machines(self, name: str) -> None:
        lease_ms = 1000 * self._experiment.timeouts.lease_s
        ages = await self.answer(lambda store: store.ages(name))
        alive = {worker for worker, age_ms in ages.items() if age_ms < lease_ms}
        if self._silence.over_s() < self._experiment.timeouts.lease_s:
            # A silent store received no heartbeats, so their age does not mean that machines left.
            alive |= self._alive
        # This machine's clock may go back. The maximum keeps times in order, so that no machine
        # leaves before it has arrived.
        now_ms = time.time_ns() // 1_000_000
        self._looked_ms = max(self._looked_ms, self._lines[-1].at_ms, now_ms)
        at_s = (self._looked_ms - (self._began_ms or 0)) / 1000
        for worker in sorted(alive - self._alive):
            self._out.write(line_of(Change(at_s, worker, "arrives", speed=1.0)) + "\n")
        for worker in sorted(self._alive - alive):
            self._out.write(line_of(Change(at_s, worker, "leaves")) + "\n")
        self._alive = alive
        self._seen |= alive


def machines_of(lines: Sequence[Line], began_ms: int) -> list[Change]:
    """Machines derived from history: each is there from its first trial to its last report.

    A machine's speed is the median duration of all trials divided by that of its own trials.
    """
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    gone: set[str] = set()
    seconds: dict[str, list[float]] = {}
    for line in lines:
        if not isinstance(line, TrialReported | _Attempt | ReportStale | WorkerDrained):
            continue
        worker, at_s = line.worker, (line.at_ms - began_ms) / 1000
        spent_s = line.seconds if isinstance(line, TrialReported | _Attempt) else 0.0
        first.setdefault(worker, max(0.0, at_s - spent_s))
        # The server's clock may have gone back.
        last[worker] = max(first[worker], at_s)
        if isinstance(line, TrialReported):
            seconds.setdefault(worker, []).append(line.seconds)
        if isinstance(line, _Attempt) and line.reason in LEAVING:
            gone.add(worker)
        else:
            gone.discard(worker)
    usual = median([s for trials in seconds.values() for s in trials]) if seconds else 1.0
    changes = []
    for worker, at_s in first.items():
        own = median(seconds[worker]) if worker in seconds else usual
        speed = min(FASTEST, max(SLOWEST, round(usual / own, 4))) if own > 0 else 1.0
        changes.append(Change(at_s, worker, "arrives", speed=speed))
        if worker in gone:
            changes.append(Change(last[worker], worker, "leaves"))
    return sorted(changes, key=lambda change: change.at_s)


def is_record(file: Path) -> bool:
    """Whether a trace file is a record, according to its first line.

    Raises:
        RecordError: the file cannot be read.
    """
    _, first = next(numbered_lines(file, RecordError), (1, ""))
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.get("event") == "record"


def read_record(file: Path) -> Record:
    """Read a record.

    Raises:
        RecordError: the file is not a record; the message gives the line.
    """
    lines: list[Line] = []
    head: Mapping[str, Any] | None = None
    for number, text in numbered_lines(file, RecordError):
        try:
            row = json.loads(text)
            if row["event"] == "record":
                head = row
            elif row["event"] == "history":
                lines.append(history.from_json(row["line"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RecordError(f"{file}:{number}: not a line of a record: {error!r}") from None
    if head is None or not lines:
        raise RecordError(f"{file}: not a record: `romul record` makes one")
    if head.get("version") != VERSION:
        raise RecordError(f"{file}: a record of version {head.get('version')}, not {VERSION}")
    trace = read_trace(file)
    try:
        experiment = experiment_of(json.dumps(head["experiment"]))
        began_ms = int(head["began_ms"])
    except ExperimentError as error:
        raise RecordError(f"{file}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{file}: not a record, by its first line: {error!r}") from None
    return Record(experiment, began_ms, lines, trace.changes, trace.span_s)
