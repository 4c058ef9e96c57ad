"""The result of a search, or its state so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romul_actors.core.history import Line, to_json
from romul_actors.errors import CheckpointError, RomulError
from romul_actors.observe.html import png
from romul_actors.observe.plots import plot, plot_lineage, plot_workers
from romul_actors.observe.snapshot import SlotSnapshot, Snapshot
from romul_actors.observe.trial_records import (
    TrialRecord,
    best_of_last_step,
    trial_rows,
    trials,
)
from romul_actors.observe.visible import visible
from romul_actors.protocol.statuses import ENDED
from romul_workers.checkpoints.storage import place_of
from romul_workers.schedule import Schedule, Stretch, of_trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial.

    Attributes:
        trial: its id, "SLOT-STEP".
        value: value of the metric.
        hyperparameters: values in the trial's own step. For those of earlier steps, see
            `Result.schedule`.
        checkpoint: folder of the checkpoint as a `Path`, its URL if it is not on this machine, or
            the name given to `Population.tell`.
        metrics: the other metrics that the task returned.
        provenance: where the trial was trained: `commit` of the function's code and whether there
            were `uncommitted` changes, versions of the `packages` that it imported, `python`,
            `host` and `gpu`.
    """

    trial: str
    value: float
    hyperparameters: Mapping[str, Any]
    checkpoint: str | Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def load_model(self, model: Any) -> None:
        """Load the weights that `trial.save` wrote into a torch model.

        Args:
            model: a `torch.nn.Module` of the same architecture.

        Raises:
            CheckpointError: the checkpoint is damaged, does not fit the model, or is not on this
                machine.
        """
        from romul_workers.torch_support import load_model  # noqa: PLC0415

        if not isinstance(self.checkpoint, Path):
            raise CheckpointError(
                f"{self.checkpoint} is not a folder on this machine: copy it with "
                "`romul best NAME --copy-to FOLDER`"
            )
        load_model(self.checkpoint, model)


