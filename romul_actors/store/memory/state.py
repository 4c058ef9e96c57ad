"""The data of the store in memory: experiments, their queues, and waiting calls."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from romul_actors.errors import UnknownExperimentError
from romul_actors.store.memory.waits import Waits
from romul_actors.store.values import AffinityCounts, DeadLetter, Hold, Output


@dataclass(slots=True)
class Item:
    """An entry of a queue.

    Attributes:
        body: the message.
        at_ms: time of its arrival, in milliseconds.
        holder: the actor or worker that has read it; None if it has not been read.
        touched_ms: time of the last sign of life of the holder, in milliseconds.
    """

    body: bytes
    at_ms: int
    holder: str | None = None
    touched_ms: int = 0


@dataclass(slots=True)
class Queue:
    """Entries by id: those not read yet, and those that an actor or worker holds."""

    fresh: dict[int, Item] = field(default_factory=dict)
    pending: dict[int, Item] = field(default_factory=dict)
    """In order of `touched_ms`."""
    holders: Counter[str] = field(default_factory=Counter)
    """Number of entries of each holder."""

    def __len__(self) -> int:
        return len(self.fresh) + len(self.pending)

    def all(self) -> list[Item]:
        """All entries, oldest first."""
        return [item for _, item in sorted((self.fresh | self.pending).items())]

    def copy(self) -> "Queue":
        """An independent copy."""
        fresh = {entry_id: replace(item) for entry_id, item in self.fresh.items()}
        pending = {entry_id: replace(item) for entry_id, item in self.pending.items()}
        return Queue(fresh, pending, self.holders.copy())

    def take(self, entry_id: int, holder: str, now_ms: int) -> Item:
        """Give an entry to a holder."""
        item = self.fresh.pop(entry_id, None) or self.drop(entry_id)
        if item is None:
            raise KeyError(entry_id)
        item.holder, item.touched_ms = holder, now_ms
        self.pending[entry_id] = item
        # Faster than `+= 1`, which would call `Counter.__missing__`.
        self.holders[holder] = self.holders.get(holder, 0) + 1
        return item

    def drop(self, entry_id: int) -> Item | None:
        """Remove a pending entry, if there is one with that id."""
        item = self.pending.pop(entry_id, None)
        if item is not None and item.holder is not None:
            left = self.holders.pop(item.holder) - 1
            if left:
                self.holders[item.holder] = left
        return item

    def touch(self, entry_id: int, now_ms: int) -> None:
        """Record a sign of life of an entry's holder."""
        item = self.pending.pop(entry_id)
        item.touched_ms = now_ms
        self.pending[entry_id] = item

    def idle(self, limit_ms: int) -> list[int]:
        """Ids of pending entries last touched at `limit_ms` or before, the longest idle first."""
        return list(
            itertools.takewhile(lambda i: self.pending[i].touched_ms <= limit_ms, self.pending)
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """A trial that only one worker may take for `for_ms` milliseconds."""

    body: bytes
    at_ms: int
    for_ms: int


@dataclass(slots=True)
class StoredExperiment:
    """The data of one experiment."""

    spec: str
    epoch: int
    meta: dict[str, str]
    version: int = 0
    nonce: str = ""
    slots: dict[int, dict[str, str]] = field(default_factory=dict)
    inbox: Queue = field(default_factory=Queue)
    trials: Queue = field(default_factory=Queue)
    history: list[tuple[int, str]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    workers: dict[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    settled: dict[int, str] = field(default_factory=dict)
    garbage: dict[str, int] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    holds: dict[str, Hold] = field(default_factory=dict)
    """What each worker has in memory."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """The trial that is offered to each worker."""
    affinity: AffinityCounts = field(default_factory=AffinityCounts)
    ticked_ms: int | None = None

    @property
    def token(self) -> str:
        """The version as callers see it."""
        return f"{self.epoch}.{self.version}.{self.nonce}"

    def copy(self) -> "StoredExperiment":
        """An independent copy; immutable parts are shared."""
        return replace(
            self,
            meta=dict(self.meta),
            slots={index: dict(slot) for index, slot in self.slots.items()},
            inbox=self.inbox.copy(),
            trials=self.trials.copy(),
            history=list(self.history),
            dead=list(self.dead),
            workers=dict(self.workers),
            settled=dict(self.settled),
            garbage=dict(self.garbage),
            outputs=list(self.outputs),
            holds=dict(self.holds),
            offers=dict(self.offers),
        )

    def offer_to(self, parent: str) -> str | None:
        """The idle worker without an offer that has a checkpoint in memory, or None."""
        for worker, hold in self.holds.items():
            if hold.checkpoint == parent and worker not in self.offers:
                return None if worker in self.trials.holders else worker
        return None

    def withdraw(self, worker: str, now_ms: int) -> Offer:
        """Remove the offer to a worker, and add its waiting time to the statistics."""
        offer = self.offers.pop(worker)
        waited = self.affinity.waited_ms + max(0, now_ms - offer.at_ms)
        self.affinity = replace(self.affinity, waited_ms=waited)
        return offer

    def queue(self, name: str) -> Queue:
        """The queue `inbox`, or that of trials, which holds all leases here."""
        return self.inbox if name == "inbox" else self.trials


class Memory:
    """The data that all roles share.

    Args:
        now_ms: clock, in milliseconds.

    Attributes:
        now_ms: the clock.
        experiments: experiments by name, sorted by name.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.experiments: dict[str, StoredExperiment] = {}
        self._last_id = 0
        self._waits = {"inbox": Waits(), "trials": Waits()}
        self._bells: dict[str, tuple[Sequence[str], asyncio.Future[None]]] = {}

    def next_id(self) -> int:
        """A new id, larger than all before."""
        self._last_id += 1
        return self._last_id

    def find(self, name: str) -> StoredExperiment:
        """An experiment.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
        """
        if name not in self.experiments:
            raise UnknownExperimentError(f"no experiment {name!r} in memory")
        return self.experiments[name]

    def look(self, name: str) -> StoredExperiment:
        """An experiment for reading; an empty one if there is none of that name."""
        return self.experiments.get(name) or StoredExperiment("", 0, {})

    def queue(self, name: str, queue: str) -> Queue:
        """A queue of an experiment; an empty one if there is no such experiment."""
        return self.look(name).queue(queue)

    def add(self, name: str, queue: str, body: bytes) -> None:
        """Put a message into a queue."""
        self.experiments[name].queue(queue).fresh[self.next_id()] = Item(body, self.now_ms())
        self._waits[queue].end_first(name)

    def ring(self, name: str, worker: str) -> None:
        """Wake a worker that has an offer."""
        names, future = self._bells.get(worker, ((), None))
        if name in names and future is not None:
            _end(future)

    async def arrival(
        self,
        queue: str,
        names: Sequence[str],
        block_ms: int,
        worker: str = "",
        holding: Sequence[str] = (),
    ) -> None:
        """Wait for an entry of one of the experiments, at most `block_ms`.

        Args:
            queue: `inbox` or `trials`.
            names: names of the experiments.
            block_ms: longest wait, in milliseconds.
            worker: name of the worker that waits.
            holding: experiments in which an offer to this worker also ends the wait.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        limit = loop.call_later(block_ms / 1000, _end, future)
        whole = self._waits[queue].begin(future, names)
        if holding:
            self._bells[worker] = holding, future
        try:
            await future
        finally:
            limit.cancel()
            self._waits[queue].end(future, whole)
            if holding:
                del self._bells[worker]


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)
