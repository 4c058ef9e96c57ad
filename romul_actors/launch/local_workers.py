"""Workers on this machine, each with its own GPUs."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from romul_actors.launch import Fleet, LaunchError
from romul_actors.local.processes import Member


def members(fleet: Fleet, logs: Path) -> Sequence[Member]:
    """The workers as members of a crew; the output of tasks goes to files in `logs`.

    Raises:
        LaunchError: there are fewer GPUs than the workers need.
    """
    # The workers share the cores, unless OMP_NUM_THREADS is set: more threads would only wait.
    threads = max(1, (os.cpu_count() or 1) // fleet.workers)
    gpus = names_of_gpus(fleet.workers * fleet.gpus)
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


def names_of_gpus(wanted: int) -> Sequence[str]:
    """Names of GPUs, from CUDA_VISIBLE_DEVICES or else of all GPUs.

    Raises:
        LaunchError: there are fewer than `wanted`.
    """
    if not wanted:
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        there, said_by = [name for name in given.split(",") if name], "CUDA_VISIBLE_DEVICES"
    elif (program := shutil.which("nvidia-smi")) is not None:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)  # noqa: S603
        n = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
        there, said_by = [str(i) for i in range(n)], "nvidia-smi"
    else:
        # The number is unknown here; a task that finds no GPU reports it.
        return [str(i) for i in range(wanted)]
    if len(there) < wanted:
        raise LaunchError(
            f"the workers need {wanted} GPUs, but {said_by} lists {len(there)}: start fewer "
            "workers, or leave out --gpus so that they share"
        )
    return there
