"""The decision actor: a stateless loop around the pure core.

The actor reads a batch of events, folds `decide` over them, and commits the result in one call that
succeeds only if the stored version is still the one it decided on. So an actor that is killed, or
that shares an experiment with another one, neither loses nor duplicates a decision: entries that
were not committed stay pending.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf

from romul_actors.actor.batch import CachedExperiment, adopt, decide_and_write, load
from romul_actors.actor.inbox import decode
from romul_actors.actor.leases import expire
from romul_actors.actor.precedence import gives_way, nonce_of
from romul_actors.actor.reconciliation import missing_attempts
from romul_actors.actor.search import Search
from romul_actors.actor.silence import Silence
from romul_actors.actor.timing import (
    BACKOFF_S,
    FORGET_MS,
    PACE_S,
    RECONCILE_S,
    SILENT_MS,
    TAKE_OVER_MS,
    tick_every_s,
)
from romul_actors.actor.unread import UNREAD, stop_unread
from romul_actors.core.events import MAX_TEXT, Stamped, Tick
from romul_actors.core.history import Line
from romul_actors.errors import (
    RomulError,
    StoreError,
    StoreUnavailableError,
    UndecidableError,
    UnknownExperimentError,
)
from romul_actors.protocol.messages import encode, request_of
from romul_actors.protocol.statuses import OVER
from romul_actors.store import ActorStore, Entry, serves
from romul_actors.waiting import RetryLog, pause

log = logging.getLogger("romul.actor")

BATCH = 256
"""Maximal number of events of one experiment that are decided and committed together."""
MOST_WAITING = 16 * BATCH
"""Maximal number of events that are read of an experiment that could not be decided."""


class Actor:
    """A decision actor for all experiments of a store.

    Args:
        store: store that holds all state.
        name: name of the actor, unique among all living actors.
        experiments: names of the experiments to serve. None (the default) means all.
        on_commit: called after each commit with the experiment's name and the new lines of its
            history.
        pace_s: longest wait for an event, in seconds. Twice this is the interval at which leases,
            entries of dead actors and the list of experiments are checked.

    Attributes:
        decisions: number of trials that it has decided and committed.
        outrun: number of batches that it decided in vain, because another actor was faster.
    """

    def __init__(
        self,
        store: ActorStore,
        name: str,
        experiments: Sequence[str] | None = None,
        on_commit: Callable[[str, Sequence[Line]], None] | None = None,
        pace_s: float = PACE_S,
    ) -> None:
        self._store = store
        self._pace_s = pace_s
        self._name = name
        self._only = experiments
        self._open: list[str] = []
        self._searches: defaultdict[str, Search] = defaultdict(Search)
        self._upkept_s = -inf
        self._silence = Silence()
        self._retries = RetryLog(log)
        self._on_commit = on_commit
        self._commits = self.decisions = self.outrun = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Decide until `stop` is set. The current batch is still committed."""
        while not stop.is_set():
            try:
                await self.turn()
                self._retries.worked()
            except StoreError as error:
                self._retries.failed(f"{error}; trying again")
                for search in self._searches.values():
                    search.cached = None
                self._silence.note()
                await pause(BACKOFF_S, stop)
        # Names are not reused: without this, the lists of readers would grow with every actor.
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(BACKOFF_S):
                for name in self._open:
                    await self._store.forget_readers(name, 0, self._name)

    async def turn(self) -> None:
        """One round: periodic work if it is due, then the next batch of each experiment."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._upkept_s >= 2 * self._pace_s:
            self._upkept_s = now_s
            await self._upkeep()
        if not self._open:
            await asyncio.sleep(self._pace_s)
            return
        now_s = asyncio.get_running_loop().time()
        if self._next_release_s() <= now_s:
            await self._silence.timed(self._release_offers(now_s))
        block_ms = max(1, int(1000 * min(self._pace_s, self._next_release_s() - now_s)))
        entries = await self._silence.timed(self._read(block_ms), block_ms / 1000)
        for name, batch in itertools.groupby(entries, key=lambda entry: entry.experiment):
            # `_apart` would cost a tenth of the time of a small decision.
            try:
                await self._answer_if_possible(name, list(batch))
            except RomulError as error:
                await self._set_aside(name, error)

    async def lost(self, worker: str) -> int:
        """End the leases of a worker that lost its connection to the broker; return their number.

        Only leases without a heartbeat for `SILENT_MS` end: a worker that lost only the broker
        still sends heartbeats. None end for the same time after the store was silent.
        """
        ended = 0
        if self._silence.over_s() < SILENT_MS / 1000:
            return ended
        for name in self._open.copy():
            async with self._apart(name):
                swept = await self._store.sweep(name, self._name, SILENT_MS, BATCH, worker)
                ended += await expire(self._store, name, swept)
        return ended

    @contextlib.asynccontextmanager
    async def _apart(self, name: str) -> AsyncIterator[None]:
        """Keep an error of one experiment from affecting the others; see `_set_aside`."""
        try:
            yield
        except RomulError as error:
            await self._set_aside(name, error)

    async def _set_aside(self, name: str, error: RomulError) -> None:
        """Skip an experiment until the next upkeep; log its fault once, and store it.

        An error that concerns all experiments (the store does not answer) is raised again.
        """
        if isinstance(error, StoreUnavailableError):
            raise error
        self._leave(name)
        search = self._searches[name]
        if isinstance(error, UnknownExperimentError):
            search.fault = None
            return
        if search.fault != str(error):
            cause = error.__cause__ if isinstance(error, UndecidableError) else None
            log.error("experiment %s cannot be served: %s", name, error, exc_info=cause)
            search.fault = str(error)
        # Stored each time: it may be a new search of the same name with the same fault.
        await self._store_fault(name, f"actor {self._name} cannot serve it: {error}")

    async def _store_fault(self, name: str, fault: str) -> None:
        """Store why an experiment cannot be served; "" means that it can be."""
        try:
            await self._store.set_fault(name, fault[:MAX_TEXT])
        except StoreUnavailableError:
            raise
        except StoreError as error:
            # The experiment's hash itself may be the problem.
            log.debug("%s: cannot store the fault: %s", name, error)

    def _leave(self, name: str) -> None:
        """Drop the copy of an experiment, and stop reading its inbox."""
        self._searches[name].cached = None
        if name in self._open:
            self._open.remove(name)

    # -- deciding ---------------------------------------------------------------------------------

    async def _read(self, block_ms: int) -> list[Entry]:
        """The next events of all open experiments, except those left to another actor."""
        if not (names := await self._own()):
            await asyncio.sleep(block_ms / 1000)
            return []
        try:
            return await self._store.read(names, self._name, BATCH, block_ms)
        except StoreUnavailableError:
            raise
        except StoreError:
            # A single inbox that cannot be read makes the whole call fail: read one by one.
            found: list[Entry] = []
            for name in names:
                async with self._apart(name):
                    found += await self._store.read([name], self._name, BATCH, 0)
            return found

    async def _own(self) -> list[str]:
        """Open experiments, except those whose inbox is left to another actor."""
        now_s = asyncio.get_running_loop().time()
        for name in self._open.copy():
            search = self._searches[name]
            if search.left_until_s is not None and search.left_until_s <= now_s:
                async with self._apart(name):
                    search.look_again(await self._store.reported(name), now_s)
        return [name for name in self._open if self._searches[name].left_until_s is None]

    async def _answer_if_possible(self, name: str, entries: Sequence[Entry]) -> None:
        try:
            await self._answer(name, entries)
        except UndecidableError:
            self._searches[name].cached = None
            await self._answer_apart(name)

    async def _answer(self, name: str, entries: Sequence[Entry]) -> None:
        """Decide and commit a batch. If another actor was faster, reload and decide again."""
        while entries:
            if await self._decide(name, entries):
                return
            search = self._searches[name]
            search.cached = None
            cached = await self._cached(name)
            if gives_way(name, self._name, cached.version):
                now_s = asyncio.get_running_loop().time()
                search.leave(cached.population.counts.reported, now_s)
            entries = await self._store.pending(name, self._name, BATCH)

    async def _answer_apart(self, name: str) -> None:
        """Decide waiting entries after a failure: first each operator request by itself.

        A request may remove the cause by changing a constant of the optimizer, or stop the search.
        """
        waiting = await self._waiting(name)
        requests = {entry.id: request for entry in waiting if (request := request_of(entry.body))}
        rest = [entry for entry in waiting if entry.id not in requests]
        for entry in [entry for entry in waiting if entry.id in requests]:
            try:
                await self._answer(name, [entry])
            except UndecidableError as error:
                self._searches[name].cached = None
                if requests[entry.id].action in ("change", "bounds"):
                    # It must not be applied again after a later change that removes the fault.
                    unusable = [(entry.id, str(error), entry.body)]
                    await self._store.dead_letter(name, "inbox", unusable)
                else:
                    rest.append(entry)
        for begin in range(0, len(rest), BATCH):
            await self._answer(name, rest[begin : begin + BATCH])

    async def _waiting(self, name: str) -> list[Entry]:
        """All waiting entries: those this actor has read before, and new ones."""
        waiting = await self._store.pending(name, self._name, MOST_WAITING)
        return [*waiting, *await self._store.read([name], self._name, BATCH, 0)]

    async def _decide(self, name: str, entries: Sequence[Entry]) -> bool:
        """Decide and commit a batch. Return False if another actor has committed first."""
        cached = await self._cached(name)
        usable = await decode(self._store, name, entries)
        if not usable:
            return True
        self._commits += 1
        decision, commit = decide_and_write(
            cached,
            [Stamped(event, entry.at_ms) for entry, event in usable],
            [entry.id for entry, _ in usable],
            nonce=nonce_of(self._name, self._commits),
        )
        committed = await self._silence.timed(self._store.commit(name, self._name, commit))
        if committed is None:
            self.outrun += 1
            log.debug("%s: another actor decided first", name)
            return False
        before, after = cached.population, decision.population
        adopt(cached, after, committed.version)
        self._searches[name].release_after(committed.release_ms)
        if self._on_commit is not None and decision.history:
            self._on_commit(name, decision.history)
        self.decisions += after.counts.created - before.counts.created
        if (status := after.status) != before.status:
            log.info("%s: %s %s", name, status, after.reason.removeprefix(status).lstrip())
        return True

    async def _cached(self, name: str) -> CachedExperiment:
        """The actor's copy of an experiment, read from the store if there is none."""
        search = self._searches[name]
        if search.cached is None:
            search.cached = await self._silence.timed(load(self._store, name))
            if not search.was_read:
                search.was_read = True
                for text in search.cached.left_out:
                    log.warning("experiment %s: %s", name, text)
        return search.cached

    async def _release_offers(self, now_s: float) -> None:
        """Release the offers that are due."""
        due = {name: each for name, each in self._searches.items() if each.release_s <= now_s}
        for name, search in due.items():
            search.release_s = inf
            async with self._apart(name):
                self._searches[name].release_after(await self._store.release_offers(name))

    def _next_release_s(self) -> float:
        """When the next offers are due to be released, in the event loop's time."""
        return min([search.release_s for search in self._searches.values()], default=inf)

    # -- periodic work ----------------------------------------------------------------------------

    async def _upkeep(self) -> None:
        """Look for new experiments, entries of dead actors, and leases that have ended."""
        statuses = await self._silence.timed(self._store.experiments())
        self._open = [name for name in statuses if self._only is None or name in self._only]
        for name in self._searches.keys() - statuses.keys():
            if self._searches.pop(name).was_read:
                # If the server has lost its data, no other message reports it.
                log.warning("experiment %s is gone from the server", name)
        for name in self._open.copy():
            async with self._apart(name):
                await self._keep(name, statuses[name])

    async def _keep(self, name: str, status: str) -> None:
        """Do the periodic work of one experiment."""
        try:
            cached = await self._cached(name)
        except UNREAD:
            if status not in OVER:
                await self._stop_unread(name)
            raise
        lease_s, version = cached.experiment.timeouts.lease_s, cached.version
        if self._searches[name].fault is not None:
            await self._answer_apart(name)
        left = self._store.take_over(name, self._name, TAKE_OVER_MS, BATCH)
        await self._answer_if_possible(name, await self._silence.timed(left))
        # No heartbeat could arrive while the store was silent: every lease gets its full time.
        if self._silence.over_s() >= lease_s and status != "submitted":
            sweep = self._store.sweep(name, self._name, int(1000 * lease_s), BATCH, version=version)
            await expire(self._store, name, await self._silence.timed(sweep))
        if status == "running":
            await self._tick(name, lease_s)
            await self._reconcile(name, max(RECONCILE_S, lease_s))
        search = self._searches[name]
        # The experiment is served again: clear the fault, so that a later one is reported anew.
        if search.fault is not None or (search.cached is not None and search.cached.faulty):
            search.fault = None
            await self._store_fault(name, "")
            if search.cached is not None:
                search.cached.faulty = False

    async def _tick(self, name: str, lease_s: float) -> None:
        """Send a tick to a population if it is due, and remove workers that are long gone."""
        now_s = asyncio.get_running_loop().time()
        search = self._searches[name]
        population = None if search.cached is None else search.cached.population
        every_s = tick_every_s(population, self._pace_s)
        if now_s - search.ticked_s < every_s:
            return
        ages = await self._store.ages(name)
        for worker in [worker for worker, age_ms in ages.items() if age_ms > FORGET_MS]:
            await self._store.present([name], worker, {})
        tick = encode(Tick(workers=sum([age_ms < 1000 * lease_s for age_ms in ages.values()])))
        await self._silence.timed(self._store.tick(name, tick, int(1000 * every_s)))
        search.ticked_s = now_s

    async def _stop_unread(self, name: str) -> None:
        """Stop a search that cannot be read, if an operator has requested it."""
        self._commits += 1
        nonce = nonce_of(self._name, self._commits)
        line = await stop_unread(self._store, self._name, name, nonce)
        if line is not None and self._on_commit is not None:
            self._on_commit(name, [line])

    async def _reconcile(self, name: str, every_s: float) -> None:
        """Release attempts that are neither queued nor leased nor reported."""
        now_s = asyncio.get_running_loop().time()
        search = self._searches[name]
        cached = search.cached
        if cached is None or now_s - search.reconciled_s < every_s:
            return
        outstanding = await self._store.outstanding(name)
        if outstanding.version != cached.version:
            return
        search.reconciled_s = now_s
        await self._store.forget_readers(name, FORGET_MS)
        for worker, seen in (await self._store.workers(name)).items():
            # `_tick` removes the workers that serve the experiment.
            if not serves(seen) and seen["age_ms"] > FORGET_MS:
                await self._store.present([name], worker, {})
        for missing in missing_attempts(cached.population, outstanding):
            log.warning("%s: trial %s was not in any queue: queued again", name, missing.trial)
            await self._store.send(name, encode(missing))
