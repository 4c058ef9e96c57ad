"""Trials in other programs' formats: TensorBoard's event files, and MLflow's runs.

One run for each slot. Hyperparameters change from step to step, so they are metrics there, not
parameters; nothing is rescaled. A choice is told by its place in the list of choices.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from romul_actors.errors import RomulError
from romul_actors.observe.snapshot import trial_rows
from romul_actors.protocol.experiment import Experiment, FloatSpec, IntSpec


class ExportError(RomulError):
    """The other program does not take what it is given."""


BATCH = 500
"""Metrics in one call to MLflow, which takes 1,000."""


def points(
    experiment: Experiment, lines: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, int, int, dict[str, float]]]:
    """(slot, step, ms since the epoch, figures by name) of every trial that ended well."""
    choices = {
        name: list(getattr(spec, "choices", (False, True)))
        for name, spec in experiment.space.items()
        if not isinstance(spec, FloatSpec | IntSpec)
    }
    for row in trial_rows(lines):
        if row["value"] is None:
            continue
        told = {
            experiment.metric: float(row["value"]),
            "seconds": float(row["seconds"]),
            "attempt": float(row["attempt"]),
        }
        for key, value in row.items():
            name = key[2:]
            if key.startswith("m."):
                told[name] = float(value)
            elif key.startswith("h."):
                place = choices[name].index(value) if name in choices else value
                told[f"hyperparameters/{name}"] = float(place)
        yield row["slot"], row["step"], row["ended_ms"], told


def to_tensorboard(experiment: Experiment, lines: Sequence[Mapping[str, Any]], folder: Path) -> int:
    """Write event files, a folder for each slot; the number of trials.

    Raises:
        ImportError: tensorboard is not installed.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415

    writers: dict[int, Any] = {}
    n = 0
    for slot, step, at_ms, told in points(experiment, lines):
        if slot not in writers:
            writers[slot] = EventFileWriter(str(folder / f"slot-{slot}"))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in told.items()]
        event = Event(wall_time=at_ms / 1000, step=step, summary=Summary(value=values))
        writers[slot].add_event(event)
        n += 1
    for writer in writers.values():
        writer.close()
    return n


def to_mlflow(experiment: Experiment, lines: Sequence[Mapping[str, Any]], uri: str) -> int:
    """Log runs of an MLflow experiment of the same name, one for each slot; the number of trials.

    Raises:
        ImportError: mlflow is not installed.
        ExportError: MLflow refuses.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return _log_to_mlflow(experiment, lines, uri)
    except MlflowException as error:
        raise ExportError(f"{uri}: {error}") from None


def _log_to_mlflow(experiment: Experiment, lines: Sequence[Mapping[str, Any]], uri: str) -> int:
    from mlflow.entities import Metric  # noqa: PLC0415
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment.name)
    place = client.create_experiment(experiment.name) if found is None else found.experiment_id
    metrics: dict[int, list[Any]] = {}
    n = 0
    for slot, step, at_ms, told in points(experiment, lines):
        metrics.setdefault(slot, []).extend(
            Metric(tag, value, at_ms, step) for tag, value in told.items()
        )
        n += 1
    for slot, logged in sorted(metrics.items()):
        run = client.create_run(place, run_name=f"slot-{slot}", tags={"romul.slot": str(slot)})
        for start in range(0, len(logged), BATCH):
            client.log_batch(run.info.run_id, metrics=logged[start : start + BATCH])
        client.set_terminated(run.info.run_id)
    return n
