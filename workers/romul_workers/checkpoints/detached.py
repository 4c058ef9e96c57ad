"""Runs functions in threads that the process does not wait for when it ends.

An object store's library may hang for minutes, and a worker that must end cannot wait for it; the
threads of asyncio's own pool would be waited for. A thread is kept for the next call, because
starting a thread costs as much as everything else here.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

A = TypeVar("A")

_Works = SimpleQueue[Callable[[], None]]
_idle: list[_Works] = []
"""Queues of the threads that wait for work; a thread that hangs is not among them."""


async def detached(work: Callable[[], A]) -> A:
    """Run `work` in an idle thread, and wait for it.

    If the wait is cancelled, `work` goes on until it ends or the process does.

    Returns:
        What `work` returns.

    Raises:
        BaseException: whatever `work` raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[A] = loop.create_future()

    def succeed(result: A) -> None:
        if not done.done():
            done.set_result(result)

    def fail(error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    def run() -> None:
        # RuntimeError: the loop is closed, so nothing waits for the result.
        with contextlib.suppress(RuntimeError):
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
                # Before the result is passed on, because the next call may follow at once.
                _idle.append(works)
                loop.call_soon_threadsafe(fail, error)
            else:
                _idle.append(works)
                loop.call_soon_threadsafe(succeed, result)

    try:
        works = _idle.pop()
    except IndexError:
        works = SimpleQueue()
        threading.Thread(target=_serve, args=(works,), name="storage", daemon=True).start()
    works.put(run)
    return await done


def _serve(works: _Works) -> None:
    while True:
        works.get()()
