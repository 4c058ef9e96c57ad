"""The interface of a user's task: `train(trial)`, and optionally `setup(context)`.

::

    def train(trial):
        model, optimizer = ...
        trial.attach(model=model, optimizer=optimizer)
        for epoch in range(trial.start, trial.stop):
            ...
            if epoch + 1 < trial.stop and trial.should_stop:
                trial.save()
                return trial.pause(epoch + 1)
        trial.save()
        return validation_loss

The three lines with `should_stop` are optional. With them, an interrupted trial continues on
another worker from the position that it reached: `trial.start` is then that position. Without them,
the trial is repeated from its start. The position is tested before `should_stop` is read because a
result that is returned after `should_stop` was true does not count.

No framework is assumed. `attach` and `save` are for torch, and import it only when they are called.
A task without torch reads the folder `trial.parent` and writes the folder `trial.checkpoint` in any
format.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from romul_actors.errors import TaskError

if TYPE_CHECKING:
    from romul_workers.checkpoints.hashing import Written
    from romul_workers.tensors.kept import Kept
    from romul_workers.torch_support import Attached

Value = Any
"""A JSON value; for a hyperparameter, a value that its declaration admits."""

SIGN_OF_LIFE_S = 0.5
"""Shortest time between two signs of progress that are sent to the worker."""
ALL_TRAINED = "the whole budget is trained"
MAX_PLACE = 2.0**53
"""The largest position in training that is accepted; the store accepts no larger number."""


def place(at: float) -> float:
    """A position in training as a task receives it: an int if it is whole, so `range` takes it."""
    return int(at) if at == int(at) else at


_VALUES = "hyperparameters are declared in the search's space, and lie in trial.hyperparameters"
_ELSEWHERE = {
    "report": "return the metric at the end of the step",
    "should_prune": "train on and return the metric: the population decides what goes on",
    "config": _VALUES,
    "params": _VALUES,
    "number": "its name is trial.id",
    "set_user_attr": "return it beside the metric, as in {'loss': 0.1, 'accuracy': 0.9}",
}
"""What to do instead, by attributes that trials of other libraries have."""


def _not_there(name: str) -> str:
    """The error message for an attribute that a trial does not have."""
    if name.startswith("_"):
        return name
    if name.startswith("suggest_"):
        return f"a Trial has no {name!r}: {_VALUES}"
    there = [each for each in dir(Trial) if not each.startswith("_")]
    near = get_close_matches(name, there, n=1)
    other = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(there)}"
    return f"a Trial has no {name!r}: {_ELSEWHERE.get(name, other)}"


@dataclass(frozen=True, slots=True)
class Paused:
    """The value that a task returns after it saved its state before the end of the trial.

    `Trial.pause` makes it.
    """

    at: float


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for all trials of one experiment in a child process.

    Attributes:
        experiment: name of the experiment.
        device: where to train, such as "cpu" or "cuda:0".
        constants: the experiment's constants, by name.
    """

    experiment: str
    device: str
    constants: Mapping[str, Value]


@dataclass(slots=True)
class TrialWork:
    """What `attach` and `save` did; the child process that runs the trial reads it.

    Attributes:
        in_effect: hyperparameters as `attach` read them back from the optimizer.
        restore_s: how long `attach` took to restore the parent, in seconds; None: it restored
            nothing.
        warm: whether the parent was restored from memory, not from files.
        parent_kept: tensors of the parent that this process still has in memory; None after
            `attach`.
        kept: tensors that the latest `save` left in this process's memory.
        written: hashes and sizes of the checkpoint's files that are hashed already, by name.
    """

    in_effect: dict[str, Value] = field(default_factory=dict)
    restore_s: float | None = None
    warm: bool = False
    parent_kept: "Kept | None" = None
    kept: "Kept | None" = None
    written: "dict[str, Written]" = field(default_factory=dict)


