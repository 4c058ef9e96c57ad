"""When and how a worker ends: on request, or because its machine goes.

A worker that ends takes no more trials; the trial in training has a grace period. A trial that is
not reported `LAST_S` after the grace period is given up, and its lease expires. If the end of its
machine is announced, a worker takes only trials that it expects to finish before.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from romul_actors.core.events import ReleaseReason
from romul_actors.waiting import pause

log = logging.getLogger("romul.worker")

LAST_S = 3.0
"""Time for reports after the grace period, in seconds."""


class Shutdown:
    """The end of one worker, before and after it has begun.

    Args:
        grace_s: how long a trial in training may go on, in seconds.
        on_change: called when the shutdown begins, and when its grace period changes.

    Attributes:
        begun: whether the shutdown has begun, so that the worker takes no more trials.
        reason: the reason with which trials are given back.
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
        """When the grace period ends, by the loop's clock; None: the shutdown has not begun."""
        return self._begun_at + self.grace_s if self.begun else None

    def begin(self, reason: ReleaseReason, grace_s: float | None = None) -> None:
        """Begin the shutdown; if it has begun already, change only the grace period.

        Args:
            reason: see the attribute.
            grace_s: grace period in seconds. Default: that of the settings.
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
        """Cancel the body of the `with` block `LAST_S` after the grace period."""
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit:
                self._set_limit()
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("the grace period is over: trials not reported yet end with their leases")
        finally:
            self._limit = None

    def _set_limit(self) -> None:
        if self._limit is not None and self.deadline is not None:
            self._limit.reschedule(self.deadline + LAST_S)

    def announce(self, seconds: float) -> None:
        """Plan the shutdown for a machine that goes in `seconds` seconds.

        The shutdown begins when only the grace period, and `LAST_S` for reports, are left. If there
        is less time than that, the grace period is shortened, even if the shutdown has begun.
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
        """Remember how long a complete trial of an experiment took, in seconds."""
        self._typical_s[experiment] = seconds

    def has_time_for(self, experiment: str) -> bool:
        """Whether a trial of the experiment is expected to end before the machine goes."""
        if self._ends_at is None:
            return True
        typical_s = self._typical_s.get(experiment)
        now = asyncio.get_running_loop().time()
        return typical_s is not None and now + typical_s < self._ends_at

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the shutdown begins."""
        await pause(seconds, self._beginning)
