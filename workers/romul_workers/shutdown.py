"""When and how a worker ends: on request, or because its machine goes.

A worker that ends takes no more trials; the trial in training has a grace period. A worker whose
machine's end is announced takes only trials that it expects to finish before.
"""

import asyncio
import logging
from collections.abc import Callable

from romul_actors.core.events import ReleaseReason
from romul_actors.waiting import pause

log = logging.getLogger("romul.worker")


class Shutdown:
    """The end of one worker, before and after it has begun.

    Args:
        grace_s: how long a trial in training may take to end.
        begin: is called once, when the end begins.

    Attributes:
        reason: what becomes of a trial that does not end within the grace period.
    """

    def __init__(self, grace_s: float, begin: Callable[[], None]) -> None:
        self.reason: ReleaseReason = "preempted"
        self.grace_s = grace_s
        self._settings_grace_s = grace_s
        self._on_begin = begin
        self._begun = asyncio.Event()
        self._ends_at: float | None = None
        self._typical_s: dict[str, float] = {}

    @property
    def begun(self) -> bool:
        """Whether the worker takes no more trials."""
        return self._begun.is_set()

    def begin(self, reason: ReleaseReason, grace_s: float | None = None) -> None:
        """Take no more trials; if the end has begun already, only the grace period changes.

        Args:
            reason: see the attribute.
            grace_s: in place of the settings' own.
        """
        if grace_s is not None:
            self.grace_s = grace_s
        if not self.begun:
            self.reason = reason
            self._begun.set()
            self._on_begin()

    def announce(self, seconds: float) -> None:
        """Begin the end when only the grace period is left of so many seconds."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + max(0.0, seconds - self._settings_grace_s)
        if self._ends_at is None or ends_at < self._ends_at:
            log.warning("this machine goes in %.0f s", seconds)
            self._ends_at = ends_at
            loop.call_at(ends_at, self.begin, "preempted")

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
        await pause(seconds, self._begun)
