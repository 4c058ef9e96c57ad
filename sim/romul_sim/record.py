"""Records of real runs: what happened to machines, and every line of history, with its time.

A record is a trace too (`churn.py`): yesterday's machines can carry another search. And its history
holds every event that the decisions were made on, so that they can be made again (`replay.py`).
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from romul_actors.errors import RomulError, UnknownExperimentError
from romul_actors.observe.snapshot import PAGE
from romul_actors.protocol.experiment import Experiment, from_json
from romul_actors.store import Store
from romul_sim.churn import Change, line_of, read_trace

VERSION = 1
ENDED = ("finished", "failed", "stopped")


class RecordError(RomulError, ValueError):
    """A record that cannot be used."""


@dataclass(frozen=True, slots=True)
class Record:
    """A run as it was recorded.

    Attributes:
        experiment: its declaration.
        began_ms: when it began, in milliseconds since the epoch.
        lines: its history, oldest first.
        changes: what happened to machines, in order of time.
        span_s: how long it went on.
    """

    experiment: Experiment
    began_ms: int
    lines: Sequence[Mapping[str, Any]]
    changes: Sequence[Change]
    span_s: float


async def record(
    store: Store,
    name: str,
    file: Path,
    every_s: float = 1.0,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Record a run until it ends; one that has ended already is recorded from its history.

    Args:
        store: where it lies.
        name: its name.
        file: the record; is there, readable, at any time.
        every_s: how often machines and history are looked at.
        progress: is called with the number of lines of history so far.

    Returns:
        The number of lines of history.

    Raises:
        RecordError: the store has only the end of its history.
        UnknownExperimentError: there is no such experiment.
    """
    experiment = from_json(await store.spec(name))
    with file.open("w", encoding="utf-8") as out:
        writer = _Writer(store, experiment, out)
        while True:
            # Asked before the history is read: what was committed with the end is in it then.
            status = (await store.experiments()).get(name)
            if status is None and not writer.n:
                raise UnknownExperimentError(f"no experiment {name!r}")
            await writer.look(final=status in (None, *ENDED))
            progress(writer.n)
            if status in (None, *ENDED):
                return writer.n
            await asyncio.sleep(every_s)


class _Writer:
    """Writes what is new since it last looked."""

    def __init__(self, store: Store, experiment: Experiment, out: TextIO) -> None:
        self._store = store
        self._experiment = experiment
        self._out = out
        self._after = "0"
        self._alive: set[str] = set()
        self._seen: set[str] = set()
        self._lines: list[dict[str, Any]] = []
        self._began_ms: int | None = None
        self.n = 0

    async def look(self, *, final: bool) -> None:
        name = self._experiment.name
        while page := await self._store.history(name, self._after, PAGE):
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

    def _history(self, line: dict[str, Any]) -> None:
        if self._began_ms is None:
            if line["event"] != "started" or "at_ms" not in line:
                raise RecordError(
                    f"{self._experiment.name}: the first lines of its history are gone: "
                    "raise history_keep, or record it while it runs"
                )
            self._began_ms = line["at_ms"]
            head = {
                "at": 0.0,
                "event": "record",
                "version": VERSION,
                "began_ms": self._began_ms,
                "experiment": self._experiment.model_dump(mode="json"),
            }
            self._out.write(json.dumps(head) + "\n")
        at_s = (line["at_ms"] - self._began_ms) / 1000
        self._out.write(json.dumps({"at": at_s, "event": "history", "line": line}) + "\n")
        self._lines.append(line)
        self.n += 1

    async def _machines(self, name: str) -> None:
        lease_ms = 1000 * self._experiment.timeouts.lease_s
        told = await self._store.workers(name)
        alive = {worker for worker, presence in told.items() if presence["age_ms"] < lease_ms}
        # By this machine's clock, and never before what the store's own has told already.
        at_ms = max(self._lines[-1]["at_ms"], time.time_ns() // 1_000_000)
        at_s = (at_ms - (self._began_ms or 0)) / 1000
        for worker in sorted(alive - self._alive):
            self._out.write(line_of(Change(at_s, worker, "arrives", speed=1.0)) + "\n")
        for worker in sorted(self._alive - alive):
            self._out.write(line_of(Change(at_s, worker, "leaves")) + "\n")
        self._alive = alive
        self._seen |= alive


def machines_of(lines: Sequence[Mapping[str, Any]], began_ms: int) -> list[Change]:
    """Machines as history knows them: from a worker's first trial to the last word of it.

    A machine's speed is the median trial of all machines over its own.
    """
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    gone: set[str] = set()
    seconds: dict[str, list[float]] = {}
    for line in lines:
        worker = line.get("worker")
        if not worker:
            continue
        at_s = (line["at_ms"] - began_ms) / 1000
        first.setdefault(worker, max(0.0, at_s - float(line.get("seconds", 0.0))))
        last[worker] = at_s
        if line["event"] == "result":
            seconds.setdefault(worker, []).append(float(line["seconds"]))
        if line.get("reason") in ("lost", "preempted", "drained"):
            gone.add(worker)
        else:
            gone.discard(worker)
    usual = median([s for trials in seconds.values() for s in trials]) if seconds else 1.0
    changes = []
    for worker, at_s in first.items():
        own = median(seconds[worker]) if worker in seconds else usual
        speed = round(usual / own, 4) if own > 0 else 1.0
        changes.append(Change(at_s, worker, "arrives", speed=speed))
        if worker in gone:
            changes.append(Change(last[worker], worker, "leaves"))
    return sorted(changes, key=lambda change: change.at_s)


def read_record(file: Path) -> Record:
    """Read a record.

    Raises:
        RecordError: it is none; the message gives the line.
    """
    lines: list[Mapping[str, Any]] = []
    head: Mapping[str, Any] | None = None
    try:
        texts = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{file}: cannot be read: {error}") from None
    for number, text in enumerate(texts, 1):
        try:
            told = json.loads(text)
            if told["event"] == "record":
                head = told
            elif told["event"] == "history":
                lines.append(told["line"])
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{file}:{number}: not a line of a record: {error!r}") from None
    if head is None or not lines:
        raise RecordError(f"{file}: not a record: `romul record` makes one")
    if head.get("version") != VERSION:
        raise RecordError(f"{file}: a record of version {head.get('version')}, not {VERSION}")
    trace = read_trace(file)
    return Record(
        from_json(json.dumps(head["experiment"])),
        int(head["began_ms"]),
        lines,
        trace.changes,
        trace.span_s,
    )