@dataclass(slots=True)
class Trial:
    """One PBT step of one slot: the argument of `train(trial)`.

    Attributes:
        id: "SLOT-STEP".
        hyperparameters: the values to train with in this trial, by name.
        parent: folder of the checkpoint to continue from; None: train from scratch. Read only.
        checkpoint: an empty folder for the new checkpoint; the task must write something there.
        start: the position in training at which this trial begins, in the budget's unit, counted
            from the beginning of this search. With `from_run`, the parent's weights may have been
            trained before that.
        stop: the position at which this trial ends. `start` and `stop` are ints if they are whole.
        seed: for all randomness of this trial; the same in each attempt.
        step: number of the PBT step, from 0.
        context: what is the same for all trials, such as device and constants.
        state: what `setup` returned; None if the task has no `setup`.
        resumed: whether `parent` is a partial checkpoint of this trial. If so, `start` lies inside
            the step, and `attach` also restores the random state.
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
    _stop_seen: bool = False
    _stopping: Event = field(default_factory=Event)
    _report_progress: Callable[[float | None], None] | None = None
    _reported_s: float = float("-inf")
    """When the latest sign of progress was sent, by the monotonic clock."""
    _at: float | None = None
    _attached: "Attached | None" = None
    _check_parent: Callable[[], Path] | None = None
    """Hashes the parent's files and returns `parent`; called if that attribute is not set yet."""
    _base: Path | None = None
    """Folder of the parent; `save` links files that are the same there."""
    _base_checked: bool = True
    """Whether the parent's files were hashed."""
    _absent: Sequence[str] = ()
    """Names of hyperparameters whose condition does not hold in this trial."""
    _work: TrialWork = field(default_factory=TrialWork)

    @property
    def budget(self) -> float:
        """`stop - start`, in the budget's unit: one step's budget, or the rest if `resumed`."""
        return self.stop - self.start

    @property
    def device(self) -> str:
        """Where to train, such as "cpu" or "cuda:0"."""
        return self.context.device

    @property
    def constants(self) -> Mapping[str, Value]:
        """The experiment's constants, by name."""
        return self.context.constants

    @property
    def should_stop(self) -> bool:
        """Whether this worker must end soon: save and return `pause(at)`, or return at once.

        After this was true, the value that the task returns does not count, unless it comes from
        `pause`: the trial is repeated on another worker. After `progress(stop)` this is false, and
        the returned value counts. Reading this attribute is also a sign of progress.
        """
        self.progress()
        self._stop_seen = self._stop_seen or self._stopping.is_set()
        return self.cut_short

    @property
    def cut_short(self) -> bool:
        """Whether the task read `should_stop` as true, and has not called `progress(stop)`."""
        return self._stop_seen and (self._at is None or self._at < self.stop)

    def progress(self, at: float | None = None) -> None:
        """Show that training goes on; `timeouts.stall_s` limits the time between two calls.

        Args:
            at: the position in training, in the budget's unit; `stop` says that the whole budget
                is trained. An invalid number (NaN, infinity, below 0, above 2^53) is ignored; the
                call still counts as a sign of progress.
        """
        # Stored even if this call sends nothing: the next call that sends may have no position.
        if at is not None and 0.0 <= (said := float(at)) <= MAX_PLACE:
            self._at = said
        now = time.monotonic()
        if self._report_progress is not None and now - self._reported_s >= SIGN_OF_LIFE_S:
            self._reported_s = now
            self._report_progress(self._at)

    def pause(self, at: float) -> Paused:
        """Make the value that a task returns if `checkpoint` holds the training state at `at`.

        Do not pause at `stop`: the whole budget is trained there, so the trial must return its
        result. A trial whose worker must end and that pauses at `stop` is repeated from `start`.

        Args:
            at: the position in training, in the budget's unit. The next attempt has it as `start`.

        Raises:
            TaskError: `at` is not between `start` and `stop`, or is one of them although the worker
                goes on: the trial would be repeated without end.
        """
        if not self.start <= at <= self.stop:
            raise TaskError(f"pause({at:g}): this trial goes from {self.start:g} to {self.stop:g}")
        if not self._stopping.is_set():
            if at == self.stop:
                raise TaskError(f"pause({at:g}): {ALL_TRAINED}: return the result")
            if at == self.start:
                raise TaskError(
                    f"pause({at:g}): nothing was trained, and the worker was not asked to stop: "
                    "the trial would begin again without end"
                )
        return Paused(float(at))

    def attach(
        self,
        *,
        model: Any = None,
        optimizer: Any = None,
        names: Mapping[str, str | None] | None = None,
        warm: bool = True,
    ) -> None:
        """Restore a torch model and optimizer from the parent, then apply the hyperparameters.

        A hyperparameter that has the name of a field in the optimizer's parameter groups is written
        to that field after the restore, so that the trial's learning rate replaces the restored
        one. If it is nested in a table named `optimizer`, `optim` or `opt`, the last part of its
        name counts. `learning_rate` is written to `lr`. Each value is read back.

        Other fields:

        - If a hyperparameter's condition does not hold in this trial, its field has the value that
          the optimizer was made with.
        - A field that no hyperparameter sets has the parent's value, whatever the optimizer was
          made with. To change it, set it after `attach`.

        A learning rate scheduler made after `attach` begins at the trial's rate. Of schedulers made
        before, those that compute each rate from the previous one continue from the trial's rate,
        but LambdaLR returns to the rate it was made with.

        If the parent's optimizer is of another class, the model is restored, the optimizer begins
        with an empty state and its own fields, and the trial's log has a warning.

        If this process trained the parent last, the parent's tensors are taken from memory and not
        from files (a warm restore). A write to these tensors after `save` is noticed if torch
        counts it or if it changes a whole tensor. If a task changes single values through `.data`
        or numpy after `save`, give `warm=False`.

        Args:
            model: a `torch.nn.Module`.
            optimizer: a `torch.optim.Optimizer`.
            names: optimizer fields by hyperparameter, for names that differ; None as a field: the
                hyperparameter sets no field of this optimizer.
            warm: whether the parent may be restored from memory.

        Raises:
            TaskError: a value read back is not the trial's, or two hyperparameters would set the
                same field; the message names them.
            CheckpointError: the parent's state does not fit the model or the optimizer.
        """
        from romul_workers.torch_support import Attached  # noqa: PLC0415

        self._attached = Attached(model, optimizer)
        work = self._work
        kept, work.parent_kept = work.parent_kept, None
        began = time.monotonic()
        # Only the files hold the random state that a resumed trial needs.
        work.warm = warm and not self.resumed and kept is not None and self._attached.take(kept)
        parent = None if work.warm else self.parent
        work.in_effect = self._attached.restore(
            parent, self.hyperparameters, names or {}, self._absent
        )
        if self.resumed and parent is not None:
            self._attached.restore_random_state(parent)
        if work.warm or parent is not None:
            work.restore_s = time.monotonic() - began

    def save(self, **extra: Any) -> None:
        """Write the attached model and optimizer, the random state and `extra` to `checkpoint`.

        Args:
            extra: further state: tensors, plain values, and dicts and lists of these.
                `romul_workers.torch_support.load(trial.parent)["extra"]` reads it in the next
                trial.

        Raises:
            TaskError: `attach` was not called, or something in `extra` cannot be saved.
        """
        if self._attached is None:
            raise TaskError(
                "trial.save() before trial.attach(): call attach(model=..., optimizer=...) first"
            )
        work = self._work
        work.written = self._attached.save(
            self.checkpoint, extra, self._base, checked=self._base_checked
        )
        work.kept = self._attached.kept
        if work.kept is not None:
            work.kept.files = dict(work.written)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            # Called only for attributes that are not set, such as a parent not yet hashed.
            if name != "parent" or self._check_parent is None:
                raise AttributeError(_not_there(name))
            self.parent = self._check_parent()
            return self.parent

        def __getitem__(self, name: object) -> object:
            raise TypeError(f"a Trial has no items: {_VALUES}")
