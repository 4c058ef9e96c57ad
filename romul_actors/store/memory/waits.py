"""Calls that wait in memory for an entry of one of some experiments."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterable

Wait = asyncio.Future[None]
Group = OrderedDict[Wait, int]
"""Waits for the same experiments, in the order in which they began, with a number of that order."""


class Waits:
    """The waits for entries of one kind of queue; each entry ends one, the one that began first.

    Waits for the same experiments are in one group, for as long as there are any: what one costs
    that begins or ends does not grow with the number of the others.
    """

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], Group] = {}
        self._by_name: dict[str, dict[frozenset[str], Group]] = {}
        self._numbers = itertools.count()

    def begin(self, wait: Wait, names: Iterable[str]) -> frozenset[str]:
        """Let a call wait for entries of some experiments; what it is to be ended with."""
        whole = frozenset(names)
        group = self._groups.get(whole)
        if group is None:
            group = self._groups[whole] = OrderedDict()
            for name in whole:
                self._by_name.setdefault(name, {})[whole] = group
        group[wait] = next(self._numbers)
        return whole

    def end(self, wait: Wait, whole: frozenset[str]) -> None:
        """Take out a call that waits no more, and its group if it was the last one there."""
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
        """End the wait for entries of an experiment that began first, if there is one."""
        first, found = None, -1
        for group in self._by_name.get(name, {}).values():
            # Those that have ended take themselves out, but only when they run again.
            while group and next(iter(group)).done():
                group.popitem(last=False)
            for wait in itertools.islice(group, 1):
                if first is None or group[wait] < found:
                    first, found = wait, group[wait]
        if first is not None:
            first.set_result(None)
