"""Waiting, pauses between attempts and their log, and cancellation that a library swallows."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

A = TypeVar("A")

REMIND_S = 60.0
"""How often a process logs that something still fails."""


def run(main: Coroutine[Any, Any, A]) -> A:
    """Run a coroutine like `asyncio.run`, but on uvloop's event loop if uvloop is installed.

    In processes that mainly pass messages on, the event loop takes much of the time.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as factory  # noqa: PLC0415
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@contextlib.contextmanager
def reraise_cancellation() -> Iterator[None]:
    """Raise a cancellation that arrives inside, even if the awaited code swallows it.

    Before Python 3.12, `asyncio.wait_for` swallows a cancellation if the awaited future ends at the
    same moment. The Redis client uses it for writing, and the MQTT client for waiting for replies.
    A task that continues after `cancel()` blocks its caller forever, and a timeout around it never
    fires (source: this project; of 300 tasks cancelled at random moments of a read from Redis, 167
    continued).

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
    """An event that one task waits for, with a timeout.

    An `asyncio.Event` inside `asyncio.timeout` does the same but needs twice as many calls.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiting task, or make its next wait return at once."""
        self._is_set = True
        if self._waiting is not None:
            _end(self._waiting)

    def clear(self) -> None:
        """Forget that the event was set."""
        self._is_set = False

    async def wait(self, seconds: float) -> None:
        """Wait until the event is set, at most for `seconds`.

        Return at once if it has been set since the last wait.
        """
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


def longer(pause_s: float, limits_s: tuple[float, float]) -> float:
    """The pause before the next attempt at something that keeps failing: twice the last one.

    Args:
        pause_s: the last pause, in seconds; 0 if there was none.
        limits_s: the first and the longest pause.
    """
    first_s, longest_s = limits_s
    return min(longest_s, max(first_s, 2 * pause_s))


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Wait for `seconds`, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


class RetryLog:
    """Logs why something fails that is tried again and again, and when it works again.

    Each text is logged at once, and then once in `REMIND_S`: with a line for each attempt, an
    outage of a night would write some ten thousand lines in each process.

    Args:
        log: where to log.
        level: level of the failures.
    """

    def __init__(self, log: logging.Logger, level: int = logging.WARNING) -> None:
        self._log = log
        self._level = level
        self._began_s: float | None = None
        self._logged_s: dict[str, float] = {}
        """When each text was last logged, of those of the last `REMIND_S`."""

    def failed(self, text: str) -> None:
        """Log `text`, unless it was logged in the last `REMIND_S`."""
        now_s = asyncio.get_running_loop().time()
        if self._began_s is None:
            self._began_s = now_s
        recent = {line: at_s for line, at_s in self._logged_s.items() if now_s - at_s < REMIND_S}
        if text not in recent:
            recent[text] = now_s
            self._log.log(self._level, "%s", text)
        self._logged_s = recent

    def worked(self) -> None:
        """Log that it works again, if it failed before."""
        if self._began_s is not None:
            failed_s = asyncio.get_running_loop().time() - self._began_s
            self._log.info("works again after %.0f s", failed_s)
            self._began_s, self._logged_s = None, {}
