"""The store of a simulation, and the network between the store and each machine."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from numpy.random import Generator

from romul_actors.core.history import Line
from romul_actors.errors import StoreUnavailableError
from romul_actors.protocol.messages import decode_trial
from romul_actors.store import Commit, Committed, Lease
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster.invariants import InvariantWatch, Violation
from romul_sim.cluster.virtual_time import RESOLUTION_S, virtual_loop

KEPT_MS = 30_000
"""How far back in time the store can go, in milliseconds."""
AMBIGUOUS = ("settle", "beat", "present")
"""Calls that a client repeats if no answer comes, so that they may arrive twice."""
WAITING = ("lease", "read")
"""Calls whose reply may take time; the machine may go meanwhile."""
LOST = 0.3
"""Share of the messages in each direction that a lossy network loses."""

OnLine = Callable[[str, Line], None]
"""Called with the name of a search and a line of its history."""


class WatchedStore(MemoryStore):
    """The store of a simulation: each commit is checked, and the store can go back in time.

    Args:
        watches: the checks of the invariants, by experiment.
        on_line: called with each line of history.

    Attributes:
        away_until_s: the store answers no call before this time.
        closed: whether new lines no longer count; they are still checked.
    """

    def __init__(self, watches: Mapping[str, InvariantWatch], on_line: OnLine) -> None:
        loop = virtual_loop()
        # The server's clock is correct, whichever machine calls.
        super().__init__(lambda: int(1000 * loop.now_s))
        self.watches = watches
        self.away_until_s = 0.0
        self.closed = False
        self._on_line = on_line
        self._sha256 = hashlib.sha256()
        self._kept: list[tuple[int, Any, Any]] = []
        self._statuses: dict[str, str] = {}

    @property
    def history_sha256(self) -> str:
        """SHA-256 of all lines of all histories, in the order of their commits."""
        return self._sha256.hexdigest()

    async def set_fault(self, name: str, fault: str) -> None:
        if fault:
            raise Violation(f"{name}: {fault}")

    async def experiments(self) -> dict[str, str]:
        # All workers share one dict as long as nothing has changed, because each keeps it.
        found = await super().experiments()
        if found != self._statuses:
            self._statuses = found
        return self._statuses

    async def commit(self, name: str, actor: str, commit: Commit) -> Committed | None:
        committed = await super().commit(name, actor, commit)
        if committed is not None:
            stored = self.memory.experiments[name]
            lines = self.watches[name].committed(commit, stored.meta, stored.slots)
            if not self.closed:
                self._sha256.update("".join(commit.history).encode())
                for line in lines:
                    self._on_line(name, line)
        return committed

    async def sweep(
        self,
        name: str,
        actor: str,
        idle_ms: int,
        count: int,
        worker: str | None = None,
        version: str = "",
    ) -> list[tuple[Lease, str]]:
        trials, now_ms = self.memory.queue(name, "trials"), self.memory.now_ms()
        touched_ms = {i: trials.pending[i].touched_ms for i in trials.idle(now_ms - idle_ms)}
        swept = await super().sweep(name, actor, idle_ms, count, worker, version)
        for lease, holder in swept:
            trial = decode_trial(lease.body).id
            self.watches[name].swept(holder, trial, touched_ms[int(lease.id)], now_ms)
        return swept

    def keep(self) -> None:
        """Keep a copy of the current state, as a replica would."""
        now = self.memory.now_ms()
        books = {name: watch.book.copy() for name, watch in self.watches.items()}
        everything = {name: found.copy() for name, found in self.memory.experiments.items()}
        self._kept.append((now, everything, books))
        self._kept = [kept for kept in self._kept if now - kept[0] < KEPT_MS]

    def lose(self, seconds: float) -> None:
        """Go back by at least `seconds`, as if a replica took over without the last writes."""
        limit = self.memory.now_ms() - 1000 * seconds
        older = [kept for kept in self._kept if kept[0] <= limit] or self._kept[:1]
        if older:
            at_ms, everything, books = older[-1]
            # Later copies are lost: no replica has them.
            self._kept = [kept for kept in self._kept if kept[0] <= at_ms]
            self.memory.experiments = {name: found.copy() for name, found in everything.items()}
            for name, book in books.items():
                self.watches[name].book = book.copy()
                self.watches[name].lost_ms = self.memory.now_ms()

    def lose_trial(self, name: str, pick: float) -> None:
        """Lose one queued trial, as with a damaged file or a careless operator."""
        trials = self.memory.queue(name, "trials")
        if len(trials):
            chosen = sorted([*trials.fresh, *trials.pending])[int(pick * len(trials))]
            trials.fresh.pop(chosen, None)
            trials.drop(chosen)
            self.watches[name].lost_ms = self.memory.now_ms()


class MachineStore:
    """The store as one machine sees it: at times slow, lossy, frozen or unreachable.

    Args:
        store: the store.
        rng: random generator of the network's delays and losses.
        latency_s: mean time of a message in each direction, in seconds.

    Attributes:
        dead: whether the machine is gone.
        lossy_until_s: until when messages may be lost.
        frozen_until_s: until when the machine is frozen.
    """

    def __init__(self, store: WatchedStore, rng: Generator, latency_s: float) -> None:
        self._store = store
        self._rng = rng
        self._latency_s = latency_s
        self._loop = virtual_loop()
        self.dead = False
        self.lossy_until_s = 0.0
        self.frozen_until_s = 0.0

    async def forget_readers(self, name: str, idle_ms: int, reader: str = "") -> None:
        """Do nothing: the memory store lists no readers, so no call is needed."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        direct = name not in WAITING

        def call(*args: Any, **kwargs: Any) -> Any:
            # Fast path: most calls meet no fault and no latency.
            if direct and not (
                self.dead
                or self._latency_s
                or self.frozen_until_s
                or self.lossy_until_s
                or self._store.away_until_s
            ):
                return method(*args, **kwargs)
            return self._call_over_network(name, method, args, kwargs)

        # Cache it as an attribute.
        self.__dict__[name] = call
        return call

    async def _call_over_network(
        self, name: str, method: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if self.dead or self._latency_s or self.frozen_until_s:
            await self._way()
        if self._loses():
            raise StoreUnavailableError("the request was lost")
        if self._loop.now_s < self._store.away_until_s:
            raise StoreUnavailableError("the store is away")
        reply = await method(*args, **kwargs)
        if self._loses():
            if self._rng.random() < 0.5 and name in AMBIGUOUS:  # noqa: PLR2004
                # The client sends the call again, so it arrives twice.
                await self._way()
                return await method(*args, **kwargs)
            raise StoreUnavailableError("the reply was lost")
        if self.dead or self._latency_s or self.frozen_until_s:
            await self._way()
        return reply

    def _loses(self) -> bool:
        """Whether the current message is lost."""
        return self._loop.now_s < self.lossy_until_s and self._rng.random() < LOST

    async def _way(self) -> None:
        if self._latency_s:
            await self._loop.true_sleep(float(self._rng.exponential(self._latency_s)))
        # The freeze may be extended meanwhile.
        while (left_s := self.frozen_until_s - self._loop.now_s) > RESOLUTION_S:
            await self._loop.true_sleep(left_s)
        if self.dead:
            raise StoreUnavailableError("this machine is gone")
