"""Processes on this machine: how one is started and ended, and `romul` commands kept running."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from romul_actors.errors import RomulError
from romul_actors.waiting import longer

log = logging.getLogger("romul.launch")

PATIENCE = 5
"""A process that ends this many times within PATIENCE_S cannot run."""
PATIENCE_S = 60.0
RETRY_S = (2.0, 60.0)
"""First and longest pause before a process that keeps ending is restarted."""
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent process ends (Linux; elsewhere nothing happens).

    Call this in a child between fork and exec.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def spawn(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    module: str = "romul_actors.cli",
) -> asyncio.subprocess.Process:
    """Start `romul ARGUMENTS` with its output appended to `log`; it ends with this process.

    Args:
        arguments: arguments of the command.
        log: file for its output.
        environment: environment of the process.
        module: the module that runs the command line.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            # Nothing is imported from the current folder.
            "-P",
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            # Ctrl-C must reach only the parent, which ends the others in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


async def start_service(
    command: Sequence[str], output: int | IO[bytes], inherited: Sequence[int] = ()
) -> asyncio.subprocess.Process:
    """Start the process of a server or a broker, which ends with this process.

    Args:
        command: the program and its arguments.
        output: destination of its output.
        inherited: descriptors that stay open in it.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C must reach only the parent: workers still report to the server.
        start_new_session=True,
        preexec_fn=die_with_parent,
        pass_fds=inherited,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
    )


async def end(process: asyncio.subprocess.Process, patience_s: float = 20.0) -> None:
    """End a process by SIGTERM, and kill it after `patience_s` seconds."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()


def free_port() -> int:
    """A port that is now free on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Member:
    """One process of a crew: a command, its environment, and the times at which it ended.

    All times are of the monotonic clock.

    Attributes:
        began: time of its last start.
        ends: recent times at which it ended.
        pause_s: its last pause before a restart, in seconds; 0 if it does not keep ending.
        paused_until: end of that pause.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None
    began: float = 0.0
    ends: list[float] = field(default_factory=list)
    pause_s: float = 0.0
    paused_until: float = 0.0

    def ended(self) -> bool:
        """Record that the process has ended; returns whether it keeps ending."""
        now = time.monotonic()
        self.process = None
        recent = [at for at in self.ends if at > now - PATIENCE_S]
        self.ends = [*recent, now]
        if now - self.began > PATIENCE_S:
            self.pause_s = 0.0
        return len(self.ends) >= PATIENCE or self.pause_s > 0

    def pause(self) -> None:
        """Pause before the next start, longer each time."""
        self.pause_s = longer(self.pause_s, RETRY_S)
        self.paused_until = time.monotonic() + self.pause_s


class Crew:
    """Processes that are kept running.

    Args:
        members: the processes; they are ended in groups with the same first argument, the last
            member's group first.
        logs: folder for the output of each member.
        end_s: how long a member may take to end, in seconds.
        all_needed: whether all members are needed. If not, a member that keeps ending is restarted
            less and less often, as long as another one keeps running.
    """

    def __init__(
        self,
        members: Sequence[Member],
        logs: Path,
        end_s: float = 30.0,
        *,
        all_needed: bool = True,
    ) -> None:
        self._members = members
        self._logs = logs
        self._end_s = end_s
        self._all_needed = all_needed

    async def start(self) -> None:
        """Start each member that is not running.

        Raises:
            RomulError: all members are needed and one keeps ending or cannot be started, or this
                holds for all of them.
        """
        for member in self._members:
            if member.process is not None and member.process.returncode is None:
                continue
            file = self._logs / f"{member.name}.log"
            if member.process is not None and member.ended():
                self._pause(member, f"ended {PATIENCE} times within {PATIENCE_S:g} s; see {file}")
            if time.monotonic() < member.paused_until:
                continue
            member.began = time.monotonic()
            try:
                self._logs.mkdir(parents=True, exist_ok=True)
                member.process = await spawn(member.arguments, file, member.environment)
            except OSError as error:
                # The machine may be out of memory or processes only for the moment.
                self._pause(member, f"cannot be started: {error}")

    def _pause(self, member: Member, why: str) -> None:
        """Pause a member that keeps ending or cannot be started.

        Raises:
            RomulError: all members are needed, or the others are paused, too.
        """
        member.pause()
        if self._all_needed or all(o.pause_s and o.process is None for o in self._members):
            raise RomulError(f"{member.name} {why}")
        log.warning("%s %s; restart in %g s", member.name, why, member.pause_s)

    async def end(self) -> None:
        """End the workers first, so that the actor still decides the trials that they release."""
        for kind in reversed(dict.fromkeys(member.arguments[0] for member in self._members)):
            await self.end_all(kind)

    async def end_all(self, kind: str) -> None:
        """End the members whose first argument is `kind`; the others continue."""
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
        # Shielded, since a second Ctrl-C must not leave processes behind.
        await asyncio.shield(crew.end())
