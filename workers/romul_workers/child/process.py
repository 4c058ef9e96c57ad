"""The worker's side of its child process: starts it, sends it requests, and ends it.

`loop.py` runs in the process; `messages.py` defines the messages.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from romul_actors.core.events import MAX_TEXT
from romul_workers.child.descendants import MARK, kill_marked, new_mark
from romul_workers.child.messages import (
    Answer,
    Decoder,
    PrepareTask,
    StopTrial,
    TaskProgress,
    TrainTrial,
    encode,
)
from romul_workers.child.task_import import hiding

log = logging.getLogger("romul.worker")

LOG_TAIL = 2_000
"""How much of a crashed child's output is reported, in bytes."""
KILLED_S = 4.0
"""How long to wait for a killed process; one that hangs in the kernel never ends."""


class ChildDiedError(Exception):
    """The process ended without an answer; the message says how, with the end of its output."""


class StalledError(Exception):
    """No sign of progress arrived in time."""


class _Answers(asyncio.Protocol):
    """Receives signs of progress, and one answer to each request."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._on_sign: Callable[[TaskProgress | None], None] = _ignore
        self._answer: asyncio.Future[Answer | None] | None = None
        self._lost = False

    def expect(
        self, on_sign: Callable[[TaskProgress | None], None]
    ) -> asyncio.Future[Answer | None]:
        """Expect the next answer.

        Args:
            on_sign: called with each sign of progress, and with None when any data arrive.

        Returns:
            A future with the answer; None if the process closes its socket first.
        """
        self._on_sign = on_sign
        self._answer = asyncio.get_running_loop().create_future()
        if self._lost:
            self._answer.set_result(None)
        return self._answer

    def ignore(self) -> None:
        """Drop signs of progress until the next answer is expected."""
        self._on_sign = _ignore

    def data_received(self, data: bytes) -> None:
        """Pass on each complete message."""
        self._on_sign(None)
        for message in self._decoder.feed(data):
            if isinstance(message, TaskProgress):
                self._on_sign(message)
            elif isinstance(message, Answer):
                self._give(message)

    def connection_lost(self, _: Exception | None) -> None:
        """Answer None: the process has closed its socket."""
        self._lost = True
        self._give(None)

    def _give(self, answer: Answer | None) -> None:
        # The request may have been cancelled.
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


def _ignore(_: TaskProgress | None) -> None:
    pass


class ChildProcess:
    """One child process and the two sockets to it; made by `start`.

    Attributes:
        log_start: length of the output file when the process was started, in bytes.
        prepared: keys of the `PrepareTask` requests that it has answered.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        transport: asyncio.WriteTransport,
        answers: _Answers,
        control: socket.socket,
        log: Path,
        paths: Sequence[Path],
        mark: str,
    ) -> None:
        self._process = process
        self._paths = paths
        self._transport = transport
        self._answers = answers
        self._control = control
        self._log = log
        self._mark = mark
        self.log_start = log.stat().st_size
        self.prepared: set[str] = set()

    @classmethod
    async def start(
        cls, paths: Sequence[Path], log: Path, modules: Sequence[str] = ()
    ) -> "ChildProcess":
        """Start a process.

        Args:
            paths: folders to search for task modules before the installed ones.
            log: file that the process's output is appended to.
            modules: task modules to import at once, before the first request.

        Raises:
            OSError: the process cannot be started.
        """
        search = [str(path) for path in paths] + [os.environ.get("PYTHONPATH", "")]
        mark = new_mark()
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("ab"))
            unwind = stack.enter_context(contextlib.ExitStack())
            (ours, theirs), (control, controlled) = socket.socketpair(), socket.socketpair()
            for end in (theirs, controlled):
                stack.enter_context(end)
            for end in (ours, control):
                unwind.enter_context(end)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # Do not import from the current folder, unless it is in `paths`.
                "-P",
                "-m",
                "romul_workers.child.loop",
                str(theirs.fileno()),
                str(controlled.fileno()),
                *modules,
                pass_fds=(theirs.fileno(), controlled.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # In its own process group, so that what the task starts is killed with it.
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, search)),
                    MARK: mark,
                },
            )
            unwind.pop_all()
        transport, answers = await asyncio.get_running_loop().create_connection(_Answers, sock=ours)
        return cls(process, transport, answers, control, log, paths, mark)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.returncode is not None

    def ask_to_stop(self) -> None:
        """Set `trial.should_stop` in the process for all its trials from now on."""
        with contextlib.suppress(OSError):
            self._control.send(encode(StopTrial()))

    async def request(
        self,
        request: PrepareTask | TrainTrial,
        stall_s: float | None,
        progress: Callable[[float | None], None],
    ) -> Answer:
        """Send a request and wait for the answer.

        Args:
            request: the request.
            stall_s: longest silence of the process, in seconds; None: any.
            progress: called with the position of each sign of progress.

        Raises:
            ChildDiedError: the process ended without an answer.
            StalledError: the process sent nothing for `stall_s`.
        """
        loop = asyncio.get_running_loop()
        silence = asyncio.timeout(stall_s)

        def on_sign(sign: TaskProgress | None) -> None:
            if stall_s is not None:
                silence.reschedule(loop.time() + stall_s)
            if sign is not None:
                progress(sign.at)

        try:
            async with silence:
                answered = self._answers.expect(on_sign)
                self._transport.write(encode(request))
                answer = await answered
        except TimeoutError:
            # A time limit of a caller raises the same exception; only this one means a stall.
            if silence.expired():
                raise StalledError from None
            raise
        finally:
            self._answers.ignore()
        if answer is None:
            raise ChildDiedError(await self._cause_of_death())
        return answer

    async def _cause_of_death(self) -> str:
        code = await self._process.wait()
        how = f"exit status {code}" if code >= 0 else f"signal {_signal_name(-code)}"
        with self._log.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(self.log_start, size - LOG_TAIL))
            tail = output.read().decode(errors="replace").strip()
        text = f"the task's process ended by {how}" + (f"; its last words:\n{tail}" if tail else "")
        if hidden := hiding(map(str, self._paths), tail):
            return f"{hidden}\n\n{text}"[:MAX_TEXT]
        return text[-MAX_TEXT:]

    async def end(self) -> None:
        """Kill the process and all that it started; wait for its end, for `KILLED_S` at most."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        kill_marked(self._mark)
        self._transport.close()
        self._control.close()
        try:
            async with asyncio.timeout(KILLED_S):
                # Shielded, so that a worker that is being cancelled still reaps its child.
                await asyncio.shield(self._process.wait())
        except TimeoutError:
            log.warning(
                "the task's process %d was killed and has not ended; the worker does not wait "
                "for it any longer",
                self._process.pid,
            )


def _signal_name(number: int) -> str:
    """A signal's name, or its number if it has none (most real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
