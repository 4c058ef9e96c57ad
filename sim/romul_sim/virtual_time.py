"""Virtual time: an asyncio loop on which nothing ever waits.

When nothing is ready to run, the clock jumps to the next timer. The order of timers of the same
instant follows from how they were set, so a run depends on nothing but its inputs. No file, socket
or thread is ever polled: what runs here has no connection to the outside.
"""

import asyncio
import contextlib
import contextvars
import gc
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RESOLUTION_S = 1e-9
"""Timers that are due so soon after one another are due at the same time."""
LONGEST_JUMP_S = 86_400.0
GC_THRESHOLDS = (200_000, 20, 100)
"""When Python looks for garbage in cycles: by new objects, and by looks at younger ones."""
MANY_TIMERS = 100
"""Of more timers than these, cancelled ones are removed when they are more than half."""


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is due: every task waits for another one."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One machine's clock: `rate` of its seconds a true second, `ahead_s` at the beginning."""

    rate: float = 1.0
    ahead_s: float = 0.0


machine_clock: contextvars.ContextVar[Clock | None] = contextvars.ContextVar(
    "machine_clock", default=None
)
"""The clock of the machine on which the running task is; None: the true one."""


class _Timer(float):
    """When a handle is due; a float, so that a heap compares nothing else."""

    __slots__ = ("handle",)
    handle: "_TimerHandle"


class _TimerHandle(asyncio.TimerHandle):
    """A timer's handle, and whether the timer is still to come."""

    __slots__ = ("waits",)
    waits: bool


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is simulated; it starts at 0.

    A task, and all that it starts, may live on a machine whose clock is wrong (`machine_clock`).

    Attributes:
        now_s: true seconds since the beginning.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._timers: list[_Timer] = []
        self._cancelled = 0

    def time(self) -> float:
        """Seconds by the clock of the machine on which the running task is."""
        clock = machine_clock.get()
        return self.now_s if clock is None else clock.ahead_s + clock.rate * self.now_s

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call back in this instant, after all that is ready."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back after so many seconds of the running task's own clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a time of the running task's own clock."""
        clock = machine_clock.get()
        if clock is not None:
            when = (when - clock.ahead_s) / clock.rate
        handle = _TimerHandle(when, callback, args, self, context)
        handle.waits = True
        timer = _Timer(when)
        timer.handle = handle
        heapq.heappush(self._timers, timer)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Count a cancelled timer: it stays until its time comes, or there are too many."""
        if isinstance(handle, _TimerHandle) and handle.waits:
            self._cancelled += 1

    def _write_to_self(self) -> None:
        """Wake the loop from another thread: it never sleeps."""

    def _run_once(self) -> None:
        """Run all that is ready; when nothing is, let the time of the next timer come.

        In place of asyncio's own, which looks for files and sockets each time.
        """
        ready, timers = self._ready, self._timers
        if len(timers) > MANY_TIMERS and 2 * self._cancelled > len(timers):
            timers[:] = [timer for timer in timers if not timer.handle.cancelled()]
            heapq.heapify(timers)
            self._cancelled = 0
        while timers and timers[0].handle.cancelled():
            self._cancelled -= 1
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise DeadlockError("nothing is ready and no timer is set")
            self.now_s += min(LONGEST_JUMP_S, max(0.0, timers[0] - self.now_s))
        end_s = self.now_s + RESOLUTION_S
        while timers and timers[0] < end_s:
            due = heapq.heappop(timers).handle
            due.waits = False
            ready.append(due)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001  (asyncio's own loops run handles so)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with _collecting_rarely(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Look for garbage in cycles rarely: few of a simulation's many objects ever are that."""
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
