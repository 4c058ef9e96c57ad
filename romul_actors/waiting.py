"""Waiting and cancellation that hold whatever the libraries below do."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

A = TypeVar("A")


def run(main: Coroutine[Any, Any, A]) -> A:
    """As `asyncio.run`, for a process that serves: on uvloop's event loop, where it is installed.

    The loop takes a good part of the time of a process that only passes messages on.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as factory  # noqa: PLC0415
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@contextlib.contextmanager
def reraise_cancellation() -> Iterator[None]:
    """Raise a cancellation that arrives inside, even if the awaited code swallows it.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation when the awaited future ends at
    the same moment; the Redis client writes with it, and the MQTT client waits for replies with it.
    A task that goes on after `cancel()` keeps its caller waiting for ever, and a timeout around it
    never fires (source: this project; 167 of 300 tasks went on that were cancelled at a random
    moment of a read from Redis).

    Raises:
        asyncio.CancelledError: the task was cancelled inside.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def cancel(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Cancel tasks and wait until they have ended.

    Returns:
        The result of each, or the exception with which it ended.
    """
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


class Wakeup:
    """Tells one task that there is something to look at; it waits for that, or for a time.

    An `asyncio.Event` within `asyncio.timeout` does the same for twice as many calls, and each
    trial waits a few times.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        """There is something to look at."""
        self._is_set = True
        if self._waiting is not None:
            _end(self._waiting)

    def clear(self) -> None:
        """Nothing is new that was said before."""
        self._is_set = False

    async def wait(self, seconds: float) -> None:
        """Wait for so long at most; not at all if it was set since the last wait."""
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            limit = loop.call_later(seconds, _end, self._waiting)
            try:
                await self._waiting
            finally:
                limit.cancel()
                self._waiting = None
        self._is_set = False


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Wait for `seconds`, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
