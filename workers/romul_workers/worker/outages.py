"""Outages of the checkpoints' storage: how long a worker pauses, and when an outage is a failure.

A trial that meets an outage goes back to the queue, and no attempt is counted. Its worker takes no
trial of that experiment for a while; on another machine the storage may work. An outage that lasts
too long is a failure, so that a search that cannot go on ends with an error. The cause may be a
storage that is gone, or one checkpoint that cannot be read.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from romul_actors.core.events import ReleaseReason
from romul_actors.errors import StoreError
from romul_actors.store import WorkerStore
from romul_actors.waiting import longer
from romul_workers.trainer import Ending, Failure, Outage, Stopped, Success

log = logging.getLogger("romul.worker")

PAUSE_S = (1.0, 60.0)
"""First and longest pause of a worker on whose machine trials cannot succeed, in seconds."""
LOST_S = 3600.0
"""Limit of the pause that is as long as the training that an outage made useless, in seconds. After
the first outage in a row the pause is short in any case, because most outages are."""
FREE_S = 900.0
"""How long an outage costs no attempt, in seconds. A file server restarts, or is replaced, within
minutes. A longer outage is more often a changed configuration, and operators have seen it for a
quarter of an hour."""
GAP_S = 300.0
"""Most of the time between two outages that counts as an outage, in seconds: the storage may have
worked in between. So at least four outages make `FREE_S`."""


@dataclass(slots=True)
class Pause:
    """A pause from one experiment, which is longer each time that it begins.

    Attributes:
        seconds: the latest pause without its `at_least_s`; 0: there was none.
        until: when it ends, by the loop's clock.
    """

    seconds: float = 0.0
    until: float = 0.0

    def begin(self, at_least_s: float = 0.0) -> float:
        """Begin the next pause, and return its length in seconds."""
        self.seconds = longer(self.seconds, PAUSE_S)
        length_s = max(self.seconds, at_least_s)
        self.until = asyncio.get_running_loop().time() + length_s
        return length_s

    @property
    def lasts(self) -> bool:
        """Whether it has begun and not ended."""
        return asyncio.get_running_loop().time() < self.until


@dataclass(slots=True)
class _Met:
    """A series of outages.

    Attributes:
        latest: when the latest one was met, by the loop's clock.
        lasted_s: how long they have lasted together, in seconds.
    """

    latest: float
    lasted_s: float = 0.0

    def again(self, now: float) -> None:
        self.lasted_s += min(now - self.latest, GAP_S)
        self.latest = now


@dataclass(slots=True)
class _Seen:
    """What a worker knows about an experiment's storage.

    Attributes:
        reported: number of results of all workers at the latest outage.
        met: outages since the latest result of any worker; None: the storage works.
        trials: outages by trial, until the trial ends otherwise.
        pause: the pause after the latest outage; as new if a checkpoint was stored since.
    """

    reported: int = 0
    met: _Met | None = None
    trials: dict[str, _Met] = field(default_factory=dict)
    pause: Pause = field(default_factory=Pause)


class Outages:
    """The outages that one worker meets.

    Args:
        store: counts the results of an experiment.
    """

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}

    def pauses(self, experiment: str) -> bool:
        """Whether this worker takes no trial of an experiment for now."""
        seen = self._seen.get(experiment)
        return seen is not None and seen.pause.lasts

    def away(self, experiment: str) -> bool:
        """Whether this worker has stored no checkpoint since an outage."""
        seen = self._seen.get(experiment)
        return seen is not None and seen.pause.seconds > 0

    def forget(self, experiment: str) -> None:
        """Forget an experiment: it was removed, or another one has its name."""
        self._seen.pop(experiment, None)

    async def judge(
        self, experiment: str, trial: str, ending: Ending | ReleaseReason, seconds: float
    ) -> Ending | ReleaseReason:
        """Decide what to report about a trial, and pause after an outage.

        Args:
            experiment: name of the trial's experiment.
            trial: the trial's id.
            ending: how its attempt ended.
            seconds: how long the attempt took.

        Returns:
            The ending. An outage becomes a failure after `FREE_S`: if for so long all trials of the
            experiment met outages here and no worker had a result, or if this trial met them.
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
        # A storage that can be read but not written fails only after the training.
        pause_s = seen.pause.begin(min(seconds, LOST_S) if seen.pause.seconds else 0.0)
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
            seen.met, seen.pause = None, Pause()
