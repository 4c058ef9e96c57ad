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
LOST_S = 3600.0
"""Longest pause for the sake of what an attempt lost. The first outage in a row pauses for an
instant all the same: most of them are one."""
FREE_S = 900.0
"""So long an outage costs no attempt. A server of files is started again, or another one takes
over, within minutes; what lasts longer is more often a set-up that was changed, and has been shown
to operators for a quarter of an hour."""
GAP_S = 300.0
"""So much of the time between two outages counts as an outage at most: whether the storage worked
meanwhile, which may have been hours, is not known. Four at least make `FREE_S`."""


def longer(pause_s: float) -> float:
    """The pause after one of `pause_s` seconds that was of no use."""
    first, longest = PAUSE_S
    return min(longest, max(first, 2 * pause_s))


@dataclass(slots=True)
class _Met:
    """Outages one after the other.

    Attributes:
        latest: the loop's time of the latest one.
        lasted_s: how long they have lasted, as far as they were seen.
    """

    latest: float
    lasted_s: float = 0.0

    def again(self, now: float) -> None:
        self.lasted_s += min(now - self.latest, GAP_S)
        self.latest = now


@dataclass(slots=True)
class _Seen:
    """What a worker has seen of an experiment's storage.

    Attributes:
        reported: results of all workers at the latest outage.
        met: outages since when no result is known; None: the storage works.
        trials: those that each trial has met here, until it ends otherwise.
        pause_s: the pause after the latest outage; 0: a checkpoint was stored after it.
        until: how long the experiment is left to other workers, by the loop's time.
    """

    reported: int = 0
    met: _Met | None = None
    trials: dict[str, _Met] = field(default_factory=dict)
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

    def away(self, experiment: str) -> bool:
        """Whether this worker has stored no checkpoint since an outage."""
        seen = self._seen.get(experiment)
        return seen is not None and seen.pause_s > 0

    def forget(self, experiment: str) -> None:
        """Begin anew with an experiment of that name."""
        self._seen.pop(experiment, None)

    async def judge(
        self, experiment: str, trial: str, ending: Ending | ReleaseReason, seconds: float
    ) -> Ending | ReleaseReason:
        """What to report of a trial; the worker pauses if the storage was not there.

        Args:
            experiment: the trial's.
            trial: its name.
            ending: of its attempt.
            seconds: how long that took.

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
        if seen.met is None or reported != seen.reported:
            seen.met, seen.reported = _Met(now), reported
        of_trial = seen.trials.setdefault(trial, _Met(now))
        for met in (seen.met, of_trial):
            met.again(now)
        # A storage that can be read, and not be written, takes as long as a trial to refuse.
        lost_s = min(seconds, LOST_S) if seen.pause_s else 0.0
        seen.pause_s = longer(seen.pause_s)
        pause_s = max(seen.pause_s, lost_s)
        seen.until = now + pause_s
        lasted_s = max(seen.met.lasted_s, of_trial.lasted_s)
        log.error("%s: %s; trying again in %.0f s", experiment, ending.message, pause_s)
        if lasted_s < FREE_S:
            return ending
        return Failure("storage", f"{ending.message} (for {lasted_s / 60:.0f} minutes at least)")

    def _works(self, experiment: str, trial: str, ending: Ending | ReleaseReason) -> None:
        seen = self._seen.get(experiment)
        if seen is None:
            return
        if isinstance(ending, Success | Failure):
            seen.trials.pop(trial, None)
        if isinstance(ending, Success) or (isinstance(ending, Stopped) and ending.checkpoint):
            seen.met, seen.pause_s, seen.until = None, 0.0, 0.0
