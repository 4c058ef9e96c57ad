"""The child process: imports the task once, then trains one trial after the other.

`process.py` starts it as `python -m romul_workers.child.loop FD CONTROL [MODULE ...]`. FD is the
socket for requests and answers. CONTROL is the socket for `StopTrial`, which a thread reads while
a task trains (`messages.py`). Each MODULE is a task module to import at once, before a trial
arrives. When the worker ends, the sockets close, and the process kills all that the task started.
"""

import gc
import math
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from romul_actors.core.events import MAX_TEXT, FailureReason
from romul_actors.errors import LostParentError, StorageOutageError, TaskError
from romul_workers.checkpoints.hashing import Written
from romul_workers.checkpoints.manifest import Manifest
from romul_workers.child.descendants import MARK, kill_marked
from romul_workers.child.figures import figures
from romul_workers.child.functions import check_function
from romul_workers.child.messages import (
    Answer,
    Decoder,
    PrepareTask,
    StopTrial,
    TaskFailed,
    TaskInterrupted,
    TaskProgress,
    TaskReady,
    TaskReturned,
    TrainTrial,
    TrialAnswer,
    encode,
)
from romul_workers.child.provenance import code_of, provenance
from romul_workers.child.task_import import (
    TaskImportError,
    described,
    find_task,
    hiding,
    import_task,
    task_traceback,
)
from romul_workers.trial import ALL_TRAINED, Context, Paused, Trial, TrialWork, place

if TYPE_CHECKING:
    # It imports torch, which a task may do without.
    from romul_workers.tensors.kept import Kept


class _NoDeviceError(TaskError):
    """This machine does not have the device that the experiment demands."""


_OWN_MARK = os.environ.get(MARK)  # read before a task may change the environment


@dataclass(frozen=True, slots=True)
class _Task:
    """A task that is imported and set up for one experiment."""

    train: Callable[[Trial], object]
    context: Context
    state: Any
    code: Mapping[str, str]


class Child:
    """Serves the worker's requests.

    Args:
        connection: the socket for requests and answers.
        control: the socket for messages that arrive while a task trains.
        modules: task modules to import before the first request.
    """

    def __init__(
        self, connection: socket.socket, control: socket.socket, modules: Sequence[str] = ()
    ) -> None:
        self._connection = connection
        self._control = control
        self._stopping = threading.Event()
        self._tasks: dict[str, _Task] = {}
        self._kept: Kept | None = None
        self._modules = modules
        self._not_imported: dict[str, BaseException] = {}
        # A task's own threads may report progress, even after their trial has ended.
        self._sending = threading.Lock()
        self._training: TrainTrial | None = None

    def run(self) -> None:
        """Serve requests until the worker closes the sockets."""
        threading.Thread(target=self._read_control, daemon=True).start()
        for module in self._modules:
            self._import(module)
        decoder = Decoder()
        try:
            while data := self._connection.recv(65_536):
                for request in decoder.feed(data):
                    if isinstance(request, PrepareTask | TrainTrial):
                        self._serve(request)
        finally:
            _end()

    def _serve(self, request: PrepareTask | TrainTrial) -> None:
        self._send(self._answer(request))
        if self._kept is not None and not self._kept.is_alone():
            # The old model may be in a reference cycle, and still hold the tensors' memory.
            gc.collect()

    def _read_control(self) -> None:
        """Read messages from the control socket."""
        decoder = Decoder()
        try:
            while data := self._control.recv(4_096):
                for message in decoder.feed(data):
                    if isinstance(message, StopTrial):
                        self._stopping.set()
        finally:
            _end()

    def _send(self, answer: Answer) -> None:
        with self._sending:
            self._training = None
            self._connection.sendall(encode(answer))

    def _sign(self, request: TrainTrial, at: float | None) -> None:
        """Send a sign of progress, unless its trial has been answered."""
        with self._sending:
            if request is self._training:
                self._connection.sendall(encode(TaskProgress(at)))

    def _answer(self, request: PrepareTask | TrainTrial) -> Answer:
        try:
            if isinstance(request, PrepareTask):
                self._prepare(request)
                return TaskReady()
            return self._train(request)
        except MemoryError as error:
            return _failure("out_of_memory", error)
        except (LostParentError, StorageOutageError, TaskError) as error:
            reason: FailureReason = "task" if isinstance(request, PrepareTask) else "bad_result"
            if isinstance(error, LostParentError):
                reason = "lost_parent"
            elif isinstance(error, StorageOutageError):
                reason = "storage"
            return TaskFailed(reason, str(error)[-MAX_TEXT:], isinstance(error, _NoDeviceError))
        except BaseException as error:  # noqa: BLE001  (sys.exit in a task is a failed trial too)
            if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "memory" in str(
                error
            ):
                return _failure("out_of_memory", error)
            return _failure("task" if isinstance(request, PrepareTask) else "exception", error)

    def _import(self, module: str) -> None:
        """Import a task's module; an error is reported when the task is requested."""
        try:
            import_task(module)
        except BaseException as error:  # noqa: BLE001  (sys.exit in a module, too)
            # Not imported again: half-imported libraries raise misleading errors the second time.
            self._not_imported[module] = error

    def _prepare(self, request: PrepareTask) -> None:
        """Import the task and run its `setup`, once for each experiment."""
        if request.key in self._tasks:
            return
        if request.module in self._not_imported:
            raise self._not_imported[request.module]
        module, train = find_task(request.module, request.function)
        check_function(train, f"{request.module}:{request.function}")
        context = Context(request.experiment, _device(request.device), request.constants)
        setup = getattr(module, "setup", None)
        state = setup(context) if callable(setup) else None
        code = code_of(_folder(module))
        self._tasks[request.key] = _Task(train, context, state, code)

    def _train(self, request: TrainTrial) -> TrialAnswer:
        task = self._tasks[request.key]
        parent = Path(request.parent) if request.parent else None
        work = TrialWork()
        trial = Trial(
            id=request.id,
            hyperparameters=request.hyperparameters,
            parent=parent,
            checkpoint=Path(request.checkpoint),
            start=place(request.start),
            stop=place(request.stop),
            seed=request.seed,
            step=request.step,
            context=task.context,
            state=task.state,
            resumed=request.resumed,
            _base=parent,
            _base_checked=request.checked,
            _absent=request.absent,
            _stopping=self._stopping,
            _report_progress=lambda at: self._sign(request, at),
            _work=work,
        )
        self._training = request
        kept, self._kept = self._kept, None
        if request.warm and kept is not None and parent is not None:
            _give_parent(trial, kept, parent, checked=request.checked)
        # Free the tensors before the next model is made, unless they are its parent.
        del kept
        _seed(trial.seed)
        returned = task.train(trial)
        sys.stdout.flush()
        if isinstance(returned, Paused):
            return _interrupted(trial, returned.at, work.written)
        if trial.cut_short:
            return TaskInterrupted(None)
        found = figures(returned, request.metric)
        if not math.isfinite(found.value):
            return TaskFailed("not_finite", f"{request.metric} is {found.value}")
        if not any(trial.checkpoint.iterdir()):
            message = "the task wrote nothing into trial.checkpoint: no trial could go on from it"
            return TaskFailed("no_checkpoint", message)
        self._kept = work.kept
        return TaskReturned(
            value=found.value,
            metrics=found.kept,
            left_out=found.left_out,
            in_effect=work.in_effect,
            written=work.written,
            provenance=provenance(task.code),
            restore_s=work.restore_s,
            warm=work.warm,
            keeps=work.kept is not None,
        )


