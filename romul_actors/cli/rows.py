"""Experiments and slots as rows: of JSON values for programs, of tables for people."""

from collections.abc import Mapping
from typing import Any

from romul_actors.cli.printing import NARROW, Table, shortened
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import left_out
from romul_actors.protocol.stored_fields import StoredFields

TABLES = ("hyperparameters", "memory", "outcomes")
COUNTS = ("step", "attempt", "failures", "losses", "since_ms", "seed", "joined", "parking")


def progress(meta: Mapping[str, str], experiment: Experiment) -> dict[str, Any]:
    """An experiment in one row, as JSON values.

    Raises:
        StoredDataError: a field of its hash holds what ROMUL never writes.
    """
    own = StoredFields.of_experiment(experiment.name, meta)
    best = own.best(experiment.metric)
    failed = own.count("failed", "0")
    return {
        "name": experiment.name,
        "status": own.text("status"),
        "reason": own.reason(*left_out(experiment, own.text("status"))),
        "population": experiment.population,
        "trials": own.count("reported", "0") + failed,
        # With more slots than at the start there is more to do.
        "trials_total": max(experiment.n_trials, own.count("created", "0")),
        "failed": failed,
        "retried": own.count("retried", "0"),
        "causes": own.counts("causes"),
        "metric": experiment.metric,
        "best": best.get(experiment.metric),
        "best_trial": best.get("trial"),
    }


def unreadable(name: str, status: str, why: str) -> dict[str, Any]:
    """Row of an experiment whose declaration cannot be read."""
    counts = {"trials": 0, "trials_total": 0, "failed": 0, "retried": 0, "workers": 0, "dead": 0}
    row = {"name": name, "status": status, "reason": why, "population": 0, "causes": {}}
    return {**row, **counts, "metric": "", "best": None, "best_trial": None}


def readable(name: str, index: int, row: Mapping[str, str]) -> dict[str, Any]:
    """A slot's fields as JSON values.

    Raises:
        StoredDataError: one holds what ROMUL never writes.
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
    """A value as it stands in a table."""
    if isinstance(value, list):
        return f"[{', '.join(map(figure, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def slots_table(slots: list[dict[str, Any]], experiment: Experiment) -> Table:
    """The population, a row a slot."""
    table = Table()
    for column in ("slot", "status", "step", experiment.metric, "parent", *experiment.space):
        left = column in ("status", "parent")
        table.add_column(column, justify="left" if left else "right", max_width=NARROW)
    for index, slot in enumerate(slots):
        latest = slot["latest"] or {}
        value, values = latest.get(experiment.metric), slot["hyperparameters"]
        shown = slot["status"] + (f" (attempt {slot['attempt']})" if slot["attempt"] > 1 else "")
        table.add_row(
            str(index),
            shown,
            f"{slot['step'] + (slot['status'] == 'done')}/{experiment.steps}",
            "" if not latest else "failed" if value is None else figure(value),
            slot["parent"],
            *(
                shortened(figure(values[name])) if name in values else ""
                for name in experiment.space
            ),
        )
    return table
