"""Finds the checkpoints that become garbage with a batch of events.

A checkpoint is needed by slots that may continue from it or whose outcomes may still be compared,
and by the best trial. References are counted, so the cost of a batch depends on the number of slots
that it changes only.
"""

from collections import Counter
from collections.abc import Sequence

from romul_actors.core.events import Event, Released, Result
from romul_actors.core.population import Population
from romul_actors.core.slot import Slot, needed


class NeededCheckpoints:
    """Counts the references to each checkpoint, from slots and from the best trial.

    Args:
        population: the population to begin with.
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
        """Update the counts for the next population.

        Args:
            before: the population counted so far.
            after: the next population.
            changed: slots of `after` that differ from `before`.
            events: the events that led from `before` to `after`.

        Returns:
            Names of the checkpoints that are no longer needed, sorted.
        """
        if before is after:
            return []
        # A checkpoint may appear and become garbage within the batch: neither population has it.
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
    """The checkpoint of the best trial, if any."""
    return set() if population.best is None else {population.best.checkpoint}
