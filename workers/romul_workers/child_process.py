"""The worker's side of its child process: starts it, sends it requests, and ends it.

What runs in the process is `child.py`; what is sent, `child_messages.py`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from romul_actors.core.events import MAX_TEXT
from romul_workers.child_messages import Answer, Decoder, Request, TaskProgress, encode
from romul_workers.task_import import hiding

LOG_TAIL = 2_000
"""How much of a crashed child's output is reported, in bytes."""


class ChildDiedError(Exception):
    """The process ended without an answer; the message says how, with the end of its output."""


class StalledError(Exception):
    """No sign of progress came in time."""


class ChildProcess:
    """One child process and the socket to it; made by `start`.

    Attributes:
        log_start: how long the file of its output was when it was started, in bytes.
        prepared: keys of the experiments whose task is imported and set up.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: Path,
        paths: Sequence[Path],
    ) -> None:
        self._process = process
        self._paths = paths
        self._reader = reader
        self._writer = writer
        self._log = log
        self.log_start = log.stat().st_size
        self._decoder = Decoder()
        self.prepared: set[str] = set()

    @classmethod
    async def start(
        cls, paths: Sequence[Path], log: Path, modules: Sequence[str] = ()
    ) -> "ChildProcess":
        """Start a process.

        Args:
            paths: folders to find task modules in, before the installed ones.
            log: file that its output is appended to.
            modules: task modules to import at once, before anything is requested.

        Raises:
            OSError: this machine cannot start one.
        """
        search = [str(path) for path in paths] + [os.environ.get("PYTHONPATH", "")]
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("ab"))
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            unwind = stack.enter_context(contextlib.ExitStack())
            unwind.enter_context(ours)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "romul_workers.child",
                str(theirs.fileno()),
                *modules,
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A process group of its own: ended as one, with all that the task started.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
            )
            unwind.pop_all()
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer, log, paths)

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    def send(self, request: Request) -> None:
        """Send a request without waiting for its answer."""
        self._writer.write(encode(request))

    async def request(
        self,
        request: Request,
        stall_s: float | None,
        progress: Callable[[float | None], None],
    ) -> Answer:
        """Send a request and wait for the answer, while signs of progress come in.

        Raises:
            ChildDiedError: the process ended without one.
            StalledError: nothing came for `stall_s`.
        """
        try:
            self.send(request)
            await self._writer.drain()
            while data := await self._read(stall_s):
                for message in self._decoder.feed(data):
                    if isinstance(message, TaskProgress):
                        progress(message.at)
                    elif isinstance(message, Answer):
                        return message
        except ConnectionError:
            pass
        raise ChildDiedError(await self._cause_of_death())

    async def _read(self, stall_s: float | None) -> bytes:
        reading = asyncio.timeout(stall_s)
        try:
            async with reading:
                return await self._reader.read(65_536)
        except TimeoutError:
            # An outer time limit looks the same; only our own means a stall.
            if reading.expired():
                raise StalledError from None
            raise

    async def _cause_of_death(self) -> str:
        code = await self._process.wait()
        how = f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        with self._log.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(self.log_start, size - LOG_TAIL))
            tail = output.read().decode(errors="replace").strip()
        text = f"the task's process ended by {how}" + (f"; its last words:\n{tail}" if tail else "")
        if hidden := hiding(map(str, self._paths), tail):
            return f"{hidden}\n\n{text}"[:MAX_TEXT]
        return text[-MAX_TEXT:]

    async def end(self) -> None:
        """Kill the process with all it started, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Shielded: a worker that is itself being ended still reaps its child.
        await asyncio.shield(self._process.wait())
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
