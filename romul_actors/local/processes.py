"""`romul` commands as processes of this machine: started, started again, ended together."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from romul_actors.errors import RomulError
from romul_actors.local.redis_server import die_with_parent, end

PATIENCE = 5
"""A process that ends so often within PATIENCE_S cannot run."""
PATIENCE_S = 60.0


async def spawn(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    module: str = "romul_actors.cli",
) -> asyncio.subprocess.Process:
    """Start `romul ARGUMENTS`, with all its output appended to `log`; it ends with this process.

    Args:
        arguments: of the command.
        log: file for its output.
        environment: of the process.
        module: what runs the command line.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            # Ctrl-C reaches the parent only, which ends the others in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


@dataclass(slots=True)
class Member:
    """One process of a crew: a command with its environment, and when it ended before."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None
    ends: list[float] = field(default_factory=list)


class Crew:
    """Processes that are kept running.

    Args:
        members: they are ended in groups, by their first argument, the last member's first.
        logs: folder for each member's output.
        end_s: how long one may take to end, in seconds.
    """

    def __init__(self, members: Sequence[Member], logs: Path, end_s: float = 30.0) -> None:
        self._members = members
        self._logs = logs
        self._end_s = end_s

    async def start(self) -> None:
        """Start each member that is not running.

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
                member.arguments, self._logs / f"{member.name}.log", member.environment
            )

    async def end(self) -> None:
        """End the workers first, so that the actor still decides what they release."""
        for kind in reversed(dict.fromkeys(member.arguments[0] for member in self._members)):
            await self.end_all(kind)

    async def end_all(self, kind: str) -> None:
        """End those members whose first argument it is; the others go on."""
        members = [member for member in self._members if member.arguments[0] == kind]
        started = [member.process for member in members if member.process is not None]
        await asyncio.gather(*(end(process, self._end_s) for process in started))


@contextlib.asynccontextmanager
async def running(crew: Crew) -> AsyncIterator[Crew]:
    """Run a crew, and end it whatever happens."""
    try:
        await crew.start()
        yield crew
    finally:
        # Shielded: a second Ctrl-C must not leave processes behind.
        await asyncio.shield(crew.end())
