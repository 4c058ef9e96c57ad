"""Work in a thread that the process does not wait for when it ends.

An object store's library may hang for minutes, and a worker that must go does not wait for it. The
threads of asyncio's own pool would be waited for.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")


async def detached(work: Callable[[], A]) -> A:
    """Do work in a thread of its own, and wait for it.

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
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, result)

    threading.Thread(target=run, name="storage", daemon=True).start()
    return await done
