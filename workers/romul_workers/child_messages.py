"""What a worker and its child process send each other: MessagePack over their socket pair.

The worker sends a request (`PrepareTask`, `TrainTrial`) and waits for its one answer; signs of
progress (`TaskProgress`) may come before it. `StopTrial` has no answer of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, get_args

import msgpack

from romul_actors.core.events import FailureReason
from romul_actors.core.space import Value
from romul_workers.hashing import Written

MAX_BUFFER = 2**24
"""Most bytes of messages that may lie unread."""


@dataclass(frozen=True, slots=True)
class PrepareTask:
    """Import a task and run its `setup`, once for each experiment.

    Attributes:
        key: hash of all that follows.
        experiment: its name.
        module, function: of the task.
        device: "auto", "cpu", "cuda:0" and the like.
        constants: the experiment's own.
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
        key: of the experiment.
        metric: the experiment's.
        parent: folder of the checkpoint to continue from; None: from scratch.
        checkpoint: folder for the new one.
        warm: whether the parent is what this process saved last.
        checked: whether the parent's files were hashed; if not, their lengths and times of change
            are what they were when this process wrote them.
        absent: names of the space's hyperparameters that do not count in this trial.
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
    """Set `trial.should_stop`, for good."""


@dataclass(frozen=True, slots=True)
class TaskReady:
    """The task is imported, and its `setup` has run."""


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """A sign of progress.

    Attributes:
        at: where training stands, in the budget's unit; None: the task did not say.
    """

    at: float | None


@dataclass(frozen=True, slots=True)
class TaskReturned:
    """The task trained its whole budget.

    Attributes:
        value, metrics, left_out, in_effect, provenance: as in `romul_workers.trainer.Success`.
        written: files of the checkpoint that are hashed already, by name.
        restore_s: how long the parent's restore took; None: nothing was restored.
        warm: whether it came from this process's memory.
        keeps: whether this process keeps what was saved.
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
        at: where training stands in the partial checkpoint; None: there is none.
        written: as in `TaskReturned`.
    """

    at: float | None
    written: Mapping[str, Written] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The task cannot be prepared, or the trial failed."""

    reason: FailureReason
    message: str


Request = PrepareTask | TrainTrial | StopTrial
TrialAnswer = TaskReturned | TaskInterrupted | TaskFailed
Answer = TaskReady | TrialAnswer
Message = Request | TaskProgress | Answer

_KINDS: Mapping[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """A message as bytes: its kind and its fields."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    # What a task returns may hold text that is none: a file's name in another encoding, say.
    body: bytes = msgpack.packb(
        [type(message).__name__, values], default=astuple, unicode_errors="backslashreplace"
    )
    return body


class Decoder:
    """Messages out of a stream of bytes, as they become complete."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=MAX_BUFFER)

    def feed(self, data: bytes) -> list[Message]:
        """All messages that are complete with `data`."""
        self._unpacker.feed(data)
        return [_message(*sent) for sent in self._unpacker]


def _message(kind: str, values: dict[str, Any]) -> Message:
    if "written" in values:
        values["written"] = {name: Written(*file) for name, file in values["written"].items()}
    return _KINDS[kind](**values)
