"""When and how a worker ends: on request, or because its machine goes.

A worker that ends takes no more trials; the trial in training has a grace period. What is not
reported `LAST_S` after that is left to its lease. A worker whose machine's end is announced takes
only trials that it expects to finish before.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from romul_actors.core.events import ReleaseReason
from romul_actors.waiting import pause

log = logging.getLogger("romul.worker")

LAST_S = 3.0
"""For reports, once the grace period is over."""


class Shutdown:
    """The end of one worker, before and after it has begun.

    Args:
        grace_s: how long a trial in training may take to end.
        on_change: is called when the end begins, and when its grace period changes.

    Attributes:
        begun: whether the worker takes no more trials.
        reason: what becomes of a trial that does not end within the grace period.
    """

    def __init__(self, grace_s: float, on_change: Callable[[], None]) -> None:
        self.reason: ReleaseReason = "preempted"
        self.grace_s = grace_s
        self._settings_grace_s = grace_s
        self._on_change = on_change
        self.begun = False
        self._beginning = asyncio.Event()
        self._begun_at = 0.0
        self._limit: asyncio.Timeout | None = None
        self._ends_at: float | None = None
        self._typical_s: dict[str, float] = {}

    @property
    def deadline(self) -> float | None:
        """When the grace period is over, by the loop's clock; None: the end has not begun."""
        return self._begun_at + self.grace_s if self.begun else None

    def begin(self, reason: ReleaseReason, grace_s: float | None = None) -> None:
        """Take no more trials; if the end has begun already, only the grace period changes.

        Args:
            reason: see the attribute.
            grace_s: in place of the settings' own.
        """
        if grace_s is not None:
            self.grace_s = grace_s
        elif self.begun:
            return
        if not self.begun:
            self.reason = reason
            self._begun_at = asyncio.get_running_loop().time()
            self.begun = True
            self._beginning.set()
        self._set_limit()
        self._on_change()

    @contextlib.asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Cancel what runs inside if it has not ended `LAST_S` after the grace period."""
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit:
                self._set_limit()
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("the grace period is over: what is not reported is left to its lease")
        finally:
            self._limit = None

    def _set_limit(self) -> None:
        if self._limit is not None and self.deadline is not None:
            self._limit.reschedule(self.deadline + LAST_S)

    def announce(self, seconds: float) -> None:
        """Begin the end when only the grace period, and `LAST_S` for reports, is left of so long.

        Where there is less time than that, the grace period is shorter. That holds for an end that
        has begun already, too.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        left_s = max(0.0, seconds - LAST_S)
        if self.deadline is not None:
            if now + left_s < self.deadline:
                log.warning("this machine goes in %.0f s", seconds)
                self.begin(self.reason, now + left_s - self._begun_at)
            return
        ends_at = now + max(0.0, left_s - self._settings_grace_s)
        if self._ends_at is None or ends_at < self._ends_at:
            log.warning("this machine goes in %.0f s", seconds)
            self._ends_at = ends_at
            loop.call_at(ends_at, self._end, min(self._settings_grace_s, left_s))

    def _end(self, grace_s: float) -> None:
        if not self.begun:
            self.begin("preempted", grace_s)

    def trained(self, experiment: str, seconds: float) -> None:
        """Remember how long a whole trial of an experiment took."""
        self._typical_s[experiment] = seconds

    def has_time_for(self, experiment: str) -> bool:
        """Whether a trial of the experiment is expected to end before the machine goes."""
        if self._ends_at is None:
            return True
        typical_s = self._typical_s.get(experiment)
        now = asyncio.get_running_loop().time()
        return typical_s is not None and now + typical_s < self._ends_at

    async def pause(self, seconds: float) -> None:
        """Wait so many seconds, or until the end begins."""
        await pause(seconds, self._beginning)
