"""What travels: the trials that workers receive and the events that the decision actor folds.

Plain values (`value.py`), so that the pure core and the simulator use them as they are;
`messages.py` puts them on the wire. `MAX_TEXT` bounds every free text, so that one crash report
cannot fill a server.
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
    "bad_result",  # the task returned something else than its metric
    "no_checkpoint",  # the task returned, and wrote nothing
    "out_of_memory",  # the task ran out of its machine's or its device's memory
    "killed",  # the child process ended without a word (a crash, the kernel's out-of-memory killer)
    "timed_out",  # longer than timeouts.trial_s
    "stalled",  # no sign of progress for timeouts.stall_s
    "lost_parent",  # the parent checkpoint cannot be read
    "storage",  # the new checkpoint cannot be written
    "task",  # the task cannot be imported, or this worker does not allow it
]

ReleaseReason = Literal[
    "preempted",  # the worker's machine is about to go
    "drained",  # an operator asked the worker to end
    "stopped",  # the experiment is no more
    "outdated",  # another copy of the trial was faster
    "no_room",  # the disk or the quota for checkpoints is full
    "missing",  # found in no queue and with no worker: a server came back without it
]


@value(kw_only=True)
class TrialMessage:
    """One PBT step of one slot, as a queue carries it to a worker.

    What a task gets from it is `romul_workers.trial.Trial`. `id` is "SLOT-STEP". (`id`, `attempt`)
    is the fencing token: of all workers that ever held the trial, only one with a live attempt can
    report it.
    """

    type: Literal["trial"] = "trial"
    id: str
    slot: int
    step: int
    attempt: int
    hyperparameters: Mapping[str, Value]
    parent: str | None
    """Name of the checkpoint to continue from; None: from scratch."""
    start: float
    """Where training stands, in the budget's unit, counted from the very beginning."""
    stop: float
    seed: int
    resumed: bool = False
    """Whether `parent` is a partial checkpoint of this very trial."""


@value(kw_only=True)
class Result:
    """A trial ended with a finite metric and a whole checkpoint."""

    type: Literal["result"] = "result"
    trial: str
    slot: int
    attempt: int
    worker: str
    value: float
    """The user's metric, with the user's sign."""
    checkpoint: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    in_effect: Mapping[str, Value] = field(default_factory=dict)
    """Hyperparameters that the worker read back after it had applied them."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What else the task returned, and is no figure: types by name, sent once by each worker."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Code, packages and machine that trained it, if not as in the worker's last result."""


@value(kw_only=True)
class Failed:
    """A trial ended without a result, for a reason of its own."""

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
    """A trial was given back: not the trial's fault."""

    type: Literal["released"] = "released"
    trial: str
    slot: int
    attempt: int
    worker: str
    reason: ReleaseReason
    message: str = ""
    checkpoint: str | None = None
    """Name of a partial checkpoint, from which the next attempt goes on."""
    at: float | None = None
    """Where training stands in it, in the budget's unit."""
    seconds: float = 0.0
    """How long the worker had it."""


@value(kw_only=True)
class Expired:
    """A lease ended without a word from its worker."""

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
    """What is pinned: it continues with its hyperparameters, and copies no slot."""
    worker: str = ""
    """The worker to drain. The request itself goes over the broker; this is for history."""
    parameter: str = ""
    """The hyperparameter with new bounds."""
    low: float = 0.0
    high: float = 0.0
    steps: int = 0
    """How many steps an extended search has in all."""
    population: int = 0
    """How many slots a changed search has; 0: as many as before."""
    constants: Mapping[str, Value] = field(default_factory=dict)
    """Constants of a changed search's optimizer that are others from then on."""


@value(kw_only=True)
class Tick:
    """Time passed; `workers` are alive. What lets a time limit fire when nothing else happens."""

    type: Literal["tick"] = "tick"
    workers: int


Event = Result | Failed | Released | Expired | Submitted | Control | Tick


@value()
class Stamped:
    """An event with the store's own time of its arrival, in milliseconds since the epoch."""

    event: Event
    at_ms: int
