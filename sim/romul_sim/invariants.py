"""What must hold after every event, whatever breaks (docs/simulation.md lists it).

The watch looks at a store from inside: at each commit, before anybody can act on it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.experiment import Experiment
from romul_actors.plan import settings
from romul_actors.records import read
from romul_actors.state import Population
from romul_actors.store import Commit


class Violation(Exception):  # noqa: N818  (what a simulation is looking for)
    """Something that must never happen, happened."""


@dataclass(slots=True)
class Book:
    """What was seen so far; goes back in time with the store that it watches."""

    decided: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    best: float = float("inf")

    def copy(self) -> "Book":
        """A copy that does not change with this one."""
        return Book(set(self.decided), set(self.accepted), set(self.given_up), self.best)


@dataclass(slots=True)
class Watch:
    """Checks one experiment.

    Attributes:
        experiment: what is watched.
        checkpoints: those that exist.
        excused: workers that something was done to: only these may lose a trial.
        rolled_back: whether the store has lost writes: only then may a trial be missing.
    """

    experiment: Experiment
    checkpoints: Mapping[str, Any]
    excused: set[str] = field(default_factory=set)
    rolled_back: bool = False
    book: Book = field(default_factory=Book)
    causes: Counter[str] = field(default_factory=Counter)
    population: Population | None = None

    def must(self, holds: bool, what: str) -> None:  # noqa: FBT001
        """Stop the simulation if something does not hold."""
        if not holds:
            raise Violation(what)

    def committed(
        self, commit: Commit, meta: Mapping[str, str], slots: Sequence[Mapping[str, str]]
    ) -> None:
        """Look at a commit and at the population after it."""
        for line in map(json.loads, commit.history):
            self._line(line)
        if not commit.meta:
            return
        core = settings(self.experiment)
        population = read(core, self.experiment.metric, meta, slots)
        self.population = population
        counts = population.counts
        live = sum(slot.status == "queued" for slot in population.slots)
        self.must(
            counts.created == counts.reported + counts.failed + counts.discarded + live,
            f"created is not reported + failed + discarded + live: {counts}, {live} live",
        )
        self.must(
            counts.created == len(self.book.decided) and counts.reported == len(self.book.accepted),
            f"the counts differ from history: {counts}",
        )
        elastic = core.elasticity
        most = max(elastic.max_slots, core.n_slots)
        self.must(len(population.slots) <= most, f"{len(population.slots)} slots of {most}")
        for slot in population.slots:
            parent = slot.partial or slot.checkpoint
            if slot.status == "queued" and parent is not None:
                self.must(
                    parent in self.checkpoints,
                    f"trial {slot.trial} continues from {parent}, which does not exist",
                )
            self.must(
                slot.status != "queued" or 1 <= len(slot.live) <= 2,  # noqa: PLR2004
                f"trial {slot.trial} has the live attempts {slot.live}",
            )
        best = population.best
        if best is not None:
            self.must(best.loss <= self.book.best, "the best loss was lost")
            self.book.best = best.loss
            self.must(best.checkpoint in self.checkpoints, "the best checkpoint does not exist")

    def _line(self, line: Mapping[str, Any]) -> None:
        book, event, trial = self.book, line["event"], line.get("trial")
        if event == "trial":
            self.must(trial not in book.decided, f"trial {trial} was decided twice")
            parent = line["parent"]
            self.must(
                parent is None or parent in book.accepted,
                f"trial {trial} has the parent {parent}, which never ended well",
            )
            book.decided.add(str(trial))
        elif event == "result":
            self.must(trial not in book.accepted, f"two results of trial {trial} were accepted")
            self.must(trial in book.decided, f"a result of trial {trial}, which nobody decided")
            book.accepted.add(str(trial))
        elif event == "failed" and not line["again"]:
            self.must(trial not in book.given_up, f"trial {trial} was given up twice")
            book.given_up.add(str(trial))
        if event in ("failed", "released"):
            self.causes[line["reason"]] += 1
            if line["reason"] == "lost":
                self.must(
                    line["worker"] in self.excused,
                    f"{line['worker']} lost trial {trial}, and nothing had been done to it",
                )
            if line["reason"] == "missing":
                self.must(self.rolled_back, f"trial {trial} was in no queue")
            self.must(
                line["reason"] not in ("lost_parent", "bad_result"),
                f"trial {trial}: {line['reason']}: {line.get('message')}",
            )

    def trained(self, trial: str, start: float, done: float) -> None:
        """Look at a checkpoint that a trial continues from."""
        self.must(
            abs(start - done) < 1e-9,  # noqa: PLR2004
            f"trial {trial} starts at {start:g} from a checkpoint that stands at {done:g}",
        )

    def ended(self, status: str, depths: Mapping[str, int]) -> None:
        """Look at what is left when the faults are over and the time is up."""
        self.must(status == "finished", f"the faults are over, and the run is {status!r}")
        lost = self.book.decided - self.book.accepted - self.book.given_up
        self.must(not lost, f"decided and never ended: {sorted(lost)[:5]}")
        for queue in ("inbox", "trials"):
            self.must(depths[queue] == 0, f"{depths[queue]} entries are left in {queue}")
