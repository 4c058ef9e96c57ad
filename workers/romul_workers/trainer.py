"""Training one trial: what the worker asks for, and the real thing in a child process.

The worker knows `Trainer` only, so that the simulator can stand in for the hours of training.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from romul_actors.core.events import MAX_TEXT, FailureReason
from romul_actors.core.events import Trial as TrialMessage
from romul_actors.errors import CheckpointError, NoRoomError
from romul_actors.protocol.experiment import Experiment
from romul_workers.checkpoints import NO_ROOM, Checkpoints
from romul_workers.task_import import hiding

SCRATCH = "romul-worker-"
LEFT_S = 60.0
"""A folder that is younger may not be locked yet, though its worker lives."""
LOG_TAIL = 2_000
"""How much of a crashed child's output is reported, in bytes."""


@dataclass(frozen=True, slots=True)
class Success:
    """A trial trained its whole budget, and its checkpoint is stored.

    Attributes:
        value: the experiment's metric.
        checkpoint: its name.
        metrics: all other figures that the task returned.
        in_effect: hyperparameters that were read back after they had been applied.
        left_out: what the task returned and is no figure; see `romul_workers.figures`.
    """

    value: float
    checkpoint: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    in_effect: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """A trial failed, for a reason of its own."""

    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The task followed `trial.should_stop` before its budget was trained.

    Attributes:
        checkpoint: name of the partial checkpoint that it left; None: nothing is left.
        at: where training stands in it, in the budget's unit.
    """

    checkpoint: str | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing can be stored here now: no fault of the trial, and it may pass."""

    message: str


Ending = Success | Failure | Stopped | NoRoom


class Trainer(ABC):
    """Trains trials, one at a time."""

    at: float | None = None
    """Where the trial in training said it stands, in the budget's unit; None: it did not."""
    output: str = ""
    """What the latest trial printed, if that is known."""

    @abstractmethod
    async def train(self, experiment: Experiment, trial: TrialMessage) -> Ending:
        """Train one trial to its end. Cancelled: it is ended at once, and leaves nothing."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Set `trial.should_stop`, for good: the worker is about to end."""

    @abstractmethod
    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        """Remove the checkpoint of a trial that was not accepted."""

    @abstractmethod
    async def close(self) -> None:
        """End whatever still runs."""


class _ChildDiedError(Exception):
    pass


class _StalledError(Exception):
    pass


