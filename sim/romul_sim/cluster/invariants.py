"""The invariants that must hold after every event, whatever breaks (see docs/simulation.md).

The watch is part of the store: it checks each commit before any process can act on it. It reads
only what a commit changes and keeps one byte for each trial, so it can follow millions of trials.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import from_json

from romul_actors.core import history
from romul_actors.core.history import (
    Line,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
)
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings
from romul_actors.store import Commit, LineText

_DECIDED, _ACCEPTED, _GIVEN_UP = 1, 2, 3


class Violation(Exception):  # noqa: N818  (what a simulation is looking for)
    """An invariant does not hold."""


@dataclass(slots=True)
class Book:
    """What was seen so far; it goes back in time together with the store.

    Attributes:
        ends: state of each trial, by slot and step: decided, accepted or given up.
        parents: the checkpoint that each queued trial continues from, by slot.
        needed: number of queued trials that continue from a checkpoint, by checkpoint.
        since_ms: when each slot entered its state, by slot.
        decided, accepted: number of trials.
        best: the best loss.
        best_text: the stored text that holds the best trial.
        best_checkpoint: the best trial's checkpoint.
    """

    ends: dict[int, bytearray] = field(default_factory=dict)
    parents: dict[int, str] = field(default_factory=dict)
    needed: Counter[str] = field(default_factory=Counter)
    since_ms: dict[int, int] = field(default_factory=dict)
    decided: int = 0
    accepted: int = 0
    best: float = float("inf")
    best_text: str = ""
    best_checkpoint: str = ""

    def copy(self) -> "Book":
        """A copy that does not change with this one."""
        ends = {slot: bytearray(steps) for slot, steps in self.ends.items()}
        return replace(
            self,
            ends=ends,
            parents=dict(self.parents),
            needed=self.needed.copy(),
            since_ms=dict(self.since_ms),
        )

    def queue(self, slot: int, parent: str | None) -> None:
        """Note what a slot's queued trial continues from; None: no trial of it is queued."""
        before = self.parents.pop(slot, None)
        if before is not None:
            left = self.needed.pop(before) - 1
            if left:
                self.needed[before] = left
        if parent is not None:
            self.parents[slot] = parent
            self.needed[parent] += 1

    def end(self, slot: int, step: int) -> int:
        """State of a trial; 0: unknown."""
        steps = self.ends.get(slot, b"")
        return steps[step] if step < len(steps) else 0

    def mark(self, slot: int, step: int, end: int) -> None:
        """Record the state of a trial."""
        steps = self.ends.setdefault(slot, bytearray())
        if len(steps) <= step:
            steps.extend(bytes(step + 1 - len(steps)))
        steps[step] = end


