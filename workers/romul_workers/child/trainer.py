"""The real trainer: fetches the parent, trains in a child process, and stores the checkpoint."""

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from romul_actors.core.events import TrialMessage
from romul_actors.errors import CheckpointError, NoRoomError, StorageOutageError
from romul_actors.protocol.checkpoint_names import is_name
from romul_actors.protocol.experiment import Experiment
from romul_workers.checkpoints.detached import detached
from romul_workers.checkpoints.storage import NO_ROOM, Checkpoints
from romul_workers.child.messages import (
    Answer,
    PrepareTask,
    TaskFailed,
    TaskInterrupted,
    TaskReturned,
    TrainTrial,
    TrialAnswer,
)
from romul_workers.child.output import begin_output, read_from
from romul_workers.child.process import ChildDiedError, ChildProcess, StalledError
from romul_workers.trainer import (
    Ending,
    Failure,
    NoRoom,
    Outage,
    Restored,
    Stopped,
    Success,
    Trainer,
    ignore,
)

if TYPE_CHECKING:
    from romul_workers.checkpoints.hashing import Written

DISCARD_S = 1.0
"""How long a worker waits for the removal of a checkpoint; it then continues in its thread."""


@dataclass(frozen=True, slots=True)
class _Parent:
    """A checkpoint to continue from.

    Attributes:
        folder: the local folder of the checkpoint.
        warm: whether the child process saved it last, and still has its tensors in memory.
        checked: whether its files were hashed.
    """

    folder: Path
    warm: bool = False
    checked: bool = True


@dataclass(frozen=True, slots=True)
class _Trained:
    """A trial after its training, before its checkpoint is stored.

    Attributes:
        answer: the child's answer.
        restored: how the parent was restored; None: no parent, or the trial was interrupted.
    """

    answer: TaskReturned | TaskInterrupted
    restored: Restored | None


