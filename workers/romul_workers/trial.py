"""What a user's task sees: `train(trial)`, and optionally `setup(context)`.

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

The three lines on `should_stop` are optional: with them a trial that is cut short goes on elsewhere
from where it stood, with `trial.start` moved; without them it is done again from its start. The
place is tested first: what is returned after `should_stop` was read as true is not counted.

No framework is assumed: `attach` and `save` are for torch and import it only when they are called;
any other task reads `trial.parent` and writes `trial.checkpoint` in a form of its own.
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
    from romul_workers.hashing import Written
    from romul_workers.kept import Kept
    from romul_workers.torch_support import Attached

Value = Any
"""A JSON value; of a hyperparameter, what its declaration admits."""

SIGN_OF_LIFE_S = 0.5
"""Signs of progress are passed on at most this often."""
MAX_PLACE = 2.0**53
"""No training stands beyond it; presences in the store hold no larger number."""


def place(at: float) -> float:
    """A place of the training, as tasks are given it: an int if it is whole, as `range` takes."""
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
"""What to do in place of what trials of other libraries have."""


def _not_there(name: str) -> str:
    """What to say of an attribute that a trial has not."""
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
class TrialWork:
    """What `attach` and `save` did, for the child process that runs the trial.

    Attributes:
        in_effect: hyperparameters as they were read back.
        restore_s: how long `attach` took to restore, in seconds; None: it restored nothing.
        warm: whether it did so from memory.
        parent_kept: what the parent's own trial left in this process's memory, until `attach`.
        kept: what the latest `save` left there.
        written: files of the checkpoint that are hashed already, by name.
    """

    in_effect: dict[str, Value] = field(default_factory=dict)
    restore_s: float | None = None
    warm: bool = False
    parent_kept: "Kept | None" = None
    kept: "Kept | None" = None
    written: "dict[str, Written]" = field(default_factory=dict)


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
        stop: where it is to end; stop - start is the budget of one step. Both are ints where they
            are whole.
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
    _stop_seen: bool = False
    _stopping: Event = field(default_factory=Event)
    _report_progress: Callable[[float | None], None] | None = None
    _reported_s: float = float("-inf")
    """Time of the latest sign of progress that was passed on, by the monotonic clock."""
    _at: float | None = None
    _attached: "Attached | None" = None
    _check_parent: Callable[[], Path] | None = None
    """Gives `parent`, where that is not set: its files are hashed when they are asked for."""
    _base: Path | None = None
    """Folder of the parent: `save` compares with it, and links what is the same."""
    _base_checked: bool = True
    """Whether its files were hashed."""
    _absent: Sequence[str] = ()
    """Names of the space's hyperparameters that do not count here."""
    _work: TrialWork = field(default_factory=TrialWork)

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
        is what `pause` gave: the trial is done again elsewhere. Once `progress(at)` has said that
        the whole budget is trained, this is false, and what the task returns counts.
        """
        self.progress()
        self._stop_seen = self._stop_seen or self._stopping.is_set()
        return self.cut_short

    @property
    def cut_short(self) -> bool:
        """Whether the task saw that it should stop before it said that all is trained."""
        return self._stop_seen and (self._at is None or self._at < self.stop)

    def progress(self, at: float | None = None) -> None:
        """Give a sign of progress, for people and for `timeouts.stall_s`.

        Args:
            at: where training stands, in the budget's unit; `stop` says that all is trained. A
                number that is no place (NaN, infinity, below 0, above 2^53) is left out: the
                sign counts, and training stands where the last place said.
        """
        # Kept for the next sign that is passed on, which may well be one without a place.
        if at is not None and 0.0 <= (said := float(at)) <= MAX_PLACE:
            self._at = said
        now = time.monotonic()
        if self._report_progress is not None and now - self._reported_s >= SIGN_OF_LIFE_S:
            self._reported_s = now
            self._report_progress(self._at)

    def pause(self, at: float) -> Paused:
        """Say that `checkpoint` holds the state at `at`; to be returned by the task.

        At `stop` all is trained, and a result is wanted: a pause there is done again from `start`.

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
        names: Mapping[str, str | None] | None = None,
        warm: bool = True,
    ) -> None:
        """Restore a torch model and optimizer from the parent, then apply the hyperparameters.

        Hyperparameters whose name is a field of the optimizer's parameter groups, or the last part
        of their name where they are nested in a table named `optimizer`, `optim` or `opt`, are
        written there after the restore, so that a restored rate never wins over the trial's own,
        and read back. `learning_rate` is written to `lr`, and a
        scheduler that is made later begins there. Of those made before, one that makes a rate of
        the one before goes on from there; LambdaLR brings back the rate it was made with. A field
        whose hyperparameter does not count in this trial has the value that the optimizer came
        with. All other fields are the parent's, whatever the optimizer was made with: set them
        after this, if they are to be the trial's.

        Where the parent's optimizer was of another class, this one begins with an empty state and
        its own fields, and a warning goes into the trial's log; the model is restored.

        A worker that trained the parent last gives its tensors, which its process still holds, in
        place of the files: the state is the same. Writes to them after `save` are seen where torch
        counts them, or where they change a whole tensor. A task that changes single values through
        `.data` or numpy after `save` must say `warm=False`.

        Args:
            model: a `torch.nn.Module`.
            optimizer: a `torch.optim.Optimizer`.
            names: further optimizer fields by hyperparameter, where the two names differ; None: the
                hyperparameter sets no field of this optimizer.
            warm: whether tensors in memory may take the place of the parent's files.

        Raises:
            TaskError: a value read back is not the trial's, or two hyperparameters would set one
                field; the message names them.
            CheckpointError: the parent's files do not fit.
        """
        from romul_workers.torch_support import Attached  # noqa: PLC0415

        self._attached = Attached(model, optimizer)
        work = self._work
        kept, work.parent_kept = work.parent_kept, None
        began = time.monotonic()
        # A resumed trial's random state lies in the files alone.
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
        """Write what was attached into the checkpoint, with `extra` plain values or tensors.

        `romul_workers.torch_support.load(folder)["extra"]` reads the latter back.

        Raises:
            TaskError: nothing was attached.
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
            # Only what is not set comes here: a parent whose files nothing has read so far.
            if name != "parent" or self._check_parent is None:
                raise AttributeError(_not_there(name))
            self.parent = self._check_parent()
            return self.parent