class ChildTrainer(Trainer):
    """Trains in a child process, kept warm between trials and replaced after a failure.

    Args:
        scratch: local folder for copies of remote checkpoints and the child's output.
        paths: folders to find task modules in, before the installed ones.
        log: file for the child's output; None: one in `scratch`.
        device: in place of the experiment's own, if given.
        quota: most bytes that an experiment's checkpoints may take; None: what the disk holds.
    """

    def __init__(
        self,
        scratch: Path,
        paths: Sequence[Path] = (),
        log: Path | None = None,
        device: str | None = None,
        quota: int | None = None,
    ) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch
        self._paths = paths
        self._log = log or scratch / "task.log"
        self._device = device
        self._quota = quota
        self._child: _Child | None = None
        self._stopping = False

    async def train(self, experiment: Experiment, trial: TrialMessage) -> Ending:
        # No two attempts ever share a name, not even those of a server that lost its last second.
        name = f"{trial.id}-{trial.attempt}-{secrets.token_hex(3)}"
        self.at, self.output = None, ""
        printed = self._log.stat().st_size if self._log.exists() else 0
        try:
            checkpoints = self._checkpoints(experiment)
            folder = await asyncio.to_thread(checkpoints.begin, name)
            try:
                return await self._train_into(folder, name, checkpoints, experiment, trial)
            finally:
                checkpoints.discard(folder)
                self.output = _read_from(self._log, printed)
        except NoRoomError as error:
            return NoRoom(str(error))
        except CheckpointError as error:
            return Failure("storage", str(error))
        except OSError as error:
            # No process, no log, no socket: this machine's fault, and not the worker's end.
            await self.close()
            if error.errno in NO_ROOM:
                return NoRoom(str(error))
            return Failure("storage", f"this machine cannot train: {error}")

    def _checkpoints(self, experiment: Experiment) -> Checkpoints:
        if experiment.checkpoints is None:
            raise CheckpointError("the experiment says no place for checkpoints")
        return Checkpoints(experiment.checkpoints, self._scratch, self._quota)

    async def _train_into(
        self,
        folder: Path,
        name: str,
        checkpoints: Checkpoints,
        experiment: Experiment,
        trial: TrialMessage,
    ) -> Ending:
        parent = None
        if trial.parent is not None:
            try:
                parent = await asyncio.to_thread(checkpoints.fetch, trial.parent)
            except NoRoomError:
                raise
            except CheckpointError as error:
                return Failure("lost_parent", str(error))
        answer = await self._ask_child(folder, parent, experiment, trial)
        if answer["is"] == "failed":
            if answer["reason"] != "not_finite":
                # Memory, CUDA contexts and half-done work of the task go with the process. Whoever
                # diverged has come to its end as others do: no reason to import all anew.
                await self.close()
            if answer["reason"] == "exception" and await asyncio.to_thread(checkpoints.full):
                return NoRoom(f"the disk is full; the task said: {answer['message']}")
            return Failure(answer["reason"], answer["message"])
        if answer["is"] == "stopped" and answer.get("at") is None:
            return Stopped()
        await asyncio.to_thread(checkpoints.publish, folder, name)
        if answer["is"] == "stopped":
            return Stopped(name, answer["at"])
        told = (answer[key] for key in ("metrics", "in_effect", "left_out"))
        return Success(answer["value"], name, *told)

    async def _ask_child(
        self, folder: Path, parent: Path | None, experiment: Experiment, trial: TrialMessage
    ) -> Mapping[str, Any]:
        key = hashlib.sha256(experiment.model_dump_json().encode()).hexdigest()
        prepare = {
            "do": "prepare",
            "key": key,
            "experiment": experiment.name,
            "module": experiment.module,
            "function": experiment.function,
            "device": self._device or experiment.resources.device,
            "constants": experiment.constants,
        }
        train = {
            "do": "train",
            "key": key,
            "metric": experiment.metric,
            "id": trial.id,
            "hyperparameters": trial.hyperparameters,
            "parent": str(parent) if parent else None,
            "checkpoint": str(folder),
            "start": trial.start,
            "stop": trial.stop,
            "seed": trial.seed,
            "step": trial.step,
            "resumed": trial.resumed,
        }
        limits = experiment.timeouts
        try:
            for message, limit_s in ((prepare, limits.setup_s), (train, limits.trial_s)):
                # Asked to stop while the process was still starting: nobody heard it there.
                if self._stopping:
                    return {"is": "stopped"}
                child = self._child = self._child or await _Child.start(self._paths, self._log)
                if message is prepare and key in child.prepared:
                    continue
                stall_s = limits.stall_s if message is train else None
                async with asyncio.timeout(limit_s):
                    answer = await child.ask(message, stall_s, self._progress)
                if answer["is"] == "failed":
                    return answer
                child.prepared.add(key)
        except TimeoutError:
            what = "setup" if message is prepare else "trial"
            told = f"the {what} took longer than timeouts.{what}_s = {limit_s:g} s"
            await self.close()
            return {"is": "failed", "reason": "timed_out", "message": told}
        except _StalledError:
            told = f"no sign of progress for timeouts.stall_s = {limits.stall_s:g} s"
            await self.close()
            return {"is": "failed", "reason": "stalled", "message": told}
        except _ChildDiedError as error:
            await self.close()
            return {"is": "failed", "reason": "killed", "message": str(error)}
        except asyncio.CancelledError:
            await self.close()
            raise
        return answer

    def _progress(self, at: float | None) -> None:
        self.at = self.at if at is None else at

    def ask_to_stop(self) -> None:
        self._stopping = True
        if self._child is not None:
            self._child.tell({"do": "stop"})

    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        with contextlib.suppress(CheckpointError, OSError):
            await asyncio.to_thread(self._checkpoints(experiment).delete, checkpoint)

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class _Child:
    """One child process and the socket to it."""

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
        self._log_start = log.stat().st_size
        self.prepared: set[str] = set()
        self._unpacker = msgpack.Unpacker(max_buffer_size=2**24)

    @classmethod
    async def start(cls, paths: Sequence[Path], log: Path) -> "_Child":
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

    def tell(self, message: Mapping[str, Any]) -> None:
        self._writer.write(msgpack.packb(message))

    async def ask(
        self,
        message: Mapping[str, Any],
        stall_s: float | None,
        progress: Callable[[float | None], None],
    ) -> Mapping[str, Any]:
        """Send a message and wait for the answer, while signs of progress come in.

        Raises:
            _ChildDiedError: the process ended without one.
            _StalledError: nothing came for `stall_s`.
        """
        try:
            self.tell(message)
            await self._writer.drain()
            while data := await self._read(stall_s):
                self._unpacker.feed(data)
                for answer in self._unpacker:
                    if answer["is"] != "progress":
                        return dict(answer)
                    progress(answer["at"])
        except ConnectionError:
            pass
        raise _ChildDiedError(await self._obituary())

    async def _read(self, stall_s: float | None) -> bytes:
        reading = asyncio.timeout(stall_s)
        try:
            async with reading:
                return await self._reader.read(65_536)
        except TimeoutError:
            # An outer time limit looks the same; only our own means a stall.
            if reading.expired():
                raise _StalledError from None
            raise

    async def _obituary(self) -> str:
        code = await self._process.wait()
        how = f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        with self._log.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(self._log_start, size - LOG_TAIL))
            tail = output.read().decode(errors="replace").strip()
        told = f"the task's process ended by {how}" + (f"; its last words:\n{tail}" if tail else "")
        if hidden := hiding(map(str, self._paths), tail):
            return f"{hidden}\n\n{told}"[:MAX_TEXT]
        return told[-MAX_TEXT:]

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Shielded: a worker that is itself being ended still reaps its child.
        await asyncio.shield(self._process.wait())
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def _read_from(log: Path, start: int) -> str:
    """What was written to a file since it had so many bytes: its end, if that is long."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - MAX_TEXT))
        return file.read().decode(errors="replace")
    return ""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a local folder for a worker's own files, for the time of a `with` block.

    What killed workers have left there is removed too: whoever lives holds a lock on its own.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{SCRATCH}*"):
        # Somebody else's, or gone meanwhile, or not locked yet: none of our business.
        with contextlib.suppress(OSError), _locked(left):
            if time.time() - left.stat().st_mtime > LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process.

    Raises:
        OSError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
