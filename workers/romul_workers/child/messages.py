"""Messages between a worker and its child process: MessagePack over a socket pair.

The worker sends a request (`PrepareTask`, `TrainTrial`) and waits for exactly one answer. Signs of
progress (`TaskProgress`) may arrive before the answer. `StopTrial` has no answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, get_args

import msgpack

from romul_actors.core.events import FailureReason
from romul_actors.core.space import Value
from romul_workers.checkpoints.hashing import Written

MAX_BUFFER = 2**24
"""Most bytes of an incomplete message that are buffered."""


@dataclass(frozen=True, slots=True)
class PrepareTask:
    """Import a task and run its `setup`, once for each experiment.

    Attributes:
        key: hash of all other fields; `TrainTrial` refers to it.
        experiment: name of the experiment.
        module, function: names of the task's module and function.
        device: where to train, such as "auto", "cpu" or "cuda:0".
        constants: the experiment's constants, by name.
    """

    key: str
    experiment: str
    module: str
    function: str
    device: str
    constants: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class TrainTrial:
    """Train one trial of a task that is prepared.

    Attributes:
        key: the key of the `PrepareTask` request for the trial's task.
        metric: name of the experiment's metric.
        parent: folder of the checkpoint to continue from; None: train from scratch.
        checkpoint: folder for the new checkpoint.
        warm: whether the parent is the checkpoint that this process saved last.
        checked: whether the parent's files were hashed. If not, their lengths and modification
            times are those with which this process wrote them.
        absent: names of the hyperparameters whose condition does not hold in this trial.
        id, hyperparameters, start, stop, seed, step, resumed: as in `romul_workers.trial.Trial`.
    """

    key: str
    metric: str
    id: str
    hyperparameters: Mapping[str, Value]
    parent: str | None
    checkpoint: str
    start: float
    stop: float
    seed: int
    step: int
    resumed: bool
    warm: bool = False
    checked: bool = True
    absent: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StopTrial:
    """Set `trial.should_stop` for all trials from now on."""


@dataclass(frozen=True, slots=True)
class TaskReady:
    """The task is imported, and its `setup` has run."""


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """A sign of progress.

    Attributes:
        at: the position in training, in the budget's unit; None: the task did not give one.
    """

    at: float | None


@dataclass(frozen=True, slots=True)
class TaskReturned:
    """The task trained its whole budget.

    Attributes:
        value, metrics, left_out, in_effect, provenance: as in `romul_workers.trainer.Success`.
        written: hashes and sizes of the checkpoint's files that are hashed already, by name.
        restore_s: how long the parent's restore took, in seconds; None: nothing was restored.
        warm: whether the parent was restored from this process's memory.
        keeps: whether this process keeps the saved tensors for a warm restore.
    """

    value: float
    metrics: Mapping[str, float]
    left_out: Mapping[str, str]
    in_effect: Mapping[str, Value]
    written: Mapping[str, Written] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    restore_s: float | None = None
    warm: bool = False
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class TaskInterrupted:
    """The task followed `trial.should_stop`.

    Attributes:
        at: the position in training of the partial checkpoint, in the budget's unit; None: there
            is no partial checkpoint.
        written: as in `TaskReturned`.
        message: why there is no partial checkpoint although the task paused; "" otherwise.
    """

    at: float | None
    written: Mapping[str, Written] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The task could not be prepared, or the trial failed.

    Attributes:
        reason, message, elsewhere: as in `romul_workers.trainer.Failure`.
    """

    reason: FailureReason
    message: str
    elsewhere: bool = False


Request = PrepareTask | TrainTrial | StopTrial
TrialAnswer = TaskReturned | TaskInterrupted | TaskFailed
Answer = TaskReady | TrialAnswer
Message = Request | TaskProgress | Answer

_KINDS: Mapping[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """A message as bytes: its kind and its fields."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    # A task may return text that is not valid Unicode, such as a file name in another encoding.
    body: bytes = msgpack.packb(
        [type(message).__name__, values], default=astuple, unicode_errors="backslashreplace"
    )
    return body


class Decoder:
    """Decodes messages from a stream of bytes."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=MAX_BUFFER)

    def feed(self, data: bytes) -> list[Message]:
        """Add `data`, and return all messages that are complete now."""
        self._unpacker.feed(data)
        return [_message(*sent) for sent in self._unpacker]


def _message(kind: str, values: dict[str, Any]) -> Message:
    if "written" in values:
        values["written"] = {name: Written(*file) for name, file in values["written"].items()}
    return _KINDS[kind](**values)
