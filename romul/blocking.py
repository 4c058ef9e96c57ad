"""Runs coroutines from blocking code, even in a thread whose event loop is already running."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from romul_actors.errors import RomulError, StoreError

T = TypeVar("T")
P = ParamSpec("P")

LOOK_S = 0.2
"""Interval at which a call that blocks a running loop checks whether it was cancelled."""


def blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make the blocking function `NAME` from the coroutine function `NAME_async`."""
    name = function.__name__.removesuffix("_async")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            coroutine = function(*args, **kwargs)
        except TypeError as error:
            # The arguments are wrong: the body has not begun.
            raise TypeError(str(error).replace(f"{function.__name__}()", f"{name}()")) from None
        return to_the_end(coroutine)

    call.__name__ = call.__qualname__ = name
    return call


def to_the_end(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, even if a loop is already running, as in a notebook.

    An interrupt cancels the coroutine. It is raised once the coroutine has ended.
    """
    try:
        return _in_a_thread(main) if _loop_runs() else asyncio.run(main)
    except RomulError as error:
        # The message says what to correct; frames of the event loop and of the server's client
        # would only hide it.
        cause = None if isinstance(error, StoreError) else error.__cause__
        raise error.with_traceback(None) from cause


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(main: Coroutine[Any, Any, T]) -> T:
    found: list[T] = []
    failed: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    # Not `Thread.join`: if Ctrl-C interrupts it, Python before 3.13 takes the thread for ended.
    interrupted, ended = threading.Event(), threading.Event()

    async def begin() -> T:
        task = asyncio.ensure_future(main)
        running.append((asyncio.get_running_loop(), task))
        if interrupted.is_set():
            task.cancel()
        return await task

    def work() -> None:
        try:
            found.append(asyncio.run(begin()))
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failed.append(error)
        finally:
            ended.set()

    # With the caller's context, output appears below the notebook cell that made the call.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), daemon=True)
    try:
        thread.start()
        _wait(ended)
    except BaseException:
        interrupted.set()
        for loop, task in running:
            with suppress(RuntimeError):  # It has just ended, and its loop is closed.
                loop.call_soon_threadsafe(task.cancel)
        if thread.ident is not None:  # Otherwise it has not begun, and will end at once.
            ended.wait()
        raise
    if failed:
        raise failed[0]
    return found[0]


def _wait(ended: threading.Event) -> None:
    """Wait for the event, in a task of a running loop, which does not go on meanwhile.

    Raises:
        CancelledError: the task was cancelled: if asyncio handles Ctrl-C, it does only that.
    """
    outer = asyncio.current_task()
    before = 0 if outer is None else outer.cancelling()
    while not ended.wait(LOOK_S):
        if outer is not None and outer.cancelling() > before:
            raise asyncio.CancelledError
