"""The child process: imports the task once, then trains one trial after the other.

Started by `trainer.py` as `python -m romul_workers.child FD`; speaks MessagePack over the socket of
that number. It ends with its parent: when the socket closes, it ends its whole process group.
"""

import importlib
import math
import os
import queue
import random
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from romul_actors import plugins
from romul_actors.core.events import MAX_TEXT
from romul_actors.errors import TaskError
from romul_workers.figures import figures
from romul_workers.functions import check_function
from romul_workers.trial import Context, Paused, Trial

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Task:
    """A task that is imported and set up, for one experiment."""

    train: Callable[[Trial], object]
    context: Context
    state: Any


class Child:
    """The process's one object.

    Args:
        connection: the socket to the worker.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._tasks: dict[str, _Task] = {}
        # A task's own threads may give signs of progress.
        self._sending = threading.Lock()

    def run(self) -> None:
        """Serve until the worker goes."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            job = self._jobs.get()
            self._send(self._answer(job))

    def _listen(self) -> None:
        """Read the worker's messages, also while the task trains."""
        unpacker = msgpack.Unpacker(max_buffer_size=2**24)
        try:
            while data := self._connection.recv(65_536):
                unpacker.feed(data)
                for message in unpacker:
                    if message["do"] == "stop":
                        self._stopping.set()
                    else:
                        self._jobs.put(message)
        finally:
            # The worker is gone: at its end the socket was closed, or reset if an answer still lay
            # there unread. Whatever the task started goes as well.
            os.killpg(os.getpgid(0), signal.SIGKILL)

    def _send(self, message: Message) -> None:
        with self._sending:
            # What a task says may hold what is no text: a file's name in another encoding, say.
            body = msgpack.packb(message, unicode_errors="backslashreplace")
            self._connection.sendall(body)

    def _answer(self, job: Message) -> Message:
        try:
            if job["do"] == "prepare":
                self._prepare(job)
                return {"is": "ready"}
            return self._train(job)
        except MemoryError as error:
            return _failure("out_of_memory", error)
        except TaskError as error:
            reason = "task" if job["do"] == "prepare" else "bad_result"
            return {"is": "failed", "reason": reason, "message": str(error)[-MAX_TEXT:]}
        except BaseException as error:  # noqa: BLE001  (sys.exit in a task is a failed trial too)
            if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "memory" in str(
                error
            ):
                return _failure("out_of_memory", error)
            return _failure("task" if job["do"] == "prepare" else "exception", error)

    def _prepare(self, job: Message) -> None:
        """Import the task and run its `setup`, once for each experiment."""
        if job["key"] in self._tasks:
            return
        module = _module(job["module"])
        train = getattr(module, job["function"], None)
        if not callable(train):
            told = f"{job['module']} has no function {job['function']!r}"
            raise AttributeError(told)  # noqa: TRY004  (what `from ... import` would say)
        check_function(train, f"{job['module']}:{job['function']}")
        context = Context(job["experiment"], _device(job["device"]), job["constants"])
        setup = getattr(module, "setup", None)
        state = setup(context) if callable(setup) else None
        self._tasks[job["key"]] = _Task(train, context, state)

    def _train(self, job: Message) -> Message:
        task = self._tasks[job["key"]]
        trial = Trial(
            id=job["id"],
            hyperparameters=job["hyperparameters"],
            parent=Path(job["parent"]) if job["parent"] else None,
            checkpoint=Path(job["checkpoint"]),
            start=job["start"],
            stop=job["stop"],
            seed=job["seed"],
            step=job["step"],
            context=task.context,
            state=task.state,
            resumed=job["resumed"],
            _stopping=self._stopping,
            _tell=lambda at: self._send({"is": "progress", "at": at}),
        )
        _seed(trial.seed)
        returned = task.train(trial)
        sys.stdout.flush()
        if isinstance(returned, Paused):
            if not any(trial.checkpoint.iterdir()):
                raise TaskError("the task paused, and wrote nothing into trial.checkpoint")
            return {"is": "stopped", "at": returned.at}
        if trial.stop_seen:
            return {"is": "stopped", "at": None}
        found = figures(returned, job["metric"])
        if not math.isfinite(found.value):
            message = f"{job['metric']} is {found.value}"
            return {"is": "failed", "reason": "not_finite", "message": message}
        if not any(trial.checkpoint.iterdir()):
            message = "the task wrote nothing into trial.checkpoint: nobody could continue from it"
            return {"is": "failed", "reason": "no_checkpoint", "message": message}
        return {
            "is": "done",
            "value": found.value,
            "metrics": found.kept,
            "left_out": found.left_out,
            "in_effect": trial.in_effect,
        }


def _module(name: str) -> Any:
    """A task's module; where there is none of that name, the one that a package adds by it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name or (found := plugins.find("tasks", name)) is None:
            raise
        return found


def _device(wanted: str) -> str:
    """What "auto" means for a task that may or may not use torch."""
    torch = sys.modules.get("torch")
    if wanted != "auto":
        return wanted
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def _seed(seed: int) -> None:
    """Seed the generators that a task is likely to draw from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what many data sets and augmentations draw from)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def _failure(reason: str, error: BaseException) -> Message:
    """A failed trial, with the task's part of the traceback."""
    lines = traceback.format_exception(error)
    return {"is": "failed", "reason": reason, "message": "".join(lines)[-MAX_TEXT:].strip()}


def main() -> None:
    """Serve on the socket whose number is the first argument."""
    # Ctrl-C in a terminal is for the worker, which decides what becomes of the trial.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Child(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
