"""The live view of a local run: a table on a terminal, else a line now and then."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from romul_actors.cli.printing import Console, Table, shortened
from romul_actors.cli.rows import figure, progress, readable, slots_tables
from romul_actors.observe.snapshot import read_glance
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.stored_fields import ENDED
from romul_actors.store import Store

LINE_S = 5.0
"""How often a line is printed where there is no terminal to draw on."""
FAILED_S = 5.0
"""For how long a resumed run's status "failed" may be that of the run before."""


class LiveView:
    """Bars of all experiments and the first one's slots, drawn while the context is open.

    Args:
        store: where the experiments are.
        experiments: the experiments, with as many steps as they have been asked to have.
        console: what is drawn on.
        resumed: whether the run goes on after an interruption or a failure.
        alone: whether no other actor than the run's own may serve the experiments.
    """

    def __init__(
        self,
        store: Store,
        experiments: Sequence[Experiment],
        console: Console,
        *,
        resumed: bool,
        alone: bool,
    ) -> None:
        self._store = store
        self._experiments = experiments
        self._console = console
        self._alone = alone
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[best]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._tasks = {
            e.name: self._bars.add_task(e.name, total=e.n_trials, best="") for e in experiments
        }
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._printed_s = time.monotonic()
        # A resumed run's status stays "failed" until the actor has decided the request to resume.
        self._believed_s = time.monotonic() + (FAILED_S if resumed else 0.0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    async def refresh(self) -> bool:
        """Read and draw the present state; True when all have ended, or cannot be served."""
        rows, first, decided = [], Table(), True
        for index, experiment in enumerate(self._experiments):
            seen = read_glance(await self._store.glance(experiment.name), experiment.name)
            row = progress(seen)
            rows.append(row)
            # What has ended goes on when the actor has decided a request for more steps.
            decided = decided and seen.experiment.steps >= experiment.steps
            # What the only actor cannot serve does not end by itself.
            row["ended"] = seen.status in ENDED or (self._alone and bool(seen.fault))
            best = "" if row["best"] is None else _best(row)
            self._bars.update(
                self._tasks[experiment.name],
                completed=row["trials"],
                total=row["trials_total"],
                best=best,
            )
            if index == 0 and self._console.is_terminal:
                slots = (await self._store.load(experiment.name)).slots
                first = slots_tables(
                    [readable(experiment.name, i, slot) for i, slot in enumerate(slots)],
                    seen.experiment,
                    self._console.width,
                )[0]
        if self._console.is_terminal:
            self._live.update(Group(self._bars, first), refresh=True)
        elif time.monotonic() - self._printed_s >= LINE_S:
            self._printed_s = time.monotonic()
            parts = (
                f"{row['name']} {row['trials']}/{row['trials_total']}"
                + ("" if row["best"] is None else f", {_best(row)}")
                for row in rows
            )
            self._console.print("; ".join(parts), soft_wrap=True)
        ended = all(row["ended"] for row in rows)
        failed = any(row["status"] == "failed" for row in rows)
        return ended and decided and not (failed and time.monotonic() < self._believed_s)


def _best(row: Mapping[str, Any]) -> str:
    return f"best {shortened(row['metric'])} {figure(row['best'])}"
