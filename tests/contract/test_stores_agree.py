"""Two kinds of store give the same visible results for the same random operations."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from romul_actors.errors import ExperimentExistsError, UnknownExperimentError
from romul_actors.store import Commit, Hold
from romul_actors.store.memory import MemoryStore
from romul_actors.store.redis import RedisStore

NAMES = st.sampled_from(["e", "f"])
ACTORS = st.sampled_from(["a", "b"])
WORKERS = st.sampled_from(["v", "w"])
BODIES = st.binary(max_size=8)
NEVER_MS = 10**9
HELD = {worker: f"0-0-1-{worker}" for worker in ("v", "w", "a", "b")}
"""The checkpoint that each worker can hold; no two workers hold the same one."""


class Machine(RuleBasedStateMachine):
    """Compares two stores by effects only, since their entry ids and versions differ."""

    url = ""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stores = [MemoryStore(), RedisStore(self.url)]
        self.versions = {}
        self.entries = {}
        self.leases = []
        for name in ("e", "f"):
            self.both(lambda store, name=name: store.remove(name), compare=False)

    def teardown(self):
        self.both(lambda store: store.close())
        self.loop.close()

    def both(self, call, seen=None, *, compare=True):
        [found] = self.all_of([(call, seen or same)], compare=compare)
        return found

    def all_of(self, calls, *, compare=True):
        """Make independent calls concurrently, each given as (call, what is compared)."""

        async def one(store, call):
            try:
                return await call(store)
            except (ExperimentExistsError, UnknownExperimentError) as error:
                return type(error)

        async def every(store):
            return await asyncio.gather(*(one(store, call) for call, _ in calls))

        found = [self.loop.run_until_complete(every(store)) for store in self.stores]
        for (_, seen), *results in zip(calls, *found, strict=True):
            if compare:
                mine, theirs = (f if isinstance(f, type) else seen(f) for f in results)
                assert mine == theirs
        return list(zip(*found, strict=True))

    def each(self, handles):
        """A function that returns the handle of a store."""
        return lambda store: handles[self.stores.index(store)]

    @rule(name=NAMES)
    def create(self, name):
        self.both(lambda store: store.create(name, "{}", b"s"))

    @rule(name=NAMES)
    def remove(self, name):
        self.both(lambda store: store.remove(name))

    @rule(name=NAMES, body=BODIES)
    def send(self, name, body):
        if name in self.both(lambda store: store.experiments())[0]:
            self.both(lambda store: store.send(name, body))

    @rule(name=NAMES)
    def load(self, name):
        found = self.both(lambda store: store.load(name), lambda f: None)
        if not isinstance(found[0], type):
            self.versions[name] = [f.version for f in found]

    def remember(self, name, actor, found):
        ids = [[entry.id for entry in f] for f in found]
        if ids[0]:
            self.entries[name, actor] = ids

    @rule(name=NAMES, actor=ACTORS, count=st.integers(1, 3))
    def read(self, name, actor, count):
        found = self.both(lambda s: s.read([name], actor, count, 0), bodies)
        self.remember(name, actor, found)

    @rule(name=NAMES, actor=ACTORS)
    def pending(self, name, actor):
        found = self.both(lambda s: s.pending(name, actor, 100), bodies)
        self.remember(name, actor, found)

    @rule(name=NAMES, actor=ACTORS, idle_ms=st.sampled_from([0, NEVER_MS]))
    def take_over(self, name, actor, idle_ms):
        found = self.both(lambda s: s.take_over(name, actor, idle_ms, 100), bodies)
        self.remember(name, actor, found)

    @rule(
        name=NAMES,
        actor=ACTORS,
        trials=st.lists(BODIES, max_size=2),
        history=st.lists(st.just("{}"), max_size=2),
        slots=st.dictionaries(st.integers(0, 3), st.just({"loss": "1"}), max_size=2),
        garbage=st.lists(st.sampled_from(["0-0-1", "0-1-1"]), max_size=2, unique=True),
        parents=st.lists(st.sampled_from(["", *HELD.values()]), min_size=2, max_size=2),
    )
    def commit(self, name, actor, trials, history, slots, garbage, parents):
        versions = self.each(self.versions.get(name, ["0.0", "0.0"]))
        entries = self.each(self.entries.get((name, actor), [[], []]))
        self.both(
            lambda store: store.commit(
                name,
                actor,
                Commit(
                    versions(store),
                    entries(store),
                    {"slots": "4"},
                    slots,
                    trials,
                    parents[: len(trials)],
                    history,
                    garbage=garbage,
                ),
            ),
            lambda committed: committed and committed.release_ms,
        )

    @rule(name=NAMES, actor=ACTORS)
    def dead_letter(self, name, actor):
        entries = self.entries.get((name, actor))
        if entries:
            entry = self.each(entries)
            self.both(
                lambda store: store.dead_letter(name, "inbox", [(entry(store)[0], "bad", b"x")])
            )

    @rule(name=NAMES, resubmit=st.booleans())
    def revive_or_drop(self, name, resubmit):
        dead = self.both(lambda store: store.dead(name, count=1), len)
        if all(dead):
            [one], [other] = dead
            mine = self.each([one, other])
            if resubmit:
                self.both(lambda store: store.resubmit(name, mine(store)))
            else:
                self.both(lambda store: store.drop(name, [mine(store).id]))

    @rule(name=NAMES, checkpoints=st.lists(st.sampled_from(["0-0-1", "0-1-1"]), max_size=2))
    def forget(self, name, checkpoints):
        self.both(lambda store: store.forget(name, checkpoints))

    @rule(names=st.permutations(["e", "f"]), worker=WORKERS, holds=st.booleans())
    def lease(self, names, worker, holds):
        holding = names if holds else ()
        found = self.both(
            lambda s: s.lease(names, worker, 0, holding),
            lambda f: f and (f.experiment, f.body, f.worker),
        )
        if found[0]:
            self.leases.append(found)

    @rule(name=NAMES, idle_ms=st.sampled_from([0, NEVER_MS]), worker=st.one_of(st.none(), WORKERS))
    def sweep(self, name, idle_ms, worker):
        found = self.both(
            lambda s: s.sweep(name, "a", idle_ms, 100, worker),
            # Leases of different streams have no common order.
            lambda f: sorted((lease.body, last) for lease, last in f),
        )
        ordered = [sorted(f, key=lambda swept: (swept[0].body, swept[1])) for f in found]
        self.leases += [[mine[0], theirs[0]] for mine, theirs in zip(*ordered, strict=True)]

    @rule(name=NAMES)
    def release_offers(self, name):
        self.both(lambda store: store.release_offers(name), lambda next_ms: next_ms is None)

    @rule(data=st.data())
    def beat(self, data):
        if self.leases:
            lease = self.each(data.draw(st.sampled_from(self.leases)))
            slot = data.draw(st.integers(0, 3))
            found = {"state": "training"}
            self.both(lambda store: store.beat(lease(store), slot, "0-0", found))

    @rule(
        data=st.data(),
        slot=st.integers(0, 3),
        token=st.sampled_from(["x", "0-0#1 result"]),
        body=BODIES,
        hold=st.sampled_from([None, "", "checkpoint"]),
        for_ms=st.sampled_from([0, NEVER_MS]),
        warm=st.sampled_from([None, False, True]),
    )
    def settle(self, data, slot, token, body, hold, for_ms, warm):
        if self.leases:
            leases = data.draw(st.sampled_from(self.leases))
            lease = self.each(leases)
            checkpoint = HELD[leases[0].worker] if hold else ""
            said = None if hold is None else Hold(checkpoint, for_ms, warm)
            self.both(lambda store: store.settle(lease(store), slot, token, body, said))

    @rule(data=st.data())
    def put_back(self, data):
        if self.leases:
            lease = self.each(data.draw(st.sampled_from(self.leases)))
            self.both(lambda store: store.put_back(lease(store)))

    @rule(name=NAMES, worker=WORKERS, presence=st.sampled_from([{}, {"state": "idle"}]))
    def present(self, name, worker, presence):
        self.both(lambda store: store.present([name], worker, presence))

    @invariant()
    def all_that_is_visible_agrees(self):
        calls: list[Any] = [(lambda store: store.experiments(), same)]
        for name in ("e", "f"):
            calls += [
                (lambda store, name=name: store.depths(name), same),
                (lambda store, name=name: store.workers(name), ageless),
                (
                    lambda store, name=name: store.glance(name),
                    lambda f: [body for _, body in f.undecided],
                ),
                (lambda store, name=name: store.history(name), texts),
                (lambda store, name=name: store.history_before(name, count=3), texts),
                (
                    lambda store, name=name: store.dead(name),
                    lambda f: [(d.origin, d.reason, d.body, d.size) for d in f],
                ),
                (lambda store, name=name: store.garbage(name, 0, 10), sorted),
                (
                    lambda store, name=name: store.affinity(name),
                    lambda f: replace(f, waited_ms=0),
                ),
                *(
                    (lambda store, name=name, worker=worker: store.holds(name, worker), same)
                    for worker in HELD
                ),
                (outstanding(name), same),
                (
                    lambda store, name=name: store.load(name),
                    lambda f: (fields(f.meta), [dict(slot) for slot in f.slots]),
                ),
            ]
        self.all_of(calls)


def same(found):
    return found


def texts(lines):
    return [text for _, text in lines]


def outstanding(name):
    async def look(store):
        if name not in await store.experiments():
            return None
        found = await store.outstanding(name)
        return sorted(found.trials), list(found.inbox)

    return look


def bodies(entries):
    return [(entry.experiment, entry.body) for entry in entries]


def ageless(workers):
    return {w: {k: v for k, v in found.items() if k != "age_ms"} for w, found in workers.items()}


def fields(meta):
    return {
        k: v
        for k, v in meta.items()
        if k not in ("epoch", "version", "nonce", "created_by", "spec")
    }


@pytest.mark.long(10)
@pytest.mark.timeout(300)
def test_memory_and_redis_agree_in_everything_visible(redis_url, monkeypatch):
    # A read of a queue that does not exist pauses, so that a loop of reads does not spin.
    monkeypatch.setattr("romul_actors.store.redis.connection._NO_GROUP_PAUSE_S", 0.0)
    Machine.url = redis_url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
