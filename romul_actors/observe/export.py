"""Exports: history as JSON lines; trials as CSV and Parquet, and for TensorBoard and MLflow.

In TensorBoard and MLflow, each slot is a run. Hyperparameters change from step to step, so they are
metrics there, not parameters. Nothing is rescaled. A choice is written as its index in the list of
choices, and a list of values as NAME[0], NAME[1] and so on. Hyperparameters that are inactive in a
trial are left out.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romul_actors.core.history import Line, to_json
from romul_actors.errors import RomulError
from romul_actors.observe.trial_records import trial_rows, trials
from romul_actors.protocol.experiment import Experiment
from romul_actors.store.redis.urls import hide_password


class ExportError(RomulError):
    """The other program refuses the data."""


BATCH = 500
"""Metrics per call to MLflow, which accepts up to 1,000."""


def to_jsonl(_: Experiment, lines: Sequence[Line], file: Path) -> int:
    """Write all lines of history, one a line of the file; returns their number."""
    file.write_text("".join(json.dumps(to_json(line)) + "\n" for line in lines))
    return len(lines)


def to_csv(experiment: Experiment, lines: Sequence[Line], file: Path) -> int:
    """Write a row for each trial, as `trial_rows` makes it; returns the number of trials."""
    rows = _table(experiment, lines)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0] if rows else ())
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def to_parquet(experiment: Experiment, lines: Sequence[Line], file: Path) -> int:
    """Write a row for each trial, as `trial_rows` makes it; returns the number of trials.

    Raises:
        ImportError: pyarrow is not installed.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows = _table(experiment, lines)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return len(rows)


def _table(experiment: Experiment, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Rows with the same columns, each of one type: mixed, list and dict values are JSON text."""
    rows = trial_rows(lines, experiment.search_space())
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


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of one trial that has a result.

    Attributes:
        slot, step: the trial.
        at_ms: time of its result, in milliseconds since the epoch.
        figures: by name.
    """

    slot: int
    step: int
    at_ms: int
    figures: Mapping[str, float]


def points(experiment: Experiment, lines: Sequence[Line]) -> Iterator[Point]:
    """The figures of every trial that has a result."""
    space = experiment.search_space()
    axes = {axis.name: axis for axis in space}
    for record in trials(lines).values():
        if record.value is None:
            continue
        values = space.by_axis(record.hyperparameters)
        figures = {
            experiment.metric: float(record.value),
            "seconds": float(record.seconds or 0.0),
            "attempt": float(record.attempt or 0),
            **{f"hyperparameters/{name}": axes[name].figure(x) for name, x in values.items()},
            **{name: float(value) for name, value in record.metrics.items()},
        }
        yield Point(record.slot, record.step, record.ended_ms or 0, figures)


def to_tensorboard(experiment: Experiment, lines: Sequence[Line], folder: Path) -> int:
    """Write event files, a folder for each slot; returns the number of trials.

    Raises:
        ImportError: tensorboard is not installed.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415

    writers: dict[int, Any] = {}
    n = 0
    for point in points(experiment, lines):
        slot = point.slot
        if slot not in writers:
            writers[slot] = EventFileWriter(str(folder / f"slot-{slot}"))
        values = [
            Summary.Value(tag=tag, simple_value=value) for tag, value in point.figures.items()
        ]
        wall_time, summary = point.at_ms / 1000, Summary(value=values)
        writers[slot].add_event(Event(wall_time=wall_time, step=point.step, summary=summary))
        n += 1
    for writer in writers.values():
        writer.close()
    return n


def to_mlflow(experiment: Experiment, lines: Sequence[Line], uri: str) -> int:
    """Log a run for each slot to an MLflow experiment of this name; returns the number of trials.

    Raises:
        ImportError: mlflow is not installed.
        ExportError: MLflow refuses the data.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return _log_to_mlflow(experiment, lines, uri)
    except MlflowException as error:
        # MLflow's message quotes the given address.
        shown = hide_password(uri)
        words = str(error).replace(uri.rstrip("/"), shown.rstrip("/"))
        raise ExportError(f"{shown}: {words}") from None


def _log_to_mlflow(experiment: Experiment, lines: Sequence[Line], uri: str) -> int:
    from mlflow.entities import Metric  # noqa: PLC0415
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment.name)
    place = client.create_experiment(experiment.name) if found is None else found.experiment_id
    metrics: dict[int, list[Any]] = {}
    origin = {
        record.slot: {f"romul.{name}": text for name, text in record.provenance.items()}
        for record in trials(lines).values()
        if record.value is not None
    }
    n = 0
    for point in points(experiment, lines):
        metrics.setdefault(point.slot, []).extend(
            Metric(tag, value, point.at_ms, point.step) for tag, value in point.figures.items()
        )
        n += 1
    for slot, logged in sorted(metrics.items()):
        tags = {"romul.slot": str(slot), **origin[slot]}
        run = client.create_run(place, run_name=f"slot-{slot}", tags=tags)
        for start in range(0, len(logged), BATCH):
            client.log_batch(run.info.run_id, metrics=logged[start : start + BATCH])
        client.set_terminated(run.info.run_id)
    return n
