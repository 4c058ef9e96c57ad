"""When a worker pauses, because trials cannot succeed on its machine now.

A machine with a broken GPU, say, fails faster than others train, and would draw one trial after the
other to itself. Where trials fail on every machine, the machine is not at fault, and the failures
should be reported soon: then no worker pauses. A parent that is lost counts as any other failure: a
storage that is not mounted may well be the cause, and then others restore what this machine cannot.
"""

import asyncio
import logging
from dataclasses import dataclass

from romul_actors.core.events import ReleaseReason
from romul_actors.store import WorkerStore
from romul_workers.outages import Outages, longer
from romul_workers.trainer import Ending, Failure, NoRoom, Success

log = logging.getLogger("romul.worker")

FAILING = 3
"""So many failures in a row, while trials succeeded elsewhere, are the machine's fault."""
COUNTED_S = 30.0
"""By then an actor has counted a result, unless there is none."""


@dataclass(slots=True)
class _Failing:
    """An experiment whose trials fail on this machine.

    Attributes:
        reported: results of all its workers when the first of these trials failed.
        ours: this worker's own results that may not have been among them.
        times: failures in a row.
        pause_s, until: how long the experiment is left to other workers, and the loop's time when
            that ends.
    """

    reported: int
    ours: int
    times: int = 0
    pause_s: float = 0.0
    until: float = 0.0


class Backoff:
    """The pauses of one worker: from an experiment, or from all for want of room.

    Args:
        store: where results are counted.

    Attributes:
        outages: of the storages of checkpoints.
    """

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self.outages = Outages(store)
        self._failing: dict[str, _Failing] = {}
        self._succeeded: dict[str, list[float]] = {}
        """The loop's times of this worker's latest results."""
        self._no_room_s = 0.0

    def pauses(self, experiment: str) -> bool:
        """Whether an experiment is left to other workers for now."""
        return self._fails(experiment) or self.outages.pauses(experiment)

    def state(self, experiment: str, *, trains: bool) -> str:
        """What hinders an experiment's trials here: "no storage", or "failing"; "": nothing.

        Args:
            experiment: its name.
            trains: whether a trial of it is in training here, which an outage may end in vain.
        """
        if self.outages.pauses(experiment) or (trains and self.outages.away(experiment)):
            return "no storage"
        return "failing" if self._fails(experiment) else ""

    def _fails(self, experiment: str) -> bool:
        failing = self._failing.get(experiment)
        return failing is not None and asyncio.get_running_loop().time() < failing.until

    def forget(self, experiment: str) -> None:
        """Begin anew with an experiment of that name."""
        self._failing.pop(experiment, None)
        self._succeeded.pop(experiment, None)
        self.outages.forget(experiment)

    async def judge(self, experiment: str, ending: Ending | ReleaseReason) -> None:
        """Pause from an experiment, if all its trials fail here while others succeed elsewhere.

        Raises:
            StoreError: the store does not say how many results there are.
        """
        if isinstance(ending, Success):
            self._failing.pop(experiment, None)
            ours = self._uncounted(experiment)
            self._succeeded[experiment] = [*ours, asyncio.get_running_loop().time()]
        if not isinstance(ending, Failure) or ending.reason == "not_finite":
            return
        reported = await self._store.reported(experiment)
        failing = self._failing.get(experiment)
        if failing is None or reported < failing.reported:
            # Less than before: the server came back with older data.
            failing = _Failing(reported, len(self._uncounted(experiment)))
            self._failing[experiment] = failing
        failing.times += 1
        if failing.times < FAILING or reported - failing.reported <= failing.ours:
            return
        failing.pause_s = longer(failing.pause_s)
        failing.until = asyncio.get_running_loop().time() + failing.pause_s
        log.error(
            "%s: %d trials failed here, one after the other, while others went well elsewhere; "
            "trying again in %.0f s",
            experiment,
            failing.times,
            failing.pause_s,
        )

    def _uncounted(self, experiment: str) -> list[float]:
        """Times of this worker's own results that an actor may still have to count."""
        since = asyncio.get_running_loop().time() - COUNTED_S
        return [at for at in self._succeeded.get(experiment, []) if at > since]

    def without_room(self, ending: Ending | ReleaseReason) -> float:
        """Seconds to wait for room for checkpoints: longer each time; 0: there was room."""
        if not isinstance(ending, NoRoom):
            self._no_room_s = 0.0
            return 0.0
        self._no_room_s = longer(self._no_room_s)
        log.error("%s; trying again in %.0f s", ending.message, self._no_room_s)
        return self._no_room_s
