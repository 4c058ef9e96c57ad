"""An actor and workers as processes on this machine, for a local run."""

import os
from collections.abc import Sequence
from pathlib import Path

from romul_actors.launch import Fleet, local_workers
from romul_actors.local.processes import Crew, Member


def crew(
    url: str,
    folder: Path,
    workers: int,
    allow: Sequence[str],
    paths: Sequence[Path],
    mqtt: str | None = None,
    gpus: int = 0,
) -> Crew:
    """Make the crew of a local run.

    Args:
        url: the server; passed in the environment, so that other users do not see its password.
        folder: the run's folder; logs go to its subfolder `logs`.
        workers: number of workers.
        allow: task modules that the workers may import.
        paths: folders of task modules.
        mqtt: the broker, passed in the same way; None for no broker.
        gpus: number of GPUs that each worker has for itself; 0: all share those that they see.

    Raises:
        LaunchError: there are fewer GPUs than the workers need.
    """
    environment = {"ROMUL_REDIS_URL": url, **({} if mqtt is None else {"ROMUL_MQTT_URL": mqtt})}
    options = [f"--allow={module}" for module in allow] + [f"--path={path}" for path in paths]
    logs = folder / "logs"
    fleet = Fleet(workers=workers, arguments=options, environment=environment, gpus=gpus)
    actor = Member("actor", ["actor"], {**os.environ, **environment})
    return Crew([actor, *local_workers.members(fleet, logs)], logs)
