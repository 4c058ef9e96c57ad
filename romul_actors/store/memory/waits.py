"""Calls of the store in memory that wait for an entry in one of several experiments."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterable

Wait = asyncio.Future[None]
Group = OrderedDict[Wait, int]
"""Waits for the same set of experiments, in the order in which they began, with serial numbers."""


class Waits:
    """The waits for entries of one kind of queue. Each new entry ends the oldest matching wait.

    Waits for the same set of experiments form a group, so that beginning or ending a wait costs the
    same however many there are.
    """

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], Group] = {}
        self._by_name: dict[str, dict[frozenset[str], Group]] = {}
        self._numbers = itertools.count()

    def begin(self, wait: Wait, names: Iterable[str]) -> frozenset[str]:
        """Add a wait for entries of some experiments; return the set to pass to `end`."""
        whole = frozenset(names)
        group = self._groups.get(whole)
        if group is None:
            group = self._groups[whole] = OrderedDict()
            for name in whole:
                self._by_name.setdefault(name, {})[whole] = group
        group[wait] = next(self._numbers)
        return whole

    def end(self, wait: Wait, whole: frozenset[str]) -> None:
        """Remove a wait, and its group if it was the last one in it."""
        group = self._groups.get(whole)
        if group is None:
            return
        group.pop(wait, None)
        if not group:
            del self._groups[whole]
            for name in whole:
                del self._by_name[name][whole]
                if not self._by_name[name]:
                    del self._by_name[name]

    def end_first(self, name: str) -> None:
        """End the oldest wait for entries of an experiment, if there is one."""
        first, found = None, -1
        for group in self._by_name.get(name, {}).values():
            # Calls whose wait has ended remove it themselves, but only when they run again.
            while group and next(iter(group)).done():
                group.popitem(last=False)
            for wait in itertools.islice(group, 1):
                if first is None or group[wait] < found:
                    first, found = wait, group[wait]
        if first is not None:
            first.set_result(None)
