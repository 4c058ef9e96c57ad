"""`romul export`: all trials as files, for TensorBoard or for MLflow."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors.cli.options.shared import Name, SearchUrl
from romul_actors.cli.output.printing import echo
from romul_actors.cli.servers.connection import snapshot_of
from romul_actors.core.history import to_json
from romul_actors.observe.export import to_mlflow, to_tensorboard
from romul_actors.observe.snapshot import Snapshot
from romul_actors.observe.trial_records import trial_rows
from romul_actors.store.redis.urls import hide_password


def export(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Output file: .parquet, .csv or .jsonl.", dir_okay=False),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard event files.", file_okay=False)
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Tracking URI of an MLflow server or store.")
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Export all trials to a file, to TensorBoard or to MLflow.

    A .parquet or .csv file has a row for each trial, with hyperparameters as h.NAME and metrics as
    m.NAME, in their own units. A .jsonl file has all lines of the history instead. In TensorBoard
    and MLflow, each slot is a run, and hyperparameters are metrics by step.
    """
    if to is None and tensorboard is None and mlflow is None:
        raise typer.BadParameter("give --to, --tensorboard or --mlflow")
    seen = snapshot_of(name, redis)
    if to is not None:
        _write(seen, to)
    try:
        if tensorboard is not None:
            n = to_tensorboard(seen.experiment, seen.history, tensorboard)
            echo(f"{tensorboard}: {n} trials")
        if mlflow is not None:
            n = to_mlflow(seen.experiment, seen.history, mlflow)
            echo(f"{hide_password(mlflow)}: {n} trials")
    except ImportError as error:
        raise typer.BadParameter(f"{error}: pip install 'romul[metrics]'") from None


def _write(seen: Snapshot, to: Path) -> None:
    if to.suffix == ".jsonl":
        to.write_text("".join(json.dumps(to_json(line)) + "\n" for line in seen.history))
        echo(f"{to}: {len(seen.history)} lines of history")
        return
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(to.suffix)
    if write is None:
        raise typer.BadParameter(f"{to}: the file must end in .parquet, .csv or .jsonl")
    rows = _in_cells(trial_rows(seen.history, seen.experiment.search_space()))
    write(rows, to)
    echo(f"{to}: {len(rows)} trials")


def _in_cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the same columns, each of one type: mixed, list and dict values are JSON text."""
    types: dict[str, set[type]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith("h."):
                types.setdefault(key, set()).add(type(value))
    texts = {key for key, found in types.items() if len(found) > 1 or found & {list, dict}}
    columns = dict.fromkeys(key for row in rows for key in row)
    return [
        {key: json.dumps(row[key]) if key in texts & set(row) else row.get(key) for key in columns}
        for row in rows
    ]


def _write_csv(rows: Sequence[Mapping[str, Any]], to: Path) -> None:
    with to.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0] if rows else ())
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(rows: Sequence[Mapping[str, Any]], to: Path) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise typer.BadParameter("parquet needs pyarrow: pip install 'romul[frames]'") from None
    pq.write_table(pa.Table.from_pylist(rows), to)
