"""The live view of a local run: a table on a terminal, else a line for each change."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from romul_actors.cli.output.printing import Console, Table, shortened
from romul_actors.cli.output.rows import figure, progress, readable, slots_tables
from romul_actors.local.run_file import request
from romul_actors.observe.judge import Judge
from romul_actors.observe.snapshot import Snapshot, read_glance
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.statuses import ENDED
from romul_actors.store import Store

LINE_S = 5.0
"""Minimum time between lines if there is no terminal."""
LINES = 1_000
"""Lines of history read at a time."""


@dataclass(slots=True)
class _Followed:
    """How far the history of an experiment has been read."""

    after: str
    judge: Judge


class _Remaining(TimeRemainingColumn):
    """The remaining time; empty while an experiment is paused."""

    def render(self, task: Task) -> Text:
        return Text() if task.fields["note"] else super().render(task)


class LiveView:
    """Bars of all experiments and the first one's slots, drawn while the context is open.

    Args:
        store: holds the experiments.
        experiments: the experiments, with the number of steps that was requested.
        console: the console to draw on.
        folder: the run's folder.
        server: the server that the run was given; None if it has its own, so that only its own
            actor serves the experiments.
        resumed: whether the run continues after an interruption or a failure.

    Attributes:
        verdicts: by name of each experiment that need not continue, why: its task is wrong, or none
            of the run's own workers can serve it.
    """

    def __init__(
        self,
        store: Store,
        experiments: Sequence[Experiment],
        console: Console,
        folder: Path,
        server: str | None = None,
        *,
        resumed: bool,
    ) -> None:
        self.verdicts: dict[str, str] = {}
        self._store = store
        self._experiments = experiments
        self._console = console
        self._folder = folder
        self._server = server
        # In a continued run, only new lines count.
        self._followed = (
            {} if resumed else {e.name: _Followed("0", Judge(e.population)) for e in experiments}
        )
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[best]}", markup=False),
            TimeElapsedColumn(),
            _Remaining(),
        )
        self._tasks = {
            e.name: self._bars.add_task(e.name, total=e.n_trials, best="", note="")
            for e in experiments
        }
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._printed_s = time.monotonic()
        self._printed = ""
        self._notes = [""] * len(experiments)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    async def refresh(self) -> bool:
        """Read and draw the present state; True once all have ended or cannot be served."""
        rows, first, decided = [], Table(), True
        for index, experiment in enumerate(self._experiments):
            seen = await self._seen(experiment.name)
            row = progress(seen)
            row["note"] = self._note(seen)
            rows.append(row)
            # An ended experiment continues once the actor has decided a request for more steps.
            decided = decided and seen.experiment.steps >= experiment.steps
            # Until the request to resume is decided, "failed" is the status of the earlier run.
            waits = seen.status == "failed" and seen.depths["inbox"] and not seen.fault
            # An experiment that the only actor cannot serve does not end by itself.
            cannot = self._server is None and bool(seen.fault)
            row["ended"] = (seen.status in ENDED and not waits) or cannot
            best = "" if row["best"] is None else _best(row)
            self._bars.update(
                self._tasks[experiment.name],
                completed=row["trials"],
                total=row["trials_total"],
                best=best,
                note=row["note"],
            )
            if index == 0 and self._console.is_terminal:
                slots = (await self._store.load(experiment.name)).slots
                first = slots_tables(
                    [readable(experiment.name, i, slot) for i, slot in enumerate(slots)],
                    seen.experiment,
                    self._console.width,
                    seen.in_hand,
                )[0]
        if self._console.is_terminal:
            notes = [f"{row['name']}: {row['note']}" for row in rows if row["note"]]
            self._live.update(Group(self._bars, *notes, first), refresh=True)
        else:
            self._print(rows)
        if self.verdicts:
            return True
        return decided and all(row["ended"] for row in rows)

    async def _seen(self, name: str) -> Snapshot:
        """Read an experiment, and judge what is new in its history."""
        followed = self._followed.get(name)
        if followed is None:
            seen = read_glance(await self._store.glance(name, count=1), name)
            succeeded = seen.counts["reported"] > 0
            judge = Judge(seen.experiment.population, succeeded=succeeded)
            self._followed[name] = _Followed(seen.last_id or "0", judge)
            return seen
        glance = await self._store.glance(name, after=followed.after, count=LINES)
        seen = read_glance(glance, name)
        followed.after = seen.last_id or followed.after
        for line in seen.history:
            if why := followed.judge.take(line):
                self.verdicts.setdefault(name, why)
        if self._server is None and seen.refused:
            self.verdicts.setdefault(name, seen.refused)
        return seen

    def _note(self, seen: Snapshot) -> str:
        """Why an experiment that has not ended does not continue; "" if it does."""
        if seen.status != "paused":
            return seen.fault or seen.refused
        name = seen.experiment.name
        again = request("resume", name, self._folder, self._server)
        return f"{seen.reason or seen.status}: `{again}` continues it"

    def _print(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print a line if it differs from the last one; a changed note is printed at once."""
        text = "; ".join(
            f"{row['name']} {row['trials']}/{row['trials_total']}"
            + ("" if row["best"] is None else f", {_best(row)}")
            + (f", {row['note']}" if row["note"] else "")
            for row in rows
        )
        notes = [row["note"] for row in rows]
        due = notes != self._notes or time.monotonic() - self._printed_s >= LINE_S
        if due and text != self._printed:
            self._printed_s, self._printed, self._notes = time.monotonic(), text, notes
            self._console.print(text, soft_wrap=True)


def _best(row: Mapping[str, Any]) -> str:
    return f"best {shortened(row['metric'])} {figure(row['best'])}"
