"""Workers of this machine, each with GPUs of its own."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from romul_actors.launch import Fleet, LaunchError
from romul_actors.local.processes import Member


def members(fleet: Fleet, logs: Path) -> Sequence[Member]:
    """The workers as members of a crew; what tasks print goes to files in `logs`.

    Raises:
        LaunchError: there are fewer GPUs than the workers need.
    """
    # Without OMP_NUM_THREADS the workers share the cores: more threads than cores only wait.
    threads = max(1, (os.cpu_count() or 1) // fleet.workers)
    gpus = _gpus(fleet.workers * fleet.gpus) if fleet.gpus else []
    made = []
    for number in range(fleet.workers):
        name = f"worker-{number + 1}"
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **fleet.environment}
        if fleet.gpus:
            places = fleet.gpus_of(number)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[i] for i in places)
        arguments = ["worker", *fleet.arguments, f"--task-log={logs / name}.tasks.log"]
        made.append(Member(name, arguments, environment))
    return made


def _gpus(wanted: int) -> Sequence[str]:
    """Names of `wanted` GPUs: of those in CUDA_VISIBLE_DEVICES, else of all."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        there, said_by = [name for name in given.split(",") if name], "CUDA_VISIBLE_DEVICES"
    elif (program := shutil.which("nvidia-smi")) is not None:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)  # noqa: S603
        n = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
        there, said_by = [str(i) for i in range(n)], "nvidia-smi"
    else:
        # The number is not known here; a task that finds no GPU says so.
        return [str(i) for i in range(wanted)]
    if len(there) < wanted:
        raise LaunchError(
            f"the workers ask for {wanted} GPUs: {said_by} knows of {len(there)}: start fewer "
            "workers, or leave --gpus out to have them share"
        )
    return there
