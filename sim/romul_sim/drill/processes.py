"""The processes of a drill: server, broker, actors and workers; restarts those that end."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from romul_actors.local.mqtt_broker import embedded_broker, has_broker
from romul_actors.local.processes import free_port, spawn
from romul_actors.local.redis_server import embedded_server
from romul_actors.waiting import cancel

GRACE_S = 2.0
"""Grace period of the workers, in seconds."""
RESTART_S = 0.3
"""Time after which a process that has ended is restarted, in seconds."""


class Services:
    """The server and, if one is installed here, the broker.

    Args:
        folder: folder for their files.

    Attributes:
        urls: URLs of those that are started, by "server" and "broker".
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {"server": free_port(), "broker": free_port()}
        self._running: dict[str, contextlib.AsyncExitStack] = {}
        self.urls: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator["Services"]:
        """Start both for the duration of an `async with` block."""
        try:
            await self._start("server")
            if has_broker():
                await self._start("broker")
            yield self
        finally:
            for stack in reversed(list(self._running.values())):
                await stack.aclose()

    async def _start(self, which: str) -> None:
        stack = contextlib.AsyncExitStack()
        port = self._ports[which]
        context = (
            embedded_server(self._folder, port=port, password="drill")  # noqa: S106
            if which == "server"
            else embedded_broker(self._folder, port, "drill")
        )
        self.urls[which] = await stack.enter_async_context(context)
        self._running[which] = stack

    async def restart(self, which: str, after_s: float) -> None:
        """Kill one without warning; after `after_s` seconds restart it with its files."""
        home = self._folder / ("redis/server.pid" if which == "server" else "broker/broker.pid")
        send(int(home.read_text()), signal.SIGKILL)
        await self._running.pop(which).aclose()
        await asyncio.sleep(after_s)
        await self._start(which)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which actors and workers find both."""
        mqtt = {"ROMUL_MQTT_URL": self.urls["broker"]} if "broker" in self.urls else {}
        return {
            "ROMUL_REDIS_URL": self.urls["server"],
            "ROMUL_MQTT_KEEPALIVE_S": "1",
            "OMP_NUM_THREADS": "1",
            **mqtt,
        }


class Processes:
    """Actors and workers, which are restarted whenever they end.

    Args:
        folder: folder for logs.
        environment: environment variables for server and broker.
        commands: arguments of each process, by name.
        modules: module that runs the command line instead of `romul_actors.cli`, by name.

    Attributes:
        starts: number of starts, by name.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        commands: Mapping[str, Sequence[str]],
        modules: Mapping[str, str] | None = None,
    ) -> None:
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._environment = {**os.environ, **environment}
        self._commands = commands
        self._modules = modules or {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.starts: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator["Processes"]:
        """Keep all processes running for the duration of an `async with` block."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            await cancel(keeping)
            await self._end()

    async def _keep(self) -> None:
        while True:
            for name in self._commands:
                process = self._processes.get(name)
                if process is None or process.returncode is not None:
                    await self._start(name)
            await asyncio.sleep(RESTART_S)

    async def _start(self, name: str) -> None:
        self.starts[name] += 1
        self._processes[name] = await spawn(
            self._commands[name],
            self._logs / f"{name}.log",
            self._environment,
            self._modules.get(name, "romul_actors.cli"),
        )

    def pick(self, kind: str, pick: float) -> int | None:
        """Process id of a live process of a kind; None: there is none.

        Args:
            kind: beginning of its name.
            pick: selects one of them, in [0, 1).
        """
        alive = [
            process.pid
            for name, process in self._processes.items()
            if name.startswith(kind) and process.returncode is None
        ]
        return alive[int(pick * len(alive))] if alive else None

    async def _end(self) -> None:
        """End all processes; kill those that do not end in time."""
        for process in self._processes.values():
            thaw(list(tree(process.pid)))
            send(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                async with asyncio.timeout(2 * GRACE_S + 5):
                    await process.wait()
            except TimeoutError:
                send(process.pid, signal.SIGKILL)
                await process.wait()


def tree(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from tree(int(child))


def thaw(pids: Iterable[int]) -> None:
    """Let frozen processes continue."""
    for pid in pids:
        send(pid, signal.SIGCONT)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
