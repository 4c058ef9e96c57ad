"""Messages: the trials that workers receive, and the events that the actor applies.

They are plain values (`value.py`), which the core and the simulator use directly; `messages.py`
encodes them. `MAX_TEXT` limits every free text, so that one crash report cannot fill a server.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from romul_actors.core.space import Value
from romul_actors.core.value import value

MAX_TEXT = 8_000
"""Longest free text in a message, in characters."""

FailureReason = Literal[
    "exception",  # the task raised
    "not_finite",  # the task returned NaN or an infinity
    "bad_result",  # the task returned something other than its metric
    "no_checkpoint",  # the task returned without writing a checkpoint
    "out_of_memory",  # the machine or the device has run out of memory
    "killed",  # the child process died (a crash, or the kernel's out-of-memory killer)
    "timed_out",  # longer than timeouts.trial_s
    "stalled",  # no sign of progress for timeouts.stall_s
    "lost_parent",  # the parent checkpoint cannot be read
    "storage",  # the new checkpoint cannot be written
    "task",  # the task cannot be imported, or this worker does not allow it
]

ReleaseReason = Literal[
    "preempted",  # the worker's machine is about to be taken away
    "drained",  # an operator asked the worker to end
    "stopped",  # the experiment was stopped or removed
    "outdated",  # another copy of the trial was faster
    "no_room",  # the disk or the quota for checkpoints is full
    "missing",  # neither in a queue nor with a worker: the server was restored without it
]


@value(kw_only=True)
class TrialMessage:
    """One PBT step of one slot, as it is sent to a worker.

    A task gets it as a `romul_workers.trial.Trial`. `id` is "SLOT-STEP". `id` and `attempt` are the
    fencing token: among all workers that have ever held the trial, only those with a live attempt
    can report it.
    """

    type: Literal["trial"] = "trial"
    id: str
    slot: int
    step: int
    attempt: int
    hyperparameters: Mapping[str, Value]
    parent: str | None
    """Name of the checkpoint to continue from; None means from scratch."""
    start: float
    """Position at which training begins, in the unit of the budget, from the search's beginning."""
    stop: float
    seed: int
    resumed: bool = False
    """Whether `parent` is a partial checkpoint of this same trial."""


@value(kw_only=True)
class Result:
    """A trial ended with a finite metric and a complete checkpoint."""

    type: Literal["result"] = "result"
    trial: str
    slot: int
    attempt: int
    worker: str
    value: float
    """The metric as the task returned it."""
    checkpoint: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    in_effect: Mapping[str, Value] = field(default_factory=dict)
    """Hyperparameters that the worker read back after it had applied them."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Returned values that are not numbers: their types by name. Each worker sends them once."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Code, packages and machine of the training; empty if the same as in the last result."""


@value(kw_only=True)
class Failed:
    """A trial ended without a result, through its own fault."""

    type: Literal["failed"] = "failed"
    trial: str
    slot: int
    attempt: int
    worker: str
    reason: FailureReason
    message: str
    seconds: float


@value(kw_only=True)
class Released:
    """A worker gave a trial back, through no fault of the trial."""

    type: Literal["released"] = "released"
    trial: str
    slot: int
    attempt: int
    worker: str
    reason: ReleaseReason
    message: str = ""
    checkpoint: str | None = None
    """Name of a partial checkpoint from which the next attempt continues."""
    at: float | None = None
    """Position of the training in the partial checkpoint, in the unit of the budget."""
    seconds: float = 0.0
    """How long the worker had the trial, in seconds."""


@value(kw_only=True)
class Expired:
    """A lease expired because its worker sent no heartbeats."""

    type: Literal["expired"] = "expired"
    trial: str
    slot: int
    attempt: int
    worker: str


@value(kw_only=True)
class Submitted:
    """The experiment was created."""

    type: Literal["submitted"] = "submitted"


@value(kw_only=True)
class Control:
    """An operator's request."""

    type: Literal["control"] = "control"
    action: Literal[
        "pause", "resume", "stop", "pin", "unpin", "drain", "bounds", "extend", "change"
    ]
    by: str = ""
    slot: int | None = None
    """The slot to pin or unpin. A pinned slot keeps its hyperparameters and copies no slot."""
    worker: str = ""
    """The worker to drain. The request itself goes through the broker; this is for the history."""
    parameter: str = ""
    """The hyperparameter with new bounds."""
    low: float = 0.0
    high: float = 0.0
    steps: int = 0
    """The new total number of steps."""
    population: int = 0
    """The new number of slots; 0 keeps the old one."""
    constants: Mapping[str, Value] = field(default_factory=dict)
    """New values of constants of the optimizer."""


@value(kw_only=True)
class Tick:
    """Time has passed, and `workers` workers are alive.

    Ticks make time limits take effect even if nothing else happens.
    """

    type: Literal["tick"] = "tick"
    workers: int


Event = Result | Failed | Released | Expired | Submitted | Control | Tick


@value()
class Stamped:
    """An event with its time of arrival by the store's clock, in milliseconds since the epoch."""

    event: Event
    at_ms: int
