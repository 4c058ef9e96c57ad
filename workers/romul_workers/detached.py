"""Work in a thread that the process does not wait for when it ends.

An object store's library may hang for minutes, and a worker that must go does not wait for it. The
threads of asyncio's own pool would be waited for. A thread that is done stays for the next work:
to start one costs as much as all the rest.
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
"""What each thread that is done waits at; one that hangs is not among them."""


async def detached(work: Callable[[], A]) -> A:
    """Do work in a thread that has no other, and wait for it.

    If the wait is cancelled, the work is left behind: it goes on until it ends, or until the
    process does.

    Returns:
        What `work` returns.

    Raises:
        BaseException: whatever it raises.
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
        # A loop that is closed has given up waiting.
        with contextlib.suppress(RuntimeError):
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
                # First: the next work may come as soon as this one's end is known.
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
