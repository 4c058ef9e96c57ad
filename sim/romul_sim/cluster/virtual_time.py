"""Virtual time: an asyncio event loop that never waits.

If nothing is ready to run, the clock jumps to the next timer. The order of timers with the same
time follows from the order in which they were set, so a run depends only on its inputs. The loop
polls no files, sockets or threads.
"""

import asyncio
import contextlib
import contextvars
import gc
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Callback = Callable[..., object]

RESOLUTION_S = 1e-9
"""Timers whose times differ by less than this are due at the same time."""
LONGEST_JUMP_S = 86_400.0
GC_THRESHOLDS = (200_000, 20, 100)
"""Thresholds of Python's garbage collector; see `gc.set_threshold`."""
MANY_TIMERS = 100
"""With more timers than this, cancelled ones are removed when they are more than half."""


class DeadlockError(RuntimeError):
    """Nothing is ready and no timer is set: every task waits for another one."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A machine's clock: it advances by `rate` seconds per true second and starts at `ahead_s`."""

    rate: float = 1.0
    ahead_s: float = 0.0


machine_clock: contextvars.ContextVar[Clock | None] = contextvars.ContextVar(
    "machine_clock", default=None
)
"""The clock of the running task's machine; None: the true time."""


class _Call:
    """A callback that is ready: an `asyncio.Handle` without the parts for debugging."""

    __slots__ = ("args", "callback", "context", "dropped")

    def __init__(
        self, callback: Callback, args: Sequence[Any], context: contextvars.Context | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.dropped = False

    def cancel(self) -> None:
        """Do not call back."""
        self.dropped = True

    def cancelled(self) -> bool:
        """Whether there will be no call."""
        return self.dropped


class _Timer(float):
    """A callback and its time: an `asyncio.TimerHandle` that a heap compares as a float."""

    __slots__ = ("args", "callback", "context", "dropped", "loop", "waits")
    callback: Callback
    args: Sequence[Any]
    context: contextvars.Context
    dropped: bool
    loop: "VirtualLoop"
    waits: bool

    def cancel(self) -> None:
        """Do not call back; the timer stays in the heap until it is due or is cleaned up."""
        if self.dropped:
            return
        self.dropped = True
        # Release the objects that these refer to.
        del self.callback, self.args
        if self.waits:
            self.loop.n_dropped += 1

    def cancelled(self) -> bool:
        """Whether there will be no call."""
        return self.dropped

    def when(self) -> float:
        """True seconds since the beginning."""
        return float(self)


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is simulated and starts at 0.

    A task, and all that it starts, may be on a machine whose clock is wrong (`machine_clock`).

    Attributes:
        now_s: true seconds since the beginning.
        n_dropped: number of cancelled timers in the heap.
    """

    _ready: deque[_Call | _Timer]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.n_dropped = 0
        self._timers: list[_Timer] = []

    def time(self) -> float:
        """Seconds by the clock of the running task's machine."""
        clock = machine_clock.get()
        return self.now_s if clock is None else clock.ahead_s + clock.rate * self.now_s

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call back at the current time, after everything that is ready."""
        call = _Call(callback, args, context)
        self._ready.append(call)
        return call  # type: ignore[return-value]

    # There is only one thread, and the loop never sleeps, so nothing needs to wake it.
    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back after `delay` seconds by the running task's clock."""
        # `call_at` inlined for speed: this is called several times for each trial.
        clock = machine_clock.get()
        when = self.now_s + delay
        if clock is not None:
            when = (clock.ahead_s + clock.rate * self.now_s + delay - clock.ahead_s) / clock.rate
        return self.call_when(when, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a time by the running task's clock."""
        clock = machine_clock.get()
        if clock is not None:
            when = (when - clock.ahead_s) / clock.rate
        return self.call_when(when, callback, *args, context=context)

    def call_when(
        self,
        now_s: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at the true time `now_s`, independently of machines' clocks."""
        timer = _Timer(now_s)
        timer.callback, timer.args, timer.loop = callback, args, self
        timer.context = contextvars.copy_context() if context is None else context
        timer.dropped, timer.waits = False, True
        heapq.heappush(self._timers, timer)
        return timer  # type: ignore[return-value]

    async def true_sleep(self, seconds: float) -> None:
        """Wait for `seconds` of true time, as for a network or a freeze."""
        future: asyncio.Future[None] = self.create_future()
        timer = self.call_when(self.now_s + seconds, _end, future)
        try:
            await future
        finally:
            timer.cancel()

    def _run_once(self) -> None:
        """Run all that is ready, and advance the time when nothing is, until the loop stops.

        It replaces asyncio's method, which polls files and sockets each time. It runs until the
        loop stops, because asyncio would only call it again.
        """
        ready = self._ready
        while True:
            self._let_time_pass()
            for _ in range(len(ready)):
                call = ready.popleft()
                if not call.dropped:
                    try:
                        call.context.run(call.callback, *call.args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:  # noqa: BLE001
                        self._report(call, error)
            if self._stopping:
                return

    def _let_time_pass(self) -> None:
        """Advance the time if nothing is ready, and make the timers ready that are due."""
        ready, timers = self._ready, self._timers
        if len(timers) > MANY_TIMERS and 2 * self.n_dropped > len(timers):
            timers[:] = [timer for timer in timers if not timer.dropped]
            heapq.heapify(timers)
            self.n_dropped = 0
        while timers and timers[0].dropped:
            self.n_dropped -= 1
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise DeadlockError("nothing is ready and no timer is set")
            self.now_s += min(LONGEST_JUMP_S, max(0.0, timers[0] - self.now_s))
        end_s = self.now_s + RESOLUTION_S
        while timers and timers[0] < end_s:
            due = heapq.heappop(timers)
            due.waits = False
            ready.append(due)

    def _report(self, call: _Call | _Timer, error: BaseException) -> None:
        """Report an exception of a callback, as asyncio does."""
        what = f"Exception in callback {call.callback!r}"
        self.call_exception_handler({"message": what, "exception": error})


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


def virtual_loop() -> VirtualLoop:
    """The loop of the running simulation."""
    return asyncio.get_running_loop()  # type: ignore[return-value]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with _collecting_rarely(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Run Python's garbage collector rarely: a simulation makes many objects, but few cycles."""
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
