"""What a user's task sees: `train(trial)`, and optionally `setup(context)`.

::

    def train(trial):
        model, optimizer = ...
        trial.attach(model=model, optimizer=optimizer)
        for epoch in range(int(trial.start), int(trial.stop)):
            ...
            if trial.should_stop:
                trial.save()
                return trial.pause(epoch + 1)
        trial.save()
        return validation_loss

The two lines on `should_stop` are optional: with them a trial that is cut short goes on elsewhere
from where it stood, with `trial.start` moved; without them it is done again from its start.

No framework is assumed: `attach` and `save` are for torch and import it only when they are called;
any other task reads `trial.parent` and writes `trial.checkpoint` in a form of its own.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from romul_actors.errors import TaskError

if TYPE_CHECKING:
    from romul_workers.hashing import Written
    from romul_workers.torch_support import Attached

Value = Any
"""A JSON value; of a hyperparameter, what its declaration admits."""

SIGN_OF_LIFE_S = 0.5
"""Signs of progress are passed on at most this often."""


@dataclass(frozen=True, slots=True)
class Paused:
    """What a task returns that saved itself inside a trial; made by `Trial.pause`."""

    at: float


@dataclass(frozen=True, slots=True)
class Context:
    """What stays the same for all trials that a child process runs of one experiment.

    Attributes:
        experiment: its name.
        device: "cpu", "cuda:0" and the like.
        constants: the experiment's own.
    """

    experiment: str
    device: str
    constants: Mapping[str, Value]


@dataclass(slots=True)
class Trial:
    """One PBT step of one slot, as `train(trial)` gets it.

    Attributes:
        id: "SLOT-STEP".
        hyperparameters: the values to train with from here on.
        parent: folder of the checkpoint to continue from; None: from scratch. Read only.
        checkpoint: an empty folder for the new checkpoint; something must be written there.
        start: where training stands, in the budget's unit, counted from the beginning of
            this search (with `from_run`, a parent's weights may have been trained before it).
        stop: where it is to end; stop - start is the budget of one step.
        seed: for all randomness of this trial; the same again if the trial is repeated.
        step: number of the PBT step, from 0.
        context: what stays the same from trial to trial, device and constants among it.
        state: what `setup` returned; None without one.
        resumed: whether `parent` is this very trial's own partial checkpoint: then `start` lies
            inside the step, and `attach` restores the random state as well.
    """

    id: str
    hyperparameters: Mapping[str, Value]
    parent: Path | None
    checkpoint: Path
    start: float
    stop: float
    seed: int
    step: int
    context: Context
    state: Any = None
    resumed: bool = False
    in_effect: dict[str, Value] = field(default_factory=dict)
    stop_seen: bool = False
    """Whether the task saw that it should stop: then it did not train its whole budget."""
    _stopping: Event = field(default_factory=Event)
    _report_progress: Callable[[float | None], None] | None = None
    _reported_s: float = float("-inf")
    """Time of the latest sign of progress that was passed on, by the monotonic clock."""
    _at: float | None = None
    _attached: "Attached | None" = None
    _base: Path | None = None
    """Folder of the parent: `save` compares with it, and links what is the same."""
    written: "dict[str, Written]" = field(default_factory=dict)
    """Files of the checkpoint that are hashed already, by name."""

    @property
    def budget(self) -> float:
        """Length of this step, in the budget's unit."""
        return self.stop - self.start

    @property
    def device(self) -> str:
        """Where to train: "cpu", "cuda:0" and the like."""
        return self.context.device

    @property
    def constants(self) -> Mapping[str, Value]:
        """The experiment's constants."""
        return self.context.constants

    @property
    def should_stop(self) -> bool:
        """Whether the machine is about to go: save and `pause`, or just return, soon.

        Reading it is a sign of progress too. What the task returns then is not counted, unless it
        is what `pause` gave: the trial is done again elsewhere.
        """
        self.progress()
        self.stop_seen = self.stop_seen or self._stopping.is_set()
        return self.stop_seen

    def progress(self, at: float | None = None) -> None:
        """Give a sign of progress, for people and for `timeouts.stall_s`.

        Args:
            at: where training stands, in the budget's unit.
        """
        # Kept for the next sign that is passed on, which may well be one without a place.
        self._at = self._at if at is None else float(at)
        now = time.monotonic()
        if self._report_progress is not None and now - self._reported_s >= SIGN_OF_LIFE_S:
            self._reported_s = now
            self._report_progress(self._at)

    def pause(self, at: float) -> Paused:
        """Say that `checkpoint` holds the state at `at`; to be returned by the task.

        Raises:
            TaskError: `at` is not a place of this trial.
        """
        if not self.start <= at <= self.stop:
            raise TaskError(f"pause({at:g}): this trial goes from {self.start:g} to {self.stop:g}")
        return Paused(float(at))

    def attach(
        self,
        *,
        model: Any = None,
        optimizer: Any = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Restore a torch model and optimizer from the parent, then apply the hyperparameters.

        Hyperparameters whose name is a field of the optimizer's parameter groups are written there
        after the restore, so that a restored learning rate never wins over the trial's own, and
        read back. `learning_rate` is written to `lr`.

        Args:
            model: a `torch.nn.Module`.
            optimizer: a `torch.optim.Optimizer`.
            names: further optimizer fields by hyperparameter, where the two names differ.

        Raises:
            TaskError: a value read back is not the trial's; the message names it.
            CheckpointError: the parent's files do not fit.
        """
        from romul_workers.torch_support import Attached  # noqa: PLC0415

        self._attached = Attached(model, optimizer)
        self.in_effect = self._attached.restore(self.parent, self.hyperparameters, names or {})
        if self.resumed and self.parent is not None:
            self._attached.restore_random_state(self.parent)

    def save(self, **extra: Any) -> None:
        """Write what was attached into the checkpoint, with `extra` plain values or tensors.

        Raises:
            TaskError: nothing was attached.
        """
        if self._attached is None:
            raise TaskError("trial.save() before trial.attach(): there is nothing to save")
        self.written = self._attached.save(self.checkpoint, extra, self._base)
