"""An actor and workers as processes of this machine: started, restarted, ended together."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from romul_actors.errors import RomulError
from romul_actors.processes import spawn

PATIENCE = 5
"""So many ends of one process within PATIENCE_S are no accident."""
PATIENCE_S = 60.0
END_S = 30.0


@dataclass(slots=True)
class _Member:
    name: str
    arguments: Sequence[str]
    process: asyncio.subprocess.Process | None = None
    ends: list[float] = field(default_factory=list)


class Crew:
    """The processes of a local run.

    Args:
        url: the server; passed by the environment, where other users do not see its password.
        folder: the run's folder; logs go to its `logs`.
        workers: how many workers.
        allow: task modules that they may import.
        paths: folders that they find task modules in.
        mqtt: the broker, passed in the same way; None: there is none.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        workers: int,
        allow: Sequence[str],
        paths: Sequence[Path],
        mqtt: str | None = None,
    ) -> None:
        self._logs = folder / "logs"
        threads = max(1, (os.cpu_count() or 1) // workers)
        # Unless told otherwise the workers share the cores: more threads than cores only wait.
        self._environment = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "ROMUL_REDIS_URL": url,
        }
        if mqtt is not None:
            self._environment["ROMUL_MQTT_URL"] = mqtt
        options = [f"--allow={module}" for module in allow] + [f"--path={path}" for path in paths]
        self._members = [_Member("actor", ["actor"])]
        for number in range(1, workers + 1):
            task_log = self._logs / f"worker-{number}.tasks.log"
            self._members.append(
                _Member(f"worker-{number}", ["worker", *options, f"--task-log={task_log}"])
            )

    async def start(self) -> None:
        """Start whoever is not running.

        Raises:
            RomulError: one of them ends again and again.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        for member in self._members:
            if member.process is not None and member.process.returncode is None:
                continue
            if member.process is not None:
                member.ends.append(time.monotonic())
                recent = [at for at in member.ends if at > time.monotonic() - PATIENCE_S]
                if len(recent) >= PATIENCE:
                    raise RomulError(
                        f"{member.name} ended {PATIENCE} times within {PATIENCE_S:g} s; "
                        f"see {self._logs / member.name}.log"
                    )
            member.process = await spawn(
                member.arguments, self._logs / f"{member.name}.log", self._environment
            )

    async def end(self) -> None:
        """End the workers first, so that the actor still hears what they give back."""
        for kind in ("worker", "actor"):
            members = [member for member in self._members if member.name.startswith(kind)]
            await asyncio.gather(*(_end(member) for member in members))


async def _end(member: _Member) -> None:
    process = member.process
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def crew(
    url: str,
    folder: Path,
    workers: int,
    allow: Sequence[str],
    paths: Sequence[Path],
    mqtt: str | None = None,
) -> AsyncIterator[Crew]:
    """Run a crew, and end it whatever happens."""
    members = Crew(url, folder, workers, allow, paths, mqtt)
    try:
        await members.start()
        yield members
    finally:
        # Shielded: a second Ctrl-C must not leave processes behind.
        await asyncio.shield(members.end())
