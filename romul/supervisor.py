"""The process that starts and ends a local run's other processes: server, broker, actor, workers.

`romul.processes` starts it as `python -m romul.supervisor FOLDER`. The first line of standard input
is the plan; a second line starts the actor and the workers. At the end of the input, the program
that started the run has ended the run or has died, and the supervisor shuts everything down. So no
process outlives the user's program, whatever ended it.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from romul_actors.errors import RomulError
from romul_actors.local.processes import running
from romul_actors.local.redis_server import embedded_server
from romul_actors.waiting import pause

LOOK_S = 0.5
"""Interval at which processes that have died are restarted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        folder: folder of the run, for data, logs and the server's address.
        workers: number of worker processes.
        allow: task modules that the workers may import.
        paths: folders in which the workers look for these modules.
        gpus: number of GPUs that each worker has for itself; 0: all share those that they see.
    """

    folder: str
    workers: int
    allow: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    gpus: int = 0

    def to_line(self) -> str:
        """The plan as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read a plan that `to_line` has written."""
        return cls(**json.loads(line))


async def supervise(plan: Plan) -> None:
    """Run a plan until the input ends.

    Raises:
        RomulError: no server program is installed, or a process dies repeatedly.
    """
    folder = Path(plan.folder)
    async with contextlib.AsyncExitStack() as stack:
        stop, begin = asyncio.Event(), asyncio.Event()
        _listen(stop, begin)
        url = await stack.enter_async_context(embedded_server(folder))
        _say(url=url)
        await begin.wait()
        if stop.is_set():
            return
        # A supervisor that only starts a server needs neither, and they take a while to import.
        from romul_actors.launch.crew import crew  # noqa: PLC0415
        from romul_actors.local.mqtt_broker import embedded_broker, has_broker  # noqa: PLC0415

        mqtt = None
        if has_broker():
            mqtt = await stack.enter_async_context(embedded_broker(folder))
        paths = [Path(path) for path in plan.paths]
        members = crew(url, folder, plan.workers, plan.allow, paths, mqtt, plan.gpus)
        await stack.enter_async_context(running(members))
        while not stop.is_set():
            await members.start()
            await pause(LOOK_S, stop)


def _listen(stop: asyncio.Event, begin: asyncio.Event) -> None:
    """Set `begin` at the next line of input; set both events at its end, or at SIGTERM or SIGINT.

    Both are also set when the parent process has died.
    """
    loop = asyncio.get_running_loop()
    parent = os.getppid()

    def end() -> None:
        stop.set()
        begin.set()

    def read() -> None:
        begin.set()
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    def look() -> None:
        # A child of the parent may have inherited the pipe, and keep the input open.
        if os.getppid() != parent:
            end()
        else:
            loop.call_later(LOOK_S, look)

    loop.add_reader(0, read)
    look()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _say(**values: str) -> None:
    """Send a message to the program that started the run."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(values).encode() + b"\n")


def _first_line() -> str:
    """Read exactly the first line of the input; the event loop reads the rest."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line.decode()


def main() -> None:
    """Run the plan in the first line of the input."""
    line = _first_line()
    if not line:
        return
    try:
        asyncio.run(supervise(Plan.from_line(line)))
    except RomulError as error:
        _say(error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