def _interrupted(trial: Trial, at: float, written: Mapping[str, Written]) -> TaskInterrupted:
    """The answer for a task that paused.

    Args:
        trial: the trial.
        at: where it paused.
        written: as in `TaskReturned`.

    Raises:
        TaskError: there is no partial checkpoint.
    """
    if not any(trial.checkpoint.iterdir()):
        raise TaskError("the task paused but wrote nothing into trial.checkpoint")
    if at < trial.stop:
        return TaskInterrupted(at, written)
    return TaskInterrupted(
        None,
        message=f"pause({at:g}): {ALL_TRAINED}, but no result was returned, so the trial is "
        "repeated: read trial.should_stop only before trial.stop",
    )


def _end() -> None:
    """Kill this process and all that the task started, because the worker has ended.

    The sockets are then closed, or reset if an answer was not read.
    """
    if _OWN_MARK:
        kill_marked(_OWN_MARK)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _give_parent(trial: Trial, kept: "Kept", parent: Path, *, checked: bool) -> None:
    """Give a trial its parent's tensors from this process's memory.

    Args:
        trial: the trial.
        kept: the tensors that this process saved last; they are the parent's.
        parent: folder of the parent.
        checked: whether the parent's files were hashed; if not, they are hashed when the task
            reads `trial.parent`.
    """
    if kept.is_of(parent):
        trial._work.parent_kept = kept  # noqa: SLF001
    if not checked:
        files = kept.files

        def check() -> Path:
            _check_files(parent, files)
            return parent

        del trial.parent
        trial._check_parent = check  # noqa: SLF001


def _check_files(folder: Path, files: Mapping[str, Written]) -> None:
    """Compare a checkpoint's files with their hashes.

    Raises:
        LostParentError: a file is missing or damaged.
        StorageOutageError: a file cannot be read now.
    """
    try:
        fault = Manifest.of(files).first_fault(folder)
    except OSError as error:
        raise StorageOutageError(f"checkpoint {folder.name}: cannot be read: {error}") from error
    if fault is not None:
        raise LostParentError(f"checkpoint {folder.name}: {' '.join(fault)}")


def _folder(module: ModuleType) -> Path:
    """The folder of a task's code: the module's `FOLDER`, or the folder that the module is in."""
    return Path(getattr(module, "FOLDER", None) or Path(module.__file__ or ".").parent)


def _device(wanted: str) -> str:
    """The device to train on; "auto" is CUDA if torch is imported and has it.

    Raises:
        _NoDeviceError: torch is imported, and does not find the device that is wanted.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu" if wanted == "auto" else wanted
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    kind, _, index = wanted.partition(":")
    if kind == "cuda" and gpus <= int(index or 0):
        raise _NoDeviceError(f"there is no device {wanted!r} here: torch finds {gpus} CUDA GPUs")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _NoDeviceError(f"there is no device {wanted!r} here")
    return wanted


def _seed(seed: int) -> None:
    """Seed `random`, numpy's global generator, and torch if it is imported."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (many data sets and augmentations draw from it)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def _failure(reason: FailureReason, error: BaseException) -> TaskFailed:
    """A failed trial, with the task's part of the traceback."""
    message = task_traceback(error)[-MAX_TEXT:]
    if reason == "task":
        message = str(error) if isinstance(error, TaskImportError) else described(error)
    elif hidden := hiding(sys.path, message):
        message = f"{hidden}\n\n{message}"[:MAX_TEXT]
    return TaskFailed(reason, message)


def main() -> None:
    """Serve on the sockets that the first two arguments name; the others are task modules."""
    # Ctrl-C in a terminal is for the worker, which then decides about the trial.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, control = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    Child(connection, control, sys.argv[3:]).run()


if __name__ == "__main__":
    main()
