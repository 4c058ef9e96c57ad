"""Starts and ends the supervisor, the process that starts all other processes of a local run."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from romul.supervisor import Plan
from romul_actors.errors import RomulError
from romul_actors.local.redis_server import url_of

END_S = 60.0
"""How long a run's processes may take to shut down."""


class Supervisor:
    """The process that starts and ends a run's other processes; see `supervised`."""

    def __init__(self, process: asyncio.subprocess.Process, logs: Path) -> None:
        self._process = process
        self._logs = logs

    @classmethod
    async def start(cls, plan: Plan) -> "Supervisor":
        """Start the process and send it the plan."""
        logs = Path(plan.folder) / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "supervisor.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # Import nothing from the current folder.
                "-P",
                "-m",
                "romul.supervisor",
                # Only for listings of processes; the plan contains it too.
                plan.folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C must reach only this program, which then ends the others.
                start_new_session=True,
            )
        made = cls(process, logs)
        made._write(plan.to_line())
        return made

    async def server(self) -> str:
        """Wait until the run's server answers, and return its URL.

        Raises:
            RomulError: the server cannot start.
        """
        said = await self._said()
        if "url" not in said:
            raise self._failure(said)
        return said["url"]

    def begin(self) -> None:
        """Tell the supervisor to start the actor and the workers."""
        self._write("begin\n")

    async def fail(self) -> None:
        """Wait until the supervisor has ended unexpectedly, and raise an error.

        Raises:
            RomulError: always; the message gives the reason if it is known.
        """
        said = await self._said()
        await self._process.wait()
        raise self._failure(said)

    async def end(self) -> None:
        """Shut down all of a run's processes."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _write(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode())

    async def _said(self) -> dict[str, str]:
        """The supervisor's next message; empty if it has ended."""
        line = b"" if self._process.stdout is None else await self._process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def _failure(self, said: dict[str, str]) -> RomulError:
        why = said.get("error", f"reason unknown; see {self._logs / 'supervisor.log'}")
        return RomulError(f"the run's processes ended: {why}")


@contextlib.asynccontextmanager
async def supervised(plan: Plan) -> AsyncIterator[Supervisor]:
    """Run a supervisor for the duration of a `with` block."""
    supervisor = await Supervisor.start(plan)
    try:
        yield supervisor
    finally:
        # Shielded: a second interrupt must not leave processes behind.
        await asyncio.shield(supervisor.end())


@contextlib.asynccontextmanager
async def server_of(folder: Path) -> AsyncIterator[str]:
    """URL of a local run's server. If none is running, one runs during this `with` block.

    A supervisor starts it, because starting a server directly is not safe in a program that has
    threads.
    """
    if (url := url_of(folder)) is not None:
        yield url
        return
    async with supervised(Plan(str(folder), workers=0)) as supervisor:
        yield await supervisor.server()
