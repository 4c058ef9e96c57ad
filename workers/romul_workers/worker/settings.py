"""Settings of a worker."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from romul_workers.defaults import GARBAGE_MS, PACE_S, SHIPPED_TASKS


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a worker.

    Attributes:
        name: unique among all live workers.
        experiments: name patterns of the experiments that the worker serves.
        allow: patterns of the task modules that it may import.
        grace_s: how long a trial in training may go on when the worker must end, in seconds.
        max_trials: number of trials after which the worker ends; None: no limit.
        garbage_ms: how long unneeded checkpoints are kept, in milliseconds.
        pace_s: longest wait for a trial, in seconds. After twice this time the worker reads the
            list of experiments again and shows its presence.
        affinity_s: how long a trial whose parent is in this worker's memory may wait for this
            worker, in seconds; None: as long as a restore from files takes here; 0: not at all.
        overlap: whether a checkpoint is stored while the next trial trains; None: only if storing
            takes long (`overlap.py`).
        host, pid: shown in the worker's presence.
    """

    name: str
    experiments: Sequence[str] = ("*",)
    allow: Sequence[str] = (SHIPPED_TASKS,)
    grace_s: float = 10.0
    max_trials: int | None = None
    garbage_ms: int = GARBAGE_MS
    pace_s: float = PACE_S
    affinity_s: float | None = None
    overlap: bool | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
