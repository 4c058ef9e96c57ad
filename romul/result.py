"""What a search found, or has found so far."""

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
from romul_actors.observe.trial_records import TrialRecord, trial_rows, trials
from romul_actors.observe.visible import visible
from romul_workers.checkpoints import place_of
from romul_workers.schedule import Schedule, Stretch, of_trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial.

    Attributes:
        trial: its id, "SLOT-STEP".
        value: the metric, with the user's sign.
        hyperparameters: those of the trial's own step; how they came there says the schedule.
        checkpoint: its folder; where that is not on this machine, or a name of one's own, a text.
        metrics: the other figures that the task returned.
        provenance: where it comes from: `commit` of the function's code and whether there were
            `uncommitted` changes, versions of the `packages` that it imported, `python`, `host`
            and `gpu`.
    """

    trial: str
    value: float
    hyperparameters: Mapping[str, Any]
    checkpoint: str | Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def load_model(self, model: Any) -> None:
        """Give a torch model the weights that `trial.save` wrote.

        Args:
            model: a `torch.nn.Module` of the same shape.

        Raises:
            CheckpointError: the checkpoint is damaged, does not fit the model, or is not on this
                machine.
        """
        from romul_workers.torch_support import load_model  # noqa: PLC0415

        if not isinstance(self.checkpoint, Path):
            raise CheckpointError(
                f"{self.checkpoint} is no folder of this machine: `romul best NAME --copy-to` "
                "brings it here"
            )
        load_model(self.checkpoint, model)


class Result:
    """A search: its best trial, the schedule that led there, and all that happened.

    Attributes:
        snapshot: all of it, as `romul_actors.observe.snapshot` has it.
        folder: the local run's; None: it ran elsewhere.
    """

    def __init__(self, snapshot: Snapshot, folder: Path | None = None) -> None:
        self.snapshot = snapshot
        self.folder = folder

    @property
    def name(self) -> str:
        """Name of the search."""
        return self.snapshot.experiment.name

    @property
    def status(self) -> str:
        """submitted, running, paused, finished, failed or stopped."""
        return self.snapshot.status

    @property
    def reason(self) -> str:
        """Why the status is so; often empty."""
        return self.snapshot.reason

    @property
    def best(self) -> Best:
        """The best trial.

        Raises:
            RomulError: no trial has succeeded yet.
            CheckpointError: its checkpoint has a name that no worker gives one.
        """
        found, experiment = self.snapshot.best, self.snapshot.experiment
        if not found:
            raise RomulError(f"{self.name}: no trial has succeeded yet ({self.status})")
        place = place_of(str(experiment.checkpoints), found["checkpoint"])
        return Best(
            trial=found["trial"],
            value=found[experiment.metric],
            hyperparameters=found["hyperparameters"],
            checkpoint=place if "://" in place else Path(place),
            metrics=found["metrics"],
            provenance=record.provenance if (record := self.trials.get(found["trial"])) else {},
        )

    @cached_property
    def schedule(self) -> Schedule:
        """What led to the best trial: its `stretches`, `at(position)`, `write(file)`.

        Population based training finds a schedule, not a set of values; the last stretch alone
        trains another model.
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
        """What happened, oldest first."""
        return self.snapshot.history

    # -- frames ---------------------------------------------------------------------------------

    def trials_frame(self) -> "pd.DataFrame":
        """Trials, a row each; hyperparameters are columns "h.NAME", metrics "m.NAME".

        Raises:
            ImportError: pandas is not installed (pip install 'romul[frames]').
        """
        space = self.snapshot.experiment.search_space()
        return _frame(trial_rows(self.snapshot.history, space))

    def population_frame(self) -> "pd.DataFrame":
        """Slots, a row each.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(map(_row, self.snapshot.slots))

    def history_frame(self) -> "pd.DataFrame":
        """Lines of history, a row each.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(map(to_json, self.snapshot.history))

    def schedule_frame(self) -> "pd.DataFrame":
        """The schedule, a row for each stretch; hyperparameters are columns of their own.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(map(_row, self.schedule.stretches))

    # -- pictures -------------------------------------------------------------------------------

    def plot(self) -> Any:
        """Draw the metric and the hyperparameters of all slots by step; the winner's line is black.

        Returns:
            A matplotlib figure, which a notebook shows; `figure.savefig(file)` writes it.

        Raises:
            ImportError: matplotlib is not installed (pip install 'romul[dashboard]').
        """
        best = self.snapshot.best.get("trial")
        return _shown(plot(self.snapshot.experiment, self.trials, best, {}))

    def plot_lineage(self) -> Any:
        """Draw slots by step, with an arrow for each copy.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return _shown(plot_lineage(self.trials, self.snapshot.best.get("trial")))

    def plot_workers(self) -> Any:
        """Draw workers by time, with a bar for each attempt.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return _shown(plot_workers(self.snapshot.history))

    # -------------------------------------------------------------------------------------------

    def _rows(self) -> list[tuple[str, str]]:
        """What is shown of it, by name; reasons, names and choices are other programs' texts."""
        return [(visible(name), visible(text)) for name, text in self._texts()]

    def _texts(self) -> list[tuple[str, str]]:
        counts, experiment = self.snapshot.counts, self.snapshot.experiment
        # A reason such as "stopped by me" begins with the status.
        why = self.reason.removeprefix(self.status).strip()
        rows = [
            ("status", f"{self.status} {why}".strip()),
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
    """A record's fields; each hyperparameter is one of its own."""
    values = asdict(record)
    inner = values.pop("hyperparameters")
    return {**values, **{f"h.{name}": value for name, value in inner.items()}}


def _shown(figure: Any) -> Any:
    """A figure that a notebook shows, whichever way it shows those of pyplot."""
    figure._repr_png_ = lambda: png(figure)
    return figure


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