class Result:
    """A search: its best trial, the schedule that led to it, and the history.

    Attributes:
        snapshot: the complete data, a `romul_actors.observe.snapshot.Snapshot`.
        folder: folder of the local run; None if the search ran on a server.
        under_way: whether the search may still change by itself: it has not ended, and its server
            is up. A local run that was interrupted is "running" but not under way.
    """

    def __init__(
        self, snapshot: Snapshot, folder: Path | None = None, *, served: bool = True
    ) -> None:
        self.snapshot = snapshot
        self.folder = folder
        self.under_way = served and snapshot.status not in ENDED

    @property
    def name(self) -> str:
        """Name of the search."""
        return self.snapshot.experiment.name

    @property
    def status(self) -> str:
        """One of "submitted", "running", "paused", "finished", "failed" and "stopped"."""
        return self.snapshot.status

    @property
    def reason(self) -> str:
        """Explanation of the status, in words; often empty."""
        return self.snapshot.reason

    @property
    def best(self) -> Best:
        """The best trial of all steps.

        Raises:
            RomulError: no trial has succeeded yet.
            CheckpointError: the stored name of its checkpoint is invalid.
        """
        found = self.snapshot.best
        if not found:
            raise RomulError(f"{self.name}: no trial has succeeded yet ({self.status})")
        return Best(
            trial=found["trial"],
            value=found[self.snapshot.experiment.metric],
            hyperparameters=found["hyperparameters"],
            checkpoint=self._place(found["checkpoint"]),
            metrics=found["metrics"],
            provenance=record.provenance if (record := self.trials.get(found["trial"])) else {},
        )

    @property
    def best_of_last_step(self) -> Best:
        """The best trial of the last step that a trial has finished.

        With a noisy metric, the best trial of all steps is one of the luckiest. See
        docs/tasks.md, "A noisy metric".

        Raises:
            RomulError: no trial has succeeded yet.
            CheckpointError: the stored name of its checkpoint is invalid.
        """
        found = best_of_last_step(self.trials.values(), self.snapshot.experiment.direction)
        if found is None or found.value is None:
            raise RomulError(f"{self.name}: no trial has succeeded yet ({self.status})")
        return Best(
            trial=found.id,
            value=found.value,
            hyperparameters=found.hyperparameters,
            checkpoint=self._place(found.checkpoint),
            metrics=found.metrics,
            provenance=found.provenance,
        )

    def _place(self, checkpoint: str) -> str | Path:
        """A checkpoint's folder, or its URL if it is not on this machine."""
        place = place_of(str(self.snapshot.experiment.checkpoints), checkpoint)
        return place if "://" in place else Path(place)

    @cached_property
    def schedule(self) -> Schedule:
        """The hyperparameters that led to the best trial, as a schedule over the training.

        Population based training finds a schedule, not a single set of values: training with the
        last values alone gives a different model. See `Schedule` for `stretches`, `at(position)`
        and `write(file)`.
        """
        return of_trial(self.snapshot.experiment, self.trials, self.best.trial)

    @property
    def population(self) -> Sequence[SlotSnapshot]:
        """The slots, by index."""
        return self.snapshot.slots

    @cached_property
    def trials(self) -> Mapping[str, TrialRecord]:
        """All trials, by id."""
        return trials(self.snapshot.history)

    @property
    def history(self) -> Sequence[Line]:
        """The history of the search, oldest line first."""
        return self.snapshot.history

    # -- frames ---------------------------------------------------------------------------------

    def trials_frame(self) -> "pd.DataFrame":
        """All trials as a data frame, one row per trial.

        Columns "h.NAME" hold hyperparameters and columns "m.NAME" metrics.

        Raises:
            ImportError: pandas is not installed (pip install 'romul[frames]').
        """
        space = self.snapshot.experiment.search_space()
        return _frame(trial_rows(self.snapshot.history, space))

    def population_frame(self) -> "pd.DataFrame":
        """All slots as a data frame, one row per slot.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(map(_row, self.snapshot.slots))

    def history_frame(self) -> "pd.DataFrame":
        """The history as a data frame, one row per line.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(map(to_json, self.snapshot.history))

    def schedule_frame(self) -> "pd.DataFrame":
        """The schedule as a data frame, one row per stretch and one column per hyperparameter.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(map(_row, self.schedule.stretches))

    # -- plots ----------------------------------------------------------------------------------

    def plot(self) -> Any:
        """Plot the metric and the hyperparameters of all slots by step.

        The best trial's line of descent is drawn in black.

        Returns:
            A matplotlib figure. A notebook displays it; `figure.savefig(file)` saves it.

        Raises:
            ImportError: matplotlib is not installed (pip install 'romul[dashboard]').
        """
        best = self.snapshot.best.get("trial")
        return _shown(plot(self.snapshot.experiment, self.trials, best, {}))

    def plot_lineage(self) -> Any:
        """Plot the slots by step, with an arrow for each copied checkpoint.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return _shown(plot_lineage(self.trials, self.snapshot.best.get("trial")))

    def plot_workers(self) -> Any:
        """Plot the workers over time, with a bar for each attempt.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return _shown(plot_workers(self.snapshot.history))

    # -------------------------------------------------------------------------------------------

    def _rows(self) -> list[tuple[str, str]]:
        """Names and texts to display; control characters in them are escaped."""
        return [(visible(name), visible(text)) for name, text in self._texts()]

    def _texts(self) -> list[tuple[str, str]]:
        counts, experiment = self.snapshot.counts, self.snapshot.experiment
        # A reason such as "stopped by me" begins with the status.
        why = self.reason.removeprefix(self.status).strip()
        interrupted = "" if self.under_way or self.status in ENDED else ", interrupted"
        rows = [
            ("status", f"{self.status}{interrupted} {why}".strip()),
            ("trials", f"{self.snapshot.ended}, {counts['failed']} failed"),
        ]
        if self.snapshot.best:
            try:
                best = self.best
            except CheckpointError as error:
                return [*rows, ("best", str(error))]
            values = ", ".join(f"{name} {_short(v)}" for name, v in best.hyperparameters.items())
            rows += [
                (f"best {experiment.metric}", f"{_short(best.value)} (trial {best.trial})"),
                ("hyperparameters", values),
                ("checkpoint", str(best.checkpoint)),
            ]
        return rows

    def __repr__(self) -> str:
        lines = [f"  {name}: {text}" for name, text in self._rows()]
        return "\n".join([f"<Result of {self.name}", *lines, ">"])

    def _repr_html_(self) -> str:
        rows = [f"<tr><th>{escape(n)}</th><td>{escape(t)}</td></tr>" for n, t in self._rows()]
        return f"<table><caption>{escape(self.name)}</caption>{''.join(rows)}</table>"


def _frame(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(list(rows))


def _row(record: SlotSnapshot | Stretch) -> dict[str, Any]:
    """The fields of a record, with a field for each hyperparameter."""
    values = asdict(record)
    inner = values.pop("hyperparameters")
    return {**values, **{f"h.{name}": value for name, value in inner.items()}}


def _shown(figure: Any) -> Any:
    """Make a notebook display a figure, even if its pyplot integration is off."""
    figure._repr_png_ = lambda: png(figure)
    return figure


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
