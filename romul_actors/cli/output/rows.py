"""Experiments, slots and workers as rows: of JSON values for programs, of tables for people."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from romul_actors.cli.output.printing import NARROW, Table, shortened
from romul_actors.observe.snapshot import Snapshot, WorkerSnapshot
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.stored_fields import StoredFields

InHand = Mapping[str, str]
TABLES = ("hyperparameters", "memory", "outcomes")
FIGURE = 9
"""Usual width of a column of figures; longer headings are split over lines."""
COUNTS = ("step", "attempt", "failures", "losses", "since_ms", "seed", "joined", "parking")


def progress(seen: Snapshot) -> dict[str, Any]:
    """An experiment as one row of JSON values."""
    return {
        "name": seen.experiment.name,
        "status": seen.status,
        "reason": seen.reason,
        "population": seen.experiment.population,
        "trials": seen.ended,
        "trials_total": seen.total,
        "failed": seen.counts["failed"],
        "retried": seen.counts["retried"],
        "causes": seen.causes,
        "metric": seen.experiment.metric,
        "best": seen.best.get(seen.experiment.metric),
        "best_trial": seen.best.get("trial"),
    }


def best_in_words(row: Mapping[str, Any]) -> str:
    """The best trial of an experiment, as `progress` returns it, in words; "" if there is none."""
    if row["best"] is None:
        return ""
    return f"{shortened(row['metric'])} {row['best']:.6g} ({row['best_trial']})"


def unreadable(name: str, status: str, why: str) -> dict[str, Any]:
    """Row of an experiment whose declaration cannot be read."""
    counts = {"trials": 0, "trials_total": 0, "failed": 0, "retried": 0, "workers": 0, "dead": 0}
    row = {"name": name, "status": status, "reason": why, "population": 0, "causes": {}}
    return {**row, **counts, "alarms": [], "metric": "", "best": None, "best_trial": None}


def counted(counts: Mapping[str, int]) -> str:
    """Counts in words, in the order of their names."""
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def lost(row: Mapping[str, Any], command: str | None = None) -> str:
    """The attempts that an experiment lost, and the command that shows why; "" if it lost none.

    Args:
        row: as `progress` returns it.
        command: the command; None for `romul failures` without options.
    """
    name, causes = row["name"], counted(row["causes"])
    shows = command or f"romul failures {name}"
    return causes and f"{name}: attempts lost: {causes} (`{shows}` shows why)"


def worker_row(worker: WorkerSnapshot, lease_s: float) -> dict[str, Any]:
    """A worker as JSON values."""
    return {
        "worker": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "state": worker.state,
        "trial": worker.trial,
        "storing": worker.storing,
        "at": worker.at,
        "age_s": None if worker.age_s is None else round(worker.age_s, 3),
        "alive": worker.alive_within(lease_s),
        **({"why": worker.why} if worker.why else {}),
    }


def readable(name: str, index: int, row: Mapping[str, str]) -> dict[str, Any]:
    """A slot's fields as JSON values.

    Raises:
        StoredDataError: a field holds a value that ROMUL never writes.
    """
    fields = StoredFields.of_slot(name, index, row)
    values: dict[str, Any] = dict(row)
    values |= {field: fields.table(field) for field in TABLES}
    values |= {field: fields.count(field) for field in COUNTS}
    values |= {field: fields.number(field) for field in ("seconds", "position")}
    values["live"] = list(fields.whole_numbers("live"))
    values["vector"] = list(fields.vector("vector"))
    values["latest"] = fields.table("latest", "{}") or None
    return values


def figure(value: Any) -> str:
    """A value as text for a table."""
    if isinstance(value, list):
        return f"[{', '.join(map(figure, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _Column:
    """A column of the population's table; a heading may have several lines."""

    heading: str
    cells: Sequence[str]
    left: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (*self.heading.split("\n"), *self.cells))


def slots_tables(
    slots: Sequence[Mapping[str, Any]], experiment: Experiment, width: int, in_hand: InHand
) -> list[Table]:
    """The population, with a row for each slot.

    Args:
        slots: as `readable` returns them.
        experiment: its declaration.
        width: maximum width of each table in characters, unless its first columns are wider.
        in_hand: what live workers do with their trials, as `Snapshot.in_hand`.

    Returns:
        The first table has the hyperparameters that fit beside the other columns, in the order of
        the declaration; each further table has some of the others.
    """
    index = _Column("slot", [str(i) for i in range(len(slots))])
    blocks = [
        [
            index,
            _Column("status", [_status(slot, in_hand) for slot in slots], left=True),
            _Column("step", [f"{_ended(slot)}/{experiment.steps}" for slot in slots]),
            _Column(
                _heading(experiment.metric), [_latest(slot, experiment.metric) for slot in slots]
            ),
            _Column("parent", [slot["parent"] for slot in slots], left=True),
        ]
    ]
    for name in experiment.space:
        cells = [_short(slot["hyperparameters"].get(name, "")) for slot in slots]
        column = _Column(_heading(name), cells)
        block = blocks[-1]
        # Two spaces stand between columns, and one at each end.
        if sum(c.width + 2 for c in (*block, column)) > width and block != [index]:
            blocks.append(block := [index])
        block.append(column)
    return [_table(block) for block in blocks]


def _table(columns: Sequence[_Column]) -> Table:
    table = Table()
    for column in columns:
        heading = Text(column.heading)
        table.add_column(heading, justify="left" if column.left else "right", no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def _heading(name: str) -> str:
    """A name, split over lines so that a column of figures stays narrow."""
    lines = [""]
    for part in re.findall(r"[^_.\s-]+[_.\s-]*|[_.\s-]+", shortened(name)):
        if lines[-1] and cell_len(lines[-1] + part) > FIGURE:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _ended(slot: Mapping[str, Any]) -> int:
    """Number of steps that a slot has ended."""
    return int(slot["step"]) + int(slot["status"] == "done")


def _status(slot: Mapping[str, Any], in_hand: InHand) -> str:
    status = in_hand.get(slot["trial"], slot["status"])
    pinned = ", pinned" if slot["pinned"] == "1" else ""
    again = f" (attempt {slot['attempt']})" if slot["attempt"] > 1 else ""
    return f"{status}{pinned}{again}"


def _latest(slot: Mapping[str, Any], metric: str) -> str:
    """Metric of a slot's latest trial that has ended."""
    latest = slot["latest"] or {}
    value = latest.get(metric)
    return "" if not latest else "failed" if value is None else figure(value)


def _short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else figure(value)
    return shortened(text, NARROW)
