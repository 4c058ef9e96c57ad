"""The decision actor: a loop around the pure core. It holds nothing that must last.

Reads a batch of events, folds `decide` over them, commits all of it with one call against the
version that it decided on. Killed anywhere, or one of two on the same experiment, it can neither
lose nor double a decision: what was not committed is still pending, and what was is not.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from romul_actors.core.decide import decide
from romul_actors.core.elasticity import median_trial_s
from romul_actors.core.events import Event, Expired, Released, Result, Stamped, Tick, Trial
from romul_actors.core.population import Population, Settings, changed
from romul_actors.core.slot import Slot, needed
from romul_actors.core.space import FloatParameter, IntParameter
from romul_actors.errors import (
    ExperimentError,
    MessageError,
    StoreError,
    UnknownExperimentError,
)
from romul_actors.protocol.experiment import Experiment, from_json
from romul_actors.protocol.messages import decode_event, decode_trial, encode
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import read, text, write_meta, write_slot
from romul_actors.store import Commit, Entry, Store
from romul_actors.waiting import pause

log = logging.getLogger("romul.actor")

BATCH = 256
"""Most events of one experiment that are decided and committed together."""
PACE_S = 0.5
"""Longest wait for an event at a time; also how soon an actor notices that it should stop."""
TAKE_OVER_MS = 5_000
"""An actor that leaves an entry pending for so long is taken for dead."""
RECONCILE_S = 30.0
"""How often it is checked that every trial is in a queue or with a worker; or once in a lease."""
TICKS_A_TRIAL = 20
"""A population hears of passing time so many times in a median trial, and once a second at most."""
LONGEST_TICK_S = 300.0
SILENT_MS = 1_000
"""A worker whose connection was lost and that was not heard of for so long is taken for dead."""
FORGET_MS = 3_600_000
"""A worker that was not heard of for so long is no longer listed."""
BACKOFF_S = 1.0


@dataclass(slots=True)
class _Held:
    """An experiment as this actor knows it; of use only while the version is still the same."""

    experiment: Experiment
    settings: Settings
    version: str
    population: Population
    needs: Counter[str]
    """How many slots need a checkpoint, the best one's included."""

    def garbage(
        self, after: Population, slots: Sequence[Slot], events: Sequence[Event]
    ) -> list[str]:
        """Checkpoints that become garbage with events that lead to `after`, changing `slots`."""
        before = self.population
        if before is after:
            return []
        # A result that came and went within the batch was never needed before or after it.
        touched = {e.checkpoint for e in events if isinstance(e, Result | Released)} - {None}
        for slot in slots:
            if slot.index < len(before.slots):
                dropped = needed(before.slots[slot.index])
                self._count(dropped, -1)
                touched |= dropped
            self._count(needed(slot), 1)
        if before.best is not after.best:
            self._count(_best(before), -1)
            self._count(_best(after), 1)
            touched |= _best(before)
        garbage = sorted(name for name in touched if name is not None and self.needs[name] <= 0)
        for name in garbage:
            self.needs.pop(name, None)
        return garbage if self.experiment.keep_checkpoints != "all" else []

    def _count(self, names: set[str], change: int) -> None:
        for name in names:
            self.needs[name] += change


