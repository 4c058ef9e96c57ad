"""How long-running parts wait, and how they are interrupted."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def reraise_cancellation() -> Iterator[None]:
    """Raise a cancellation that comes within, though what is awaited there swallows it.

    Before Python 3.12 `asyncio.wait_for` does, when what it waits for ends in the same moment; the
    Redis client writes with it, and the MQTT client waits for answers with it. A task that goes on
    after `cancel()` never ends where it is awaited, and a timeout around it never comes (source:
    this project; 167 of 300 tasks cancelled at any moment of a read from Redis went on).

    Raises:
        asyncio.CancelledError: the task was cancelled within.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > asked:
            raise asyncio.CancelledError


async def cancel(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Cancel tasks and wait until they have ended.

    Returns:
        Of each its result, or the exception with which it ended.
    """
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Wait so many seconds, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
