"""Experiments and slots as rows: of JSON values for programs, of tables for people."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from romul_actors.cli.printing import NARROW, Table, shortened
from romul_actors.protocol.experiment import Experiment

JSON_FIELDS = ("latest", "hyperparameters", "vector", "memory", "outcomes", "live")
NUMBER_FIELDS = ("step", "attempt", "failures", "losses", "since_ms", "seed", "joined", "parking")


def progress(meta: Mapping[str, str], experiment: Experiment) -> dict[str, Any]:
    """An experiment in one row, as JSON values."""
    best = from_json(meta["best"]) if meta.get("best") else {}
    # With more slots than at the start there is more to do.
    total = max(experiment.n_trials, int(meta.get("created", 0)))
    ended = int(meta.get("reported", 0)) + int(meta.get("failed", 0))
    return {
        "name": experiment.name,
        "status": meta["status"],
        "reason": meta.get("reason", ""),
        "population": experiment.population,
        "trials": ended,
        "trials_total": total,
        "failed": int(meta.get("failed", 0)),
        "retried": int(meta.get("retried", 0)),
        "causes": from_json(meta.get("causes") or "{}"),
        "metric": experiment.metric,
        "best": best.get(experiment.metric),
        "best_trial": best.get("trial"),
    }


def unreadable(name: str, status: str, why: str) -> dict[str, Any]:
    """Row of an experiment whose declaration cannot be read."""
    counts = {"trials": 0, "trials_total": 0, "failed": 0, "retried": 0, "workers": 0, "dead": 0}
    row = {"name": name, "status": status, "reason": why, "population": 0, "causes": {}}
    return {**row, **counts, "metric": "", "best": None, "best_trial": None}


def readable(row: Mapping[str, str]) -> dict[str, Any]:
    """A slot's fields as JSON values."""
    values: dict[str, Any] = dict(row)
    for field in JSON_FIELDS:
        values[field] = from_json(row[field]) if row.get(field) else None
    for field in NUMBER_FIELDS:
        values[field] = int(row[field])
    values |= {field: float(row[field]) for field in ("seconds", "position")}
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
