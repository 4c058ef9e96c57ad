"""What an actor remembers of one search between rounds; it can all be rebuilt from the store."""

import asyncio
from dataclasses import dataclass
from math import inf

from romul_actors.actor.batch import CachedExperiment
from romul_actors.actor.timing import GIVE_WAY_S


@dataclass(slots=True)
class Search:
    """The state of a search in an actor. Times are in seconds of the event loop's clock.

    Attributes:
        cached: the experiment as last read or committed; None if it must be read.
        fault: why the search could not be served; None if it is served.
        was_read: whether the experiment has ever been read, and the options that it ignores logged.
        release_s: when offers to single workers are due to be released to all.
        ticked_s: when the actor last sent a tick.
        reconciled_s: when the actor last looked for lost attempts.
        left_until_s: time until which the inbox is left to another actor (`precedence.py`); it is
            extended as long as that actor makes progress. None: it is not left to another.
        left_at: number of results counted when this was last checked.
    """

    cached: CachedExperiment | None = None
    fault: str | None = None
    was_read: bool = False
    release_s: float = inf
    ticked_s: float = -inf
    reconciled_s: float = -inf
    left_until_s: float | None = None
    left_at: int = 0

    def release_after(self, ms: int | None) -> None:
        """Schedule the release of offers after `ms` milliseconds; None means no offers."""
        if ms is not None:
            due_s = asyncio.get_running_loop().time() + ms / 1000
            self.release_s = min(due_s, self.release_s)

    def leave(self, reported: int, now_s: float) -> None:
        """Leave the inbox to another actor for `GIVE_WAY_S`.

        Args:
            reported: number of results counted so far.
            now_s: the current time.
        """
        self.left_at, self.left_until_s = reported, now_s + GIVE_WAY_S

    def look_again(self, reported: int, now_s: float) -> None:
        """Take the inbox back, unless the other actor has counted results in the meantime."""
        if reported == self.left_at:
            self.left_until_s = None
        else:
            self.leave(reported, now_s)
