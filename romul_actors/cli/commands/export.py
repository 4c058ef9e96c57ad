"""`romul export`: all trials as files, for TensorBoard or for MLflow."""

from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.options.shared import Name, SearchUrl
from romul_actors.cli.output.printing import echo
from romul_actors.cli.servers.connection import snapshot_of
from romul_actors.observe.export import to_csv, to_jsonl, to_mlflow, to_parquet, to_tensorboard
from romul_actors.observe.snapshot import Snapshot
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
    write = {".csv": to_csv, ".parquet": to_parquet, ".jsonl": to_jsonl}.get(to.suffix)
    if write is None:
        raise typer.BadParameter(f"{to}: the file must end in .parquet, .csv or .jsonl")
    try:
        n = write(seen.experiment, seen.history, to)
    except ImportError:
        raise typer.BadParameter("parquet needs pyarrow: pip install 'romul[frames]'") from None
    echo(f"{to}: {n} {'lines of history' if write is to_jsonl else 'trials'}")
