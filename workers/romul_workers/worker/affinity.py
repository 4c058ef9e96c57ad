"""Decides what a worker says about the checkpoint that is still in its process's memory.

A trial whose parent is in a worker's memory is offered to that worker first (`romul_actors.store`).
The offer lasts as long as this worker's latest restore from files took, because a restore elsewhere
would take that long. A worker that has not restored from files yet says nothing.
"""

from collections.abc import Sequence

from romul_actors.core.events import ReleaseReason
from romul_actors.store import Hold
from romul_workers.trainer import Ending, Restored, Success

LEAST_S = 0.005
"""If a restore is faster than this, nothing is offered."""
LONGEST_S = 1.0
"""Longest time for which a trial waits for one worker."""


class Affinity:
    """What one worker says about the checkpoint in its memory.

    Args:
        for_s: how long a trial may wait for this worker, in seconds; None: as long as a restore
            takes; 0: never.
    """

    def __init__(self, for_s: float | None) -> None:
        self._for_s = for_s
        self._restore_s: dict[str, float] = {}
        self._said: set[str] = set()
        self._held: str | None = None
        self._leases = 0
        self._reported = 0
        """Number of the latest trial whose report said something about the memory."""

    def holding(self, names: Sequence[str]) -> list[str]:
        """The experiments among `names` of which this worker has a checkpoint in memory."""
        return [name for name in names if name == self._held]

    def leased(self) -> int:
        """Note that the worker begins a trial, so that its process frees what it had in memory.

        Returns:
            The number of the trial, for `after` and `accepted`.
        """
        self._held = None
        self._leases += 1
        return self._leases

    def stores(self, experiment: str) -> None:
        """Note that the latest trial is trained: the process has its checkpoint in memory."""
        if experiment in self._said:
            self._held = experiment

    def forget(self, experiment: str) -> None:
        """Forget an experiment: it was removed, or another one has its name."""
        self._restore_s.pop(experiment, None)
        self._said.discard(experiment)

    def after(self, experiment: str, ending: Ending | ReleaseReason, number: int) -> Hold | None:
        """What a report says about this worker's memory; None: nothing.

        Args:
            experiment: name of the trial's experiment.
            ending: how the trial ended.
            number: number of the trial. The process has only the latest trial's checkpoint, and
                the report of an earlier trial says nothing after that of a later one.
        """
        if self._for_s == 0.0 or number < self._reported:
            return None
        self._reported = number
        restored = ending.restored if isinstance(ending, Success) else None
        warm = None if restored is None else restored.warm
        for_s = self._worth_s(experiment, restored)
        is_latest = number == self._leases
        if isinstance(ending, Success) and for_s >= LEAST_S and is_latest:
            self._said.add(experiment)
            return Hold(ending.checkpoint, int(1000 * for_s), warm)
        return Hold(warm=warm) if experiment in self._said else None

    def accepted(self, experiment: str, hold: Hold | None, number: int) -> None:
        """Note that a report was accepted: trials with this parent may now be offered here."""
        if number == self._leases:
            self._held = experiment if hold is not None and hold.checkpoint else None

    def _worth_s(self, experiment: str, restored: Restored | None) -> float:
        if self._for_s is not None:
            return self._for_s
        if restored is not None and not restored.warm:
            self._restore_s[experiment] = restored.seconds
        return min(LONGEST_S, self._restore_s.get(experiment, 0.0))
