"""Hyperparameter schedules: the hyperparameters of a trial's line of descent, to train with again.

A schedule is a list of stretches of training, each with its hyperparameters. It is read from the
JSON that `romul schedule export` writes; it contains no code.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from romul_actors.core.events import TrialMessage
from romul_actors.core.space import Value
from romul_actors.errors import RomulError
from romul_actors.observe.lineage import lineage
from romul_actors.observe.trial_records import TrialRecord
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.mistakes import unreadable
from romul_workers.trainer import Failure, Success, Trainer

VERSION = 1


class ScheduleError(RomulError, ValueError):
    """A schedule that cannot be made, read or followed."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of training.

    Attributes:
        start, stop: first and last position, in the budget's unit.
        hyperparameters: the values to train with, by name.
        trial: id of the trial that it comes from.
        seed: seed of that trial.
        value: the metric at the end of that trial.
    """

    start: float
    stop: float
    hyperparameters: Mapping[str, Value]
    trial: str = ""
    seed: int = 0
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Hyperparameters by position in training.

    Attributes:
        name: name of the experiment.
        task, metric, direction, budget_unit, constants, device: as the experiment declares them.
        stretches: the stretches in order, from 0, without gaps.
        value: the metric at the end in the search.
        setup_s: how long the task's `setup` may take, in seconds.
    """

    name: str
    task: str
    metric: str
    direction: str
    budget_unit: str
    constants: Mapping[str, Value]
    stretches: Sequence[Stretch]
    value: float | None = None
    device: str = "auto"
    setup_s: float = 300.0

    def at(self, position: float) -> dict[str, Value]:
        """The hyperparameters at a position in training; after the end, the last ones.

        Args:
            position: position in training from its beginning, in the budget's unit.
        """
        for stretch in self.stretches:
            if position < stretch.stop:
                return dict(stretch.hyperparameters)
        return dict(self.stretches[-1].hyperparameters)

    def write(self, file: str | Path) -> None:
        """Write the schedule to a file as JSON."""
        Path(file).write_text(json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n")


def of_trial(experiment: Experiment, found: Mapping[str, TrialRecord], trial: str) -> Schedule:
    """The schedule along a trial's line of descent, which may lead through several slots.

    Args:
        experiment: the declaration.
        found: all trials, as `romul_actors.observe.trial_records.trials` returns them.
        trial: id of the last trial of the line.

    Raises:
        ScheduleError: history does not hold the trial, or no longer holds the line's beginning.
    """
    line = lineage(found, trial)
    if not line:
        raise ScheduleError(f"history holds no trial {trial!r}")
    first = found[line[0]]
    if first.parent is not None:
        raise ScheduleError(
            f"the line of {trial} goes back to {first.parent}, which is no longer in history "
            "(see history_keep)"
        )
    # A slot that joined from scratch, or whose first trials failed, has a first step above 0.
    begin = first.step * experiment.budget
    stretches = [
        Stretch(
            start=found[one].step * experiment.budget - begin,
            stop=(found[one].step + 1) * experiment.budget - begin,
            hyperparameters=dict(found[one].hyperparameters),
            trial=one,
            seed=found[one].seed,
            value=found[one].value,
        )
        for one in line
    ]
    return Schedule(
        name=experiment.name,
        task=experiment.task,
        metric=experiment.metric,
        direction=experiment.direction,
        budget_unit=experiment.budget_unit,
        constants=dict(experiment.constants),
        stretches=stretches,
        value=stretches[-1].value,
        device=experiment.resources.device,
        setup_s=experiment.timeouts.setup_s,
    )


def read_schedule(file: Path) -> Schedule:
    """Read a schedule from a JSON file.

    Raises:
        ScheduleError: the file cannot be read, or is not a schedule.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        version = fields.pop("version")
        stretches = [Stretch(**stretch) for stretch in fields.pop("stretches")]
        schedule = Schedule(stretches=stretches, **fields)
    except (OSError, UnicodeDecodeError) as error:
        raise ScheduleError(f"{file}: cannot be read: {unreadable(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ScheduleError(f"{file}: not a schedule: {error}") from None
    if version != VERSION:
        raise ScheduleError(f"{file}: a schedule of version {version}, not {VERSION}")
    ends = [0.0, *(stretch.stop for stretch in stretches)]
    starts = [stretch.start for stretch in stretches]
    if not stretches or starts != ends[:-1] or sorted(set(ends)) != ends:
        raise ScheduleError(f"{file}: its stretches do not follow one another from 0")
    return schedule


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training along a schedule.

    Attributes:
        values: the metric at the end of each stretch.
        metrics: all other figures that the task returned at the end, by name.
        checkpoint: name of the last checkpoint.
    """

    values: Sequence[float]
    metrics: Mapping[str, float]
    checkpoint: str

    @property
    def value(self) -> float:
        """The metric at the end."""
        return self.values[-1]


async def train(
    schedule: Schedule,
    checkpoints: str,
    trainer: Trainer,
    seed: int | None = None,
    progress: Callable[[int, float], None] = lambda _n, _value: None,
) -> Trained:
    """Train one model from scratch along a schedule.

    Args:
        schedule: the schedule.
        checkpoints: URL of a folder for checkpoints; only the last checkpoint is kept.
        trainer: trains each stretch as a trial.
        seed: seed for all randomness; None: the seeds of the search.
        progress: called after each stretch with its number, from 0, and the metric.

    Raises:
        ScheduleError: the task failed.
    """
    # A space needs at least one hyperparameter, but a schedule written by hand may have none.
    names = {"none"}.union(*(stretch.hyperparameters for stretch in schedule.stretches))
    experiment = Experiment.model_validate(
        {
            "name": schedule.name,
            "task": schedule.task,
            "metric": schedule.metric,
            "direction": schedule.direction,
            "constants": dict(schedule.constants),
            "budget_unit": schedule.budget_unit,
            # The values come from the schedule. The space's names only say which hyperparameters
            # are inactive in a stretch.
            "space": {name: {"type": "float", "min": 0.0, "max": 1.0} for name in names},
            "steps": len(schedule.stretches),
            "checkpoints": checkpoints,
            "resources": {"device": schedule.device},
            "timeouts": {"setup_s": schedule.setup_s},
        }
    )
    parent: str | None = None
    values: list[float] = []
    metrics: Mapping[str, float] = {}
    for number, stretch in enumerate(schedule.stretches):
        trial = TrialMessage(
            id=f"0-{number}",
            slot=0,
            step=number,
            attempt=1,
            hyperparameters=stretch.hyperparameters,
            parent=parent,
            start=stretch.start,
            stop=stretch.stop,
            seed=stretch.seed if seed is None else seed + number,
        )
        ending = await trainer.train(experiment, trial)
        if not isinstance(ending, Success):
            why = ending.message if isinstance(ending, Failure) else type(ending).__name__
            raise ScheduleError(f"{schedule.task}, stretch {number}: {why}")
        if parent is not None:
            await trainer.discard(experiment, parent)
        parent, metrics = ending.checkpoint, ending.metrics
        values.append(ending.value)
        progress(number, ending.value)
    return Trained(values, metrics, str(parent))


def closeness(value: float, wanted: float) -> float:
    """The relative difference of a value from `wanted`."""
    return abs(value - wanted) / abs(wanted) if wanted else math.inf if value else 0.0
