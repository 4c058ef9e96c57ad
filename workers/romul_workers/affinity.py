"""What a worker's process holds of its last trial, and what that is worth.

A trial that continues from what lies in a worker's memory is offered to that worker first
(`romul_actors.store`), for no longer than the restore elsewhere would take: so long as this
worker's latest restore from files took. A worker that has restored none so far says nothing.
"""

from collections.abc import Sequence

from romul_actors.core.events import ReleaseReason
from romul_actors.store import Hold
from romul_workers.trainer import Ending, Restored, Success

LEAST_S = 0.005
"""A restore that is shorter is not worth a claim of its own."""
LONGEST_S = 1.0
"""No trial waits longer for one worker."""


class Affinity:
    """One worker's.

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
        """The latest trial that something was said with."""

    def holding(self, names: Sequence[str]) -> list[str]:
        """Those of some experiments of which this worker's memory holds a checkpoint."""
        return [name for name in names if name == self._held]

    def leased(self) -> int:
        """The worker begins a trial: what its process held is used, or given up.

        Returns:
            The trial's number. What is said with its report depends on whether it is the latest.
        """
        self._held = None
        self._leases += 1
        return self._leases

    def stores(self, experiment: str) -> None:
        """The latest trial is trained: what its process holds may be offered with its report."""
        if experiment in self._said:
            self._held = experiment

    def forget(self, experiment: str) -> None:
        """Begin anew with an experiment of that name."""
        self._restore_s.pop(experiment, None)
        self._said.discard(experiment)

    def after(self, experiment: str, ending: Ending | ReleaseReason, number: int) -> Hold | None:
        """What to say of this worker's memory with a report; None: nothing.

        Args:
            experiment: the trial's.
            ending: how it ended.
            number: the trial's. The process holds nothing of any but the latest; and once a later
                one was reported, it is that one's report that counts.
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
        """The report of a trial arrived: from now on others may be offered."""
        if number == self._leases:
            self._held = experiment if hold is not None and hold.checkpoint else None

    def _worth_s(self, experiment: str, restored: Restored | None) -> float:
        if self._for_s is not None:
            return self._for_s
        if restored is not None and not restored.warm:
            self._restore_s[experiment] = restored.seconds
        return min(LONGEST_S, self._restore_s.get(experiment, 0.0))
