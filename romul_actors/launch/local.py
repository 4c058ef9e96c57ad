"""Workers of this machine, each with GPUs of its own."""

import os
from collections.abc import Sequence
from pathlib import Path

from romul_actors.launch import Fleet
from romul_actors.processes import Member


def members(fleet: Fleet, logs: Path) -> Sequence[Member]:
    """The workers as processes to look after; what tasks print goes to files in `logs`."""
    # Unless told otherwise the workers share the cores: more threads than cores only wait.
    threads = max(1, (os.cpu_count() or 1) // fleet.workers)
    made = []
    for number in range(fleet.workers):
        name = f"worker-{number + 1}"
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **fleet.environment}
        if fleet.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = fleet.gpus_of(number)
        arguments = ["worker", *fleet.arguments, f"--task-log={logs / name}.tasks.log"]
        made.append(Member(name, arguments, environment))
    return made