@dataclass(slots=True)
class Excuses:
    """When faults struck; only then may a process lose a lease.

    Attributes:
        everything: whether any process may lose a lease at any time.
    """

    everything: bool = False
    _of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Times of faults (begin, end), by process; "": all processes."""

    def strike(self, begin_s: float, end_s: float, *names: str) -> None:
        """Record a fault between two times that struck the named processes; no name: all."""
        for name in names or ("",):
            self._of.setdefault(name, []).append((begin_s, end_s))

    def cover(self, name: str, begin_s: float, end_s: float) -> bool:
        """Whether a fault struck a process at any moment between two times."""
        struck = [*self._of.get(name, ()), *self._of.get("", ())]
        return self.everything or any(begin <= end_s and begin_s <= end for begin, end in struck)


@dataclass(slots=True)
class InvariantWatch:
    """Checks the invariants of one experiment.

    Attributes:
        experiment: the experiment.
        checkpoints: the checkpoints that exist, by name.
        excuses: when faults struck.
        lost_ms: when the store last lost data; only older trials may be missing.
        book: what was seen so far.
        causes: number of attempts that ended without a result, by cause.
        least, most: bounds of the number of slots.
    """

    experiment: Experiment
    checkpoints: Mapping[str, Any]
    excuses: Excuses = field(default_factory=Excuses)
    lost_ms: float = -math.inf
    book: Book = field(default_factory=Book)
    causes: Counter[str] = field(default_factory=Counter)
    least: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        core = settings(self.experiment)
        self.least = min(core.elasticity.min_slots, core.n_slots)
        self.most = max(core.elasticity.max_slots, core.n_slots)

    def must(self, holds: bool, what: str) -> None:  # noqa: FBT001
        """Raise a `Violation` with the text `what` if `holds` is false."""
        if not holds:
            raise Violation(what)

    def committed(
        self, commit: Commit, meta: Mapping[str, str], slots: Mapping[int, Mapping[str, str]]
    ) -> list[Line]:
        """Check a commit and the population that is stored after it.

        Returns:
            The lines of history in the commit.

        Raises:
            Violation: an invariant does not hold.
        """
        lines = [_line(text) for text in commit.history]
        for line in lines:
            self._line(line)
        if commit.meta or commit.slots:
            self._changed({index: slots[index] for index in commit.slots})
            self._counts(meta)
            self._best(meta.get("best", ""))
        return lines

    def _changed(self, slots: Mapping[int, Mapping[str, str]]) -> None:
        for index, row in slots.items():
            parent = row["partial"] or row["checkpoint"]
            queued = row["status"] == "queued"
            self.book.queue(index, parent if queued else None)
            self.book.since_ms[index] = int(row["since_ms"])
            if not queued:
                continue
            if parent and parent not in self.checkpoints:
                raise Violation(
                    f"trial {row['trial']} continues from {parent}, which does not exist"
                )
            live = from_json(row["live"])
            if not 1 <= len(live) <= 2:  # noqa: PLR2004
                raise Violation(f"trial {row['trial']} has the live attempts {live}")

    def _counts(self, meta: Mapping[str, str]) -> None:
        counts = [int(meta[name]) for name in ("created", "reported", "failed", "discarded")]
        created, reported, failed, discarded = counts
        live = len(self.book.parents)
        if created != reported + failed + discarded + live:
            raise Violation(
                f"created is not reported + failed + discarded + live: {counts}, {live} live"
            )
        if (created, reported) != (self.book.decided, self.book.accepted):
            raise Violation(f"the counts differ from history: {counts}")
        slots = int(meta["slots"])
        if slots and not self.least <= slots <= self.most:
            raise Violation(f"{slots} slots, not {self.least} to {self.most}")

    def _best(self, text: str) -> None:
        book = self.book
        if text != book.best_text:
            best = from_json(text)
            loss = best[self.experiment.metric]
            loss = -loss if self.experiment.direction == "maximize" else loss
            self.must(loss <= book.best, "the best loss was lost")
            book.best, book.best_text = loss, text
            book.best_checkpoint = best["checkpoint"]
        if text and book.best_checkpoint not in self.checkpoints:
            raise Violation("the best checkpoint does not exist")

    def _line(self, line: Line) -> None:
        match line:
            case TrialCreated():
                self._created(line)
            case TrialReported():
                self._reported(line)
            case TrialFailed() | TrialReleased():
                self._ended(line)

    def _created(self, line: TrialCreated) -> None:
        book, parent = self.book, line.parent
        if book.end(line.slot, line.step):
            raise Violation(f"trial {line.trial} was decided twice")
        if parent is not None:
            slot, _, step = parent.partition("-")
            if book.end(int(slot), int(step)) != _ACCEPTED:
                raise Violation(
                    f"trial {line.trial} has the parent {parent}, which never ended well"
                )
        book.mark(line.slot, line.step, _DECIDED)
        book.decided += 1

    def _reported(self, line: TrialReported) -> None:
        book, end = self.book, self.book.end(line.slot, line.step)
        if end == _ACCEPTED:
            raise Violation(f"two results of trial {line.trial} were accepted")
        if not end:
            raise Violation(f"a result of trial {line.trial}, which was never decided")
        book.mark(line.slot, line.step, _ACCEPTED)
        book.accepted += 1

    def _ended(self, line: TrialFailed | TrialReleased) -> None:
        """Check an attempt that ended without a result."""
        book, trial, reason = self.book, line.trial, line.reason
        if isinstance(line, TrialFailed) and not line.again:
            end = book.end(line.slot, line.step)
            self.must(end != _GIVEN_UP, f"trial {trial} was given up twice")
            book.mark(line.slot, line.step, _GIVEN_UP)
        self.causes[reason] += 1
        if reason == "missing":
            began_ms = book.since_ms.get(int(trial.partition("-")[0]), 0)
            self.must(began_ms <= self.lost_ms, f"trial {trial} was in no queue")
        self.must(
            reason not in ("lost_parent", "bad_result"), f"trial {trial}: {reason}: {line.message}"
        )

    def swept(self, holder: str, trial: str, touched_ms: int, now_ms: int) -> None:
        """Check the end of a lease that got no heartbeat.

        Args:
            holder: name of the worker that held it.
            trial: id of the trial.
            touched_ms: time of the last heartbeat.
            now_ms: time at which the lease was ended.
        """
        self.must(
            # Times are whole milliseconds, so the last one is included completely.
            self.excuses.cover(holder, touched_ms / 1000, (now_ms + 1) / 1000),
            f"{holder} lost trial {trial}, and nothing had been done to it",
        )

    def trained(self, trial: str, start: float, done: float) -> None:
        """Check the checkpoint that a trial continues from."""
        self.must(
            abs(start - done) < 1e-9,  # noqa: PLR2004
            f"trial {trial} starts at {start:g} from a checkpoint that stands at {done:g}",
        )

    def removed(self, checkpoint: str) -> None:
        """Check the removal of a checkpoint."""
        self.must(
            checkpoint not in self.book.needed,
            f"checkpoint {checkpoint} was removed, and a queued trial continues from it",
        )
        self.must(checkpoint != self.book.best_checkpoint, "the best checkpoint was removed")

    def ended(self, status: str, depths: Mapping[str, int]) -> None:
        """Check the state at the end, when no more faults strike."""
        self.must(status == "finished", f"the faults are over, and the run is {status!r}")
        lost = [
            f"{slot}-{step}"
            for slot, steps in self.book.ends.items()
            for step, end in enumerate(steps)
            if end == _DECIDED
        ]
        self.must(not lost, f"decided and never ended: {lost[:5]}")
        for queue in ("inbox", "trials"):
            self.must(depths[queue] == 0, f"{depths[queue]} entries are left in {queue}")


def _line(text: str) -> Line:
    """The line of a stored text; parsed only if the text does not carry the line already."""
    return text.line if isinstance(text, LineText) else history.from_json(from_json(text))
