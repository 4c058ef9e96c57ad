"""Virtual time: an asyncio loop on which nothing ever waits.

When nothing is ready to run, the clock jumps to the next timer. Timers of the same instant fire in
the order in which they were set, so a run depends on nothing but its inputs. No file, socket or
thread is ever polled: what runs here has no connection to the outside.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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


class _JumpingSelector(selectors.DefaultSelector):
    """Advances the loop's clock in place of waiting."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError("nothing is ready and no timer is set")
        if timeout > 0:
            self.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is simulated; it starts at 0.

    A task, and all that it starts, may live on a machine whose clock is wrong (`machine_clock`).
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    @property
    def now_s(self) -> float:
        """True seconds since the beginning."""
        return self._jumping.now_s

    def time(self) -> float:
        """Seconds by the clock of the machine on which the running task is."""
        clock = machine_clock.get()
        now_s = self._jumping.now_s
        return now_s if clock is None else clock.ahead_s + clock.rate * now_s

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
        return super().call_at(when, callback, *args, context=context)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
