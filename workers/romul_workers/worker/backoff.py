"""Pauses of a worker on whose machine trials cannot succeed now.

A machine with a broken GPU, for example, fails faster than others train, and would take one trial
after the other. If trials fail on every machine, no worker pauses, so that the failures are
reported soon. A lost parent counts like any other failure: the cause may be a storage that is not
mounted on this machine.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from romul_actors.core.events import ReleaseReason
from romul_actors.store import WorkerStore
from romul_workers.trainer import Ending, Failure, NoRoom, Success
from romul_workers.worker.outages import Outages, Pause

log = logging.getLogger("romul.worker")

FAILING = 3
"""Failures in a row, while trials succeed elsewhere, after which the machine is at fault."""
STATES = ("no room", "no storage", "failing")
"""What may hinder an experiment's trials at a worker, the most serious first."""
COUNTED_S = 30.0
"""Time after which an actor has counted a result, in seconds."""


@dataclass(slots=True)
class _Failing:
    """An experiment whose trials fail on this machine.

    Attributes:
        reported: number of results of all workers when the first of these trials failed.
        ours: number of this worker's own results that may not have been counted then.
        times: failures in a row.
        pause: the latest pause.
    """

    reported: int
    ours: int
    times: int = 0
    pause: Pause = field(default_factory=Pause)


class Backoff:
    """The pauses of one worker from experiments.

    Args:
        store: counts the results of an experiment.

    Attributes:
        outages: outages of the checkpoints' storage.
    """

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self.outages = Outages(store)
        self._failing: dict[str, _Failing] = {}
        self._succeeded: dict[str, list[float]] = {}
        """Times of this worker's latest results, by the loop's clock."""
        self._full: dict[str, Pause] = {}
        """Pauses from experiments for whose checkpoints there is no room."""

    def pauses(self, experiment: str) -> bool:
        """Whether this worker takes no trial of an experiment for now."""
        return self.state(experiment, trains=False) != ""

    def state(self, experiment: str, *, trains: bool) -> str:
        """What hinders an experiment's trials here: see `STATES`; "": nothing.

        Args:
            experiment: name of the experiment.
            trains: whether one of its trials is in training here. If so, "no storage" lasts until a
                checkpoint is stored.
        """
        full, failing = self._full.get(experiment), self._failing.get(experiment)
        if full is not None and full.lasts:
            return "no room"
        if self.outages.pauses(experiment) or (trains and self.outages.away(experiment)):
            return "no storage"
        return "failing" if failing is not None and failing.pause.lasts else ""

    def forget(self, experiment: str) -> None:
        """Forget an experiment: it was removed, or another one has its name."""
        for known in (self._failing, self._succeeded, self._full):
            known.pop(experiment, None)
        self.outages.forget(experiment)

    async def judge(self, experiment: str, ending: Ending | ReleaseReason) -> None:
        """Pause from an experiment without room, or whose trials fail here and succeed elsewhere.

        Raises:
            StoreError: the number of results cannot be read.
        """
        if isinstance(ending, NoRoom):
            pause_s = self._full.setdefault(experiment, Pause()).begin()
            log.error("%s: %s; trying again in %.0f s", experiment, ending.message, pause_s)
            return
        self._full.pop(experiment, None)
        if isinstance(ending, Success):
            self._failing.pop(experiment, None)
            ours = self._uncounted(experiment)
            self._succeeded[experiment] = [*ours, asyncio.get_running_loop().time()]
        if not isinstance(ending, Failure) or ending.reason == "not_finite":
            return
        reported = await self._store.reported(experiment)
        failing = self._failing.get(experiment)
        if failing is None or reported < failing.reported:
            # Fewer than before: the server came back with older data.
            failing = _Failing(reported, len(self._uncounted(experiment)))
            self._failing[experiment] = failing
        failing.times += 1
        if failing.times < FAILING or reported - failing.reported <= failing.ours:
            return
        pause_s = failing.pause.begin()
        log.error(
            "%s: %d trials in a row failed here while others succeeded elsewhere; "
            "trying again in %.0f s",
            experiment,
            failing.times,
            pause_s,
        )

    def _uncounted(self, experiment: str) -> list[float]:
        """Times of this worker's own results that an actor may not have counted yet."""
        since = asyncio.get_running_loop().time() - COUNTED_S
        return [at for at in self._succeeded.get(experiment, []) if at > since]
