"""Outages of the storage of checkpoints: who waits, for how long, and when attempts count.

A trial that meets one goes back without an attempt, and its worker leaves the experiment alone for
a while: on another machine the storage may well be there. What lasts too long is a failure, so that
a search that cannot go on ends with an error: a whole storage that is gone, or one checkpoint that
cannot be read.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from romul_actors.core.events import ReleaseReason
from romul_actors.errors import StoreError
from romul_actors.store import WorkerStore
from romul_workers.trainer import Ending, Failure, Outage, Stopped, Success

log = logging.getLogger("romul.worker")

PAUSE_S = (1.0, 60.0)
"""First and longest pause of a worker on whose machine trials cannot succeed."""
FREE_S = 900.0
"""So long an outage costs no attempt. A server of files is started again, or another one takes
over, within minutes; what lasts longer is more often a set-up that was changed, and has been shown
to operators for a quarter of an hour."""


def longer(pause_s: float) -> float:
    """The pause after one of `pause_s` seconds that was of no use."""
    first, longest = PAUSE_S
    return min(longest, max(first, 2 * pause_s))


@dataclass(slots=True)
class _Seen:
    """What a worker has seen of an experiment's storage.

    Attributes:
        reported: results of all workers at the latest outage.
        since: the loop's time since when no result is known; None: the storage works.
        trials: when each trial first met an outage here, until it ends otherwise.
        pause_s, until: how long the experiment is left to other workers, and when that ends.
    """

    reported: int = 0
    since: float | None = None
    trials: dict[str, float] = field(default_factory=dict)
    pause_s: float = 0.0
    until: float = 0.0


class Outages:
    """The outages that one worker meets.

    Args:
        store: where results are counted.
    """

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}

    def pauses(self, experiment: str) -> bool:
        """Whether an experiment is left to other workers for now."""
        seen = self._seen.get(experiment)
        return seen is not None and asyncio.get_running_loop().time() < seen.until

    def forget(self, experiment: str) -> None:
        """Begin anew with an experiment of that name."""
        self._seen.pop(experiment, None)

    async def judge(
        self, experiment: str, trial: str, ending: Ending | ReleaseReason
    ) -> Ending | ReleaseReason:
        """What to report of a trial; the worker pauses if the storage was not there.

        Returns:
            The ending; a failure in place of an outage that has lasted for `FREE_S`: of all trials
            of the experiment here, with no result of any worker, or of this trial.
        """
        if not isinstance(ending, Outage):
            self._works(experiment, trial, ending)
            return ending
        now = asyncio.get_running_loop().time()
        seen = self._seen.setdefault(experiment, _Seen())
        reported = seen.reported
        with contextlib.suppress(StoreError):
            reported = await self._store.reported(experiment)
        if seen.since is None or reported != seen.reported:
            seen.since, seen.reported = now, reported
        first = seen.trials.setdefault(trial, now)
        seen.pause_s = longer(seen.pause_s)
        seen.until = now + seen.pause_s
        lasted_s = now - min(first, seen.since)
        log.error("%s: %s; trying again in %.0f s", experiment, ending.message, seen.pause_s)
        if lasted_s < FREE_S:
            return ending
        return Failure("storage", f"{ending.message} (for {lasted_s / 60:.0f} minutes now)")

    def _works(self, experiment: str, trial: str, ending: Ending | ReleaseReason) -> None:
        seen = self._seen.get(experiment)
        if seen is None:
            return
        if isinstance(ending, Success | Failure):
            seen.trials.pop(trial, None)
        if isinstance(ending, Success) or (isinstance(ending, Stopped) and ending.checkpoint):
            seen.since, seen.pause_s, seen.until = None, 0.0, 0.0