class ChildTrainer(Trainer):
    """Trains in a child process, which stays between trials and is replaced after a failure.

    A trial has three parts: its parent is fetched, the child trains, and the checkpoint is stored.
    The third part may run beside the first two of the next trial; they share no state.

    Args:
        scratch: local folder for copies of remote checkpoints and the child's output.
        paths: folders to search for task modules before the installed ones.
        log: file for the child's output. Default: one in `scratch`.
        device: where to train. Default: the experiment's device.
        quota: most bytes that an experiment's checkpoints may take. Default: no limit.
        child: a child process that is started already, with the same `paths` and `log`.
    """

    def __init__(
        self,
        scratch: Path,
        paths: Sequence[Path] = (),
        log: Path | None = None,
        device: str | None = None,
        quota: int | None = None,
        child: ChildProcess | None = None,
    ) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch
        self._paths = paths
        self._log = log or scratch / "task.log"
        self._device = device
        self._quota = quota
        self._child = child
        self._held: tuple[str, Mapping[str, Written]] | None = None
        """Name and files of the checkpoint whose tensors the child still has in memory."""
        # The first trial's output includes what the module printed while it was imported.
        self._unread = None if child is None else child.log_start
        self._stopping = False
        self._stored_from: Path | None = None
        """The local folder of the checkpoint that is being stored, or was stored last."""
        self._opened: dict[str, Checkpoints] = {}
        self._removing: set[str] = set()
        self._request_of: tuple[Experiment, PrepareTask] | None = None

    async def train(
        self, experiment: Experiment, trial: TrialMessage, stores: Callable[[], None] = ignore
    ) -> Ending:
        # The random tail keeps names unique even if a server comes back with older data.
        name = f"{trial.id}-{trial.attempt}-{secrets.token_hex(3)}"
        self.at, self.output = None, ""
        printed, self._unread = self._unread, None
        if printed is None:
            printed = begin_output(self._log, self._scratch, self._child)
        try:
            checkpoints = await self._checkpoints(experiment)
            folder = await detached(lambda: checkpoints.begin(name))
            try:
                trained = await self._train_into(folder, checkpoints, experiment, trial, printed)
                if not isinstance(trained, _Trained):
                    return trained
                if isinstance(trained.answer, TaskReturned) and trained.answer.keeps:
                    self._held = name, trained.answer.written
                self._stored_from = folder
                stores()
                return await _store(checkpoints, folder, name, trained, trial.parent)
            finally:
                await _discard(folder)
        except CheckpointError as error:
            return self._not_stored(experiment, trial, error)
        except OSError as error:
            # This machine cannot start a process, or open a log or a socket. The worker goes on.
            await self.close()
            if error.errno in NO_ROOM:
                return NoRoom(str(error))
            return Failure("storage", f"this machine cannot train: {error}")

    def _not_stored(
        self, experiment: Experiment, trial: TrialMessage, error: CheckpointError
    ) -> NoRoom | Outage | Failure:
        """The ending of a trial whose storage could not be used."""
        if isinstance(error, NoRoomError):
            return NoRoom(str(error))
        here = self._opened.get(experiment.checkpoints or "")
        # A storage that never worked is probably configured wrongly, so the trial fails at once.
        worked = trial.parent is not None or (here is not None and here.worked)
        if isinstance(error, StorageOutageError) and worked:
            return Outage(str(error))
        return Failure("storage", str(error))

    async def _checkpoints(self, experiment: Experiment) -> Checkpoints:
        if experiment.checkpoints is None:
            raise CheckpointError("the experiment declares no folder for checkpoints")
        url = experiment.checkpoints
        if url not in self._opened:
            # In a thread: an object store's library may fetch credentials over the network.
            make = lambda: Checkpoints(url, self._scratch, self._quota)  # noqa: E731
            self._opened[url] = await detached(make)
        return self._opened[url]

    async def _train_into(
        self,
        folder: Path,
        checkpoints: Checkpoints,
        experiment: Experiment,
        trial: TrialMessage,
        printed: int,
    ) -> Ending | _Trained:
        """Train, and set `output` to the text of the log from byte `printed` on."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            parent = await self._find(checkpoints, trial.parent)
            if isinstance(parent, Failure):
                return parent
            found_s = loop.time() - began
            self._held = None
            answer = await self._train_in_child(experiment, trial, parent, folder)
        finally:
            self.output = read_from(self._log, printed)
        if isinstance(answer, TaskFailed):
            return await self._failure(answer, checkpoints, folder)
        restored = None
        if isinstance(answer, TaskReturned) and parent is not None:
            restored = Restored(found_s + (answer.restore_s or 0.0), warm=answer.warm)
        return _Trained(answer, restored)

    async def _find(self, checkpoints: Checkpoints, parent: str | None) -> _Parent | Failure | None:
        """Find the parent, and fetch it if necessary; None: the trial has no parent."""
        if parent is None:
            return None
        held, written = self._held or (None, {})
        if parent == held:
            folder = await detached(lambda: checkpoints.unchanged(parent, written))
            if folder is not None:
                return _Parent(folder, warm=True, checked=False)
        try:
            folder = await detached(lambda: checkpoints.fetch(parent))
        except (NoRoomError, StorageOutageError):
            raise
        except CheckpointError as error:
            return Failure("lost_parent", str(error))
        return _Parent(folder, warm=parent == held)

    async def _train_in_child(
        self, experiment: Experiment, trial: TrialMessage, parent: _Parent | None, folder: Path
    ) -> TrialAnswer:
        prepare = self._prepare(experiment)
        key = prepare.key
        train = TrainTrial(
            key=key,
            metric=experiment.metric,
            id=trial.id,
            hyperparameters=trial.hyperparameters,
            parent=str(parent.folder) if parent else None,
            checkpoint=str(folder),
            start=trial.start,
            stop=trial.stop,
            seed=trial.seed,
            step=trial.step,
            resumed=trial.resumed,
            warm=parent is not None and parent.warm,
            checked=parent is None or parent.checked,
            absent=[name for name in experiment.space if name not in trial.hyperparameters],
        )
        limits = experiment.timeouts
        child = await self._ready_child()
        if child is not None and key not in child.prepared:
            answer = await self._request(child, prepare, "setup", limits.setup_s, None)
            if isinstance(answer, TaskFailed):
                return answer
            child.prepared.add(key)
            child = await self._ready_child()
        if child is None:
            return TaskInterrupted(None)
        # `TaskReady` answers only `PrepareTask`.
        answer = await self._request(child, train, "trial", limits.trial_s, limits.stall_s)
        return cast("TrialAnswer", answer)

    def _prepare(self, experiment: Experiment) -> PrepareTask:
        """The `PrepareTask` request of an experiment; the latest one is cached."""
        if self._request_of is None or self._request_of[0] is not experiment:
            device = self._device or experiment.resources.device
            # The key has no other fields: a change of steps or bounds must not run `setup` again.
            task = (
                experiment.name,
                experiment.module,
                experiment.function,
                device,
                experiment.constants,
            )
            text = json.dumps(task, sort_keys=True)
            prepare = PrepareTask(hashlib.sha256(text.encode()).hexdigest(), *task)
            self._request_of = experiment, prepare
        return self._request_of[1]

    async def _ready_child(self) -> ChildProcess | None:
        """The child process, started if there is none; None: the worker is about to end."""
        # `StopTrial` would not reach a process that is still starting.
        if self._stopping:
            return None
        if self._child is not None and self._child.ended:
            # It ended between two trials, so no trial fails.
            await self.close()
        if self._child is None:
            self._child = await ChildProcess.start(self._paths, self._log)
        return self._child

    async def _request(
        self,
        child: ChildProcess,
        request: PrepareTask | TrainTrial,
        what: str,
        limit_s: float | None,
        stall_s: float | None,
    ) -> Answer:
        """Send a request and wait for its answer; `TaskFailed` if none arrives in time.

        Args:
            child: the process.
            request: the request.
            what: name of the limit in `timeouts`, without "_s".
            limit_s: longest time until the answer, in seconds; None: no limit.
            stall_s: longest time without a sign of progress, in seconds; None: no limit.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await child.request(request, stall_s, self._progress)
        except TimeoutError:
            text = f"the {what} took longer than timeouts.{what}_s = {limit_s:g} s"
            return TaskFailed("timed_out", text)
        except StalledError:
            text = f"no sign of progress for timeouts.stall_s = {stall_s:g} s"
            return TaskFailed("stalled", text)
        except ChildDiedError as error:
            return TaskFailed("killed", str(error))
        except asyncio.CancelledError:
            await self.close()
            raise

    def _progress(self, at: float | None) -> None:
        self.at = self.at if at is None else at

    async def _failure(
        self, answer: TaskFailed, checkpoints: Checkpoints, folder: Path
    ) -> NoRoom | Failure:
        """The ending of a failed trial; raises StorageOutageError if the storage is the cause."""
        if answer.reason != "not_finite":
            # Frees memory, CUDA contexts and threads of the failed trial. A trial whose metric is
            # not finite has returned normally, so the process stays.
            await self.close()
        if answer.reason == "storage":
            raise StorageOutageError(answer.message)
        if answer.reason == "exception":
            if await detached(checkpoints.full):
                return NoRoom(f"the disk is full; the task's error: {answer.message}")
            refusal = await detached(lambda: checkpoints.refusal(folder))
            if refusal is not None:
                raise StorageOutageError(f"{refusal}; the task's error: {answer.message}")
        return Failure(answer.reason, answer.message, answer.elsewhere)

    def ask_to_stop(self) -> None:
        self._stopping = True
        if self._child is not None:
            self._child.ask_to_stop()

    def has_room(self) -> bool:
        # A quota counts only stored checkpoints: two that are not stored yet could exceed it.
        folder = self._stored_from
        return self._quota is None and (folder is None or Checkpoints.has_room_beside(folder))

    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        def remove() -> None:
            try:
                checkpoints.delete(checkpoint)
            finally:
                self._removing.discard(checkpoint)

        if not is_name(checkpoint):
            return
        try:
            async with asyncio.timeout(DISCARD_S):
                checkpoints = await self._checkpoints(experiment)
                if checkpoint not in self._removing:
                    self._removing.add(checkpoint)
                    await detached(remove)
                    return
        except TimeoutError:
            pass
        raise CheckpointError(f"checkpoint {checkpoint}: not removed within {DISCARD_S:g} s")

    async def close(self) -> None:
        child, self._child, self._held = self._child, None, None
        if child is not None:
            await child.end()


async def _discard(folder: Path) -> None:
    """Remove the folder of an unfinished checkpoint, if it is still there; wait `DISCARD_S`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            await detached(lambda: Checkpoints.discard(folder))


async def _store(
    checkpoints: Checkpoints,
    folder: Path,
    name: str,
    trained: _Trained,
    parent: str | None,
) -> Success | Stopped:
    """Store what the child wrote as a checkpoint; the trial may be reported only after that."""
    answer = trained.answer
    if isinstance(answer, TaskInterrupted) and answer.at is None:
        return Stopped(message=answer.message)
    await detached(lambda: checkpoints.publish(folder, name, answer.written, parent))
    if isinstance(answer, TaskInterrupted):
        return Stopped(name, answer.at)
    return Success(
        answer.value,
        name,
        answer.metrics,
        answer.in_effect,
        answer.left_out,
        answer.provenance,
        trained.restored,
    )