class Actor:
    """A decision actor for all experiments of a store.

    Args:
        store: where everything lasts.
        name: unique among all actors that are alive.
        experiments: names to serve; None: all of them.
        tell: is called after each commit with an experiment's name and what was added to its
            history.
        pace_s: longest wait for an event; leases, other actors' leftovers and the list of
            experiments are looked at every other time.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        experiments: Sequence[str] | None = None,
        tell: Callable[[str, Sequence[Mapping[str, Any]]], None] | None = None,
        pace_s: float = PACE_S,
    ) -> None:
        self._store = store
        self._pace_s = pace_s
        self._name = name
        self._only = experiments
        self._open: list[str] = []
        self._held: dict[str, _Held] = {}
        self._refused: set[str] = set()
        self._tidied = float("-inf")
        self._ticked: dict[str, float] = {}
        self._reconciled: dict[str, float] = {}
        self._tell = tell
        self._commits = 0
        self.decisions = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Decide until `stop` is set; the batch in hand is committed first."""
        while not stop.is_set():
            try:
                await self.turn()
            except (StoreError, ExperimentError) as error:
                log.warning("%s; trying again", error)
                self._held.clear()
                await pause(BACKOFF_S, stop)

    async def turn(self) -> None:
        """One round: what is due at times, then the next batch of each experiment."""
        now = asyncio.get_running_loop().time()
        if now - self._tidied >= 2 * self._pace_s:
            self._tidied = now
            await self._tidy()
        if not self._open:
            await asyncio.sleep(self._pace_s)
            return
        block_ms = int(1000 * self._pace_s)
        entries = await self._store.read(self._open, self._name, BATCH, block_ms)
        for name, batch in itertools.groupby(entries, key=lambda entry: entry.experiment):
            await self._answer(name, list(batch))

    # -- deciding -------------------------------------------------------------------------------

    async def _answer(self, name: str, entries: Sequence[Entry]) -> None:
        """Decide and commit a batch; again from what is stored, if another actor was faster."""
        while entries:
            try:
                if await self._try(name, entries):
                    return
            except UnknownExperimentError:
                self._held.pop(name, None)
                return
            self._held.pop(name, None)
            entries = await self._store.pending(name, self._name, BATCH)

    async def _try(self, name: str, entries: Sequence[Entry]) -> bool:
        held = self._held.get(name) or await self._load(name)
        good = await self._usable(name, entries)
        if not good:
            return True
        before = population = held.population
        trials: list[Trial] = []
        history: list[Any] = []
        for entry, event in good:
            decision = decide(population, Stamped(event, entry.at_ms))
            population = decision.population
            trials += decision.trials
            history += decision.history
        metric = held.experiment.metric
        slots = changed(before.slots, population.slots) if population is not before else []
        self._commits += 1
        commit = Commit(
            version=held.version,
            nonce=f"{self._name}#{self._commits}",
            entries=[entry.id for entry, _ in good],
            meta=write_meta(population, metric, before) if population is not before else {},
            slots={slot.index: write_slot(slot, population.settings, metric) for slot in slots},
            trials=[encode(trial) for trial in trials],
            history=[text(line) for line in history],
            history_keep=held.experiment.history_keep,
            garbage=held.garbage(population, slots, [event for _, event in good]),
        )
        other = _redeclared(held, population)
        if other is not None:
            commit = replace(commit, meta={**commit.meta, "spec": other.model_dump_json()})
        version = await self._store.commit(name, self._name, commit)
        if version is None:
            log.info("%s: another actor decided meanwhile", name)
            return False
        held.version, held.population = version, population
        if other is not None:
            held.experiment, held.settings = other, population.settings
        if self._tell is not None and history:
            self._tell(name, history)
        self.decisions += sum(line["event"] == "trial" for line in history)
        if population.status != before.status:
            log.info("%s: %s %s", name, population.status, population.reason)
        return True

    async def _usable(self, name: str, entries: Sequence[Entry]) -> list[tuple[Entry, Event]]:
        """Events of those entries that hold one; the others are put aside."""
        good: list[tuple[Entry, Event]] = []
        bad: list[tuple[str, str, bytes]] = []
        for entry in entries:
            try:
                good.append((entry, decode_event(entry.body)))
            except MessageError as error:
                bad.append((entry.id, str(error), entry.body))
        if bad:
            log.warning("%s: %d unusable messages, the first: %s", name, len(bad), bad[0][1])
            await self._store.dead_letter(name, "inbox", bad)
        return good

    async def _load(self, name: str) -> _Held:
        stored = await self._store.load(name)
        experiment = from_json(await self._store.spec(name))
        core = settings(experiment)
        population = read(core, experiment.metric, stored.meta, stored.slots)
        needs = Counter(name for slot in population.slots for name in needed(slot))
        needs.update(_best(population))
        held = _Held(experiment, core, stored.version, population, needs)
        self._held[name] = held
        return held

    # -- at times -------------------------------------------------------------------------------

    async def _tidy(self) -> None:
        """Look for new experiments, dead actors' leftovers, and leases that have ended."""
        statuses = await self._store.experiments()
        self._open = [name for name in statuses if self._only is None or name in self._only]
        for name in self._open.copy():
            try:
                experiment = (self._held.get(name) or await self._load(name)).experiment
            except UnknownExperimentError:
                self._open.remove(name)
                continue
            except ExperimentError as error:
                self._open.remove(name)
                if name not in self._refused:
                    self._refused.add(name)
                    log.error("experiment %s cannot be served: %s", name, error)  # noqa: TRY400
                continue
            left = await self._store.take_over(name, self._name, TAKE_OVER_MS, BATCH)
            await self._answer(name, left)
            if statuses[name] in ("running", "paused", "stopped", "failed", "finished"):
                await self._sweep(name, int(1000 * experiment.timeouts.lease_s))
            if statuses[name] == "running":
                await self._tick(name, experiment.timeouts.lease_s)
                await self._reconcile(name, max(RECONCILE_S, experiment.timeouts.lease_s))

    async def _tick(self, name: str, lease_s: float) -> None:
        now = asyncio.get_running_loop().time()
        held = self._held.get(name)
        trial_s = median_trial_s(held.population.slots) if held is not None else 0.0
        every_s = min(LONGEST_TICK_S, max(2 * self._pace_s, trial_s / TICKS_A_TRIAL))
        if now - self._ticked.get(name, float("-inf")) < every_s:
            return
        self._ticked[name] = now
        ages = await self._store.ages(name)
        for worker in [worker for worker, age_ms in ages.items() if age_ms > FORGET_MS]:
            await self._store.present([name], worker, {})
        alive = sum(age_ms < 1000 * lease_s for age_ms in ages.values())
        await self._store.tick(name, encode(Tick(workers=alive)), int(1000 * every_s))

    async def _reconcile(self, name: str, every_s: float) -> None:
        """Queue again what is neither queued nor leased nor reported.

        That cannot happen while the server lives; it can when one comes back from older data.
        """
        now = asyncio.get_running_loop().time()
        held = self._held.get(name)
        if held is None or now - self._reconciled.get(name, float("-inf")) < every_s:
            return
        found = await self._store.outstanding(name)
        if found.version != held.version:
            return
        self._reconciled[name] = now
        known = {(trial.id, trial.attempt) for trial in _usable(found.trials, decode_trial)}
        known |= {
            (event.trial, event.attempt)
            for event in _usable(found.inbox, decode_event)
            if hasattr(event, "attempt")
        }
        for slot in held.population.slots:
            for attempt in slot.live if slot.status == "queued" else ():
                if (slot.trial, attempt) in known:
                    continue
                log.warning("%s: trial %s was in no queue: queued again", name, slot.trial)
                missing = Released(
                    trial=slot.trial, slot=slot.index, attempt=attempt, worker="", reason="missing"
                )
                await self._store.send(name, encode(missing))

    async def lost(self, worker: str) -> int:
        """Take the trials of a worker whose connection broke; how many there were.

        Only those that were not heard of for a moment: a worker that lost the broker alone still
        sends its heartbeats to the store.
        """
        taken = 0
        for name in self._open.copy():
            taken += await self._sweep(name, SILENT_MS, worker)
        return taken

    async def _sweep(self, name: str, lease_ms: int, worker: str | None = None) -> int:
        swept = await self._store.sweep(name, self._name, lease_ms, BATCH, worker)
        for lease, last in swept:
            try:
                trial = decode_trial(lease.body)
            except MessageError as error:
                await self._store.dead_letter(name, "trials", [(lease.id, str(error), lease.body)])
                continue
            log.warning("%s: trial %s: nothing heard of %s any more", name, trial.id, last)
            expired = Expired(trial=trial.id, slot=trial.slot, attempt=trial.attempt, worker=last)
            token = f"{trial.id}#{trial.attempt} expired"
            await self._store.settle(lease, trial.slot, token, encode(expired))
        return len(swept)


def _best(population: Population) -> set[str]:
    """The best trial's checkpoint, if there is one."""
    return set() if population.best is None else {population.best.checkpoint}


def _redeclared(held: _Held, population: Population) -> Experiment | None:
    """The experiment with the bounds that an operator has changed; None: none was."""
    if population.settings.space is held.settings.space:
        return None
    space = dict(held.experiment.space)
    for name, spec in held.experiment.space.items():
        # All coordinates of a list have the same bounds.
        axis = population.settings.space.axes[population.settings.space.axes_of(name)[0]]
        if isinstance(axis, FloatParameter | IntParameter):
            bounds = {"min": axis.low, "max": axis.high}
            space[name] = spec.model_copy(update=bounds)
    return held.experiment.model_copy(update={"space": space})


def _usable(bodies: Sequence[bytes], decode: Callable[[bytes], Any]) -> list[Any]:
    """Messages, without those that are none."""
    found = []
    for body in bodies:
        with contextlib.suppress(MessageError):
            found.append(decode(body))
    return found
