"""Which checkpoints become garbage with a batch of events.

A checkpoint is needed by the slots that may continue from it or be compared by it, and by the best
trial. The needs are counted, so that a batch costs as much as the slots that it changes.
"""

from collections import Counter
from collections.abc import Sequence

from romul_actors.core.events import Event, Released, Result
from romul_actors.core.population import Population
from romul_actors.core.slot import Slot, needed


class NeededCheckpoints:
    """How many slots need each checkpoint; the best trial counts as one more.

    Args:
        population: whose checkpoints are counted.
    """

    def __init__(self, population: Population) -> None:
        self._needs = Counter(name for slot in population.slots for name in needed(slot))
        self._needs.update(_best(population))

    def follow(
        self,
        before: Population,
        after: Population,
        changed: Sequence[Slot],
        events: Sequence[Event],
    ) -> list[str]:
        """Count the needs of the next population.

        Args:
            before: the population that is counted so far.
            after: the next one.
            changed: slots of `after` that are others than in `before`.
            events: what led from one to the other.

        Returns:
            Names of the checkpoints that nothing needs any more, sorted.
        """
        if before is after:
            return []
        # A result that came and went within the batch was never needed before or after it.
        touched = {e.checkpoint for e in events if isinstance(e, Result | Released)} - {None}
        for slot in changed:
            if slot.index < len(before.slots):
                dropped = needed(before.slots[slot.index])
                self._count(dropped, -1)
                touched |= dropped
            self._count(needed(slot), 1)
        if before.best is not after.best:
            self._count(_best(before), -1)
            self._count(_best(after), 1)
            touched |= _best(before)
        garbage = sorted(name for name in touched if name is not None and self._needs[name] <= 0)
        for name in garbage:
            self._needs.pop(name, None)
        return garbage

    def _count(self, names: set[str], change: int) -> None:
        for name in names:
            self._needs[name] += change


def _best(population: Population) -> set[str]:
    """The best trial's checkpoint, if there is one."""
    return set() if population.best is None else {population.best.checkpoint}
