"""The decision actor on the memory store: batches, rivals, leftovers, leases, garbage.

The pace is 0: every round does all periodic work, and does not wait.
"""

import asyncio
import gc
import json
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from romul_actors.actor import loop as loop_module
from romul_actors.actor.batch import load
from romul_actors.actor.garbage import NeededCheckpoints
from romul_actors.actor.loop import BATCH, Actor
from romul_actors.actor.precedence import gives_way, nonce_of
from romul_actors.actor.reconciliation import missing_attempts
from romul_actors.actor.timing import (
    FORGET_MS,
    GC_THRESHOLDS,
    GIVE_WAY_S,
    LONGEST_TICK_S,
    SILENT_MS,
    TAKE_OVER_MS,
    collect_rarely,
    tick_every_s,
)
from romul_actors.core import history
from romul_actors.core.decide import decide_all
from romul_actors.core.elasticity import Elasticity
from romul_actors.core.events import Control, Released, Result, Stamped, Submitted, Tick
from romul_actors.core.history import TimePassed
from romul_actors.core.population import Decision, changed
from romul_actors.core.stored_line import shorten
from romul_actors.core.transition import progress_of
from romul_actors.errors import StoreError, StoreUnavailableError
from romul_actors.protocol.experiment import FloatSpec
from romul_actors.protocol.messages import VERSION, decode_event, decode_trial, encode
from romul_actors.protocol.slot_codec import text
from romul_actors.store import Commit
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster import virtual_time
from tests.trials import declare
from tests.unit.harness import Run, population

LEASE_S = 30.0


class Clock:
    def __init__(self):
        self.now_ms = 1_000_000

    def __call__(self):
        return self.now_ms

    def passes(self, milliseconds):
        self.now_ms += milliseconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


def experiment(name="e", **more):
    keys = {"population": 4, "steps": 3, "timeouts": {"lease_s": LEASE_S}, **more}
    return declare(name=name, task="toys", **keys)


async def submit(store, name="e", **more):
    spec = experiment(name, **more).model_dump_json()
    await store.create(name, spec, encode(Submitted()))


def an_actor(store, name="a", **more):
    return Actor(store, name, pace_s=0.0, **more)


async def begun(store, **more):
    """Return an actor that has decided the first trials of a new search."""
    await submit(store, **more)
    actor = an_actor(store)
    await actor.turn()
    return actor


async def lease(store, worker="w"):
    held = await store.lease(["e"], worker, 0)
    return held, decode_trial(held.body)


async def train_and_decide(store, actor):
    """Report a trial, and let this actor decide."""
    await train(store, 1)
    await actor.turn()


async def report(store, held, trial, value=1.0):
    whose: dict[str, Any] = {"trial": trial.id, "slot": trial.slot, "attempt": trial.attempt}
    checkpoint = f"{trial.id}-{trial.attempt}"
    event = Result(**whose, worker=held.worker, value=value, checkpoint=checkpoint, seconds=1.0)
    token = f"{trial.id}#{trial.attempt} result"
    assert await store.settle(held, trial.slot, token, encode(event))


async def train(store, n):
    """Lease and report a number of trials; a slot's number is its loss."""
    for _ in range(n):
        held, trial = await lease(store)
        await report(store, held, trial, float(trial.slot))


async def lines(store, kind=history.Line, name="e"):
    read = [history.from_json(json.loads(text)) for _, text in await store.history(name)]
    return [line for line in read if isinstance(line, kind)]


async def attempts(store, name="e"):
    found = await store.outstanding(name)
    return sorted((t.id, t.attempt) for t in map(decode_trial, found.trials))


# -- a batch --------------------------------------------------------------------------------------


async def test_a_batch_is_decided_in_order_and_committed_in_one_piece(store):
    commits = []
    await submit(store)
    actor = an_actor(store, on_commit=lambda name, added: commits.append((name, added)))
    await actor.turn()
    [(name, added)] = commits
    assert name == "e"
    assert [type(line) for line in added] == [history.SearchStarted] + [history.TrialCreated] * 4
    await train(store, 4)
    before = await store.load("e")
    await actor.turn()
    assert len(commits) == 2
    _, added = commits[1]
    # All reports before any decision: the pool is decided when it is whole.
    kinds = [type(line) for line in added if not isinstance(line, history.TimePassed)]
    assert kinds == [history.TrialReported] * 4 + [history.TrialCreated] * 4
    written = [json.loads(text(history.to_json(line))) for _, batch in commits for line in batch]
    stored = [json.loads(line) for _, line in await store.history("e")]
    assert [history.to_json(history.from_json(line)) for line in stored] == written
    assert stored == [shorten(line) for line in written]
    after = await store.load("e")
    # One commit is one version.
    assert int(after.version.split(".")[1]) == int(before.version.split(".")[1]) + 1
    assert after.meta["reported"] == "4"
    assert (await store.depths("e"))["inbox"] == 0
    assert await attempts(store) == [(f"{i}-1", 1) for i in range(4)]
    assert actor.decisions == 8


async def test_a_search_is_decided_to_its_end(store):
    actor = await begun(store)
    for _ in range(3):
        await train(store, 4)
        await actor.turn()
    assert (await store.experiments()) == {"e": "finished"}
    assert len(await lines(store, history.TrialReported)) == 12
    assert await lines(store, history.SearchFinished)


async def test_a_batch_has_a_largest_size(store):
    actor = await begun(store)
    for _ in range(BATCH + 1):
        await store.send("e", encode(Control(action="drain", worker="w", by="me")))
    await actor.turn()
    assert len(await lines(store, history.WorkerDrained)) == BATCH
    await actor.turn()
    assert len(await lines(store, history.WorkerDrained)) == BATCH + 1


async def test_experiments_are_served_apart_and_others_are_left_alone(store):
    for name in ("e", "f", "g"):
        await submit(store, name)
    await an_actor(store, experiments=["e", "g", "no such"]).turn()
    assert await store.experiments() == {"e": "running", "f": "submitted", "g": "running"}


async def test_it_stops_when_it_is_asked_to(store):
    await submit(store)
    stop = asyncio.Event()
    actor = an_actor(store, on_commit=lambda name, added: stop.set())
    await asyncio.wait_for(actor.run(stop), 10)
    assert await store.experiments() == {"e": "running"}


async def test_new_bounds_are_stored_with_the_declaration(store):
    actor = await begun(store)
    await store.send("e", encode(Control(action="bounds", parameter="x", low=0.25, high=0.5)))
    await actor.turn()
    held = await load(store, "e")
    assert held.experiment.space["x"] == FloatSpec(type="float", min=0.25, max=0.5)
    await train(store, 4)
    await actor.turn()
    later = [line for line in await lines(store, history.TrialCreated) if line.step == 1]
    assert len(later) == 4
    assert all(0.25 <= line.hyperparameters["x"] <= 0.5 for line in later)


# -- another actor --------------------------------------------------------------------------------


class Rivalled(MemoryStore):
    """Before the next commit of actor "a", another actor commits."""

    rival: Callable[[], Awaitable[None]] | None = None

    async def commit(self, name, actor, commit):
        if actor == "a" and self.rival is not None:
            rival, self.rival = self.rival, None
            await rival()
        return await super().commit(name, actor, commit)


async def test_when_the_version_has_moved_the_batch_is_decided_again_from_what_is_stored(clock):
    store = Rivalled(clock)
    actor, other = await begun(store), an_actor(store, "b")

    async def pauses():
        await store.send("e", encode(Control(action="pause", by="me")))
        await other.turn()

    await train(store, 4)
    store.rival = pauses
    await actor.turn()
    # Decided before the pause, the reports would have led to four trials.
    assert (await store.load("e")).meta["status"] == "paused"
    assert len(await lines(store, history.TrialReported)) == 4
    assert len(await lines(store, history.TrialCreated)) == 4
    assert (await store.load("e")).meta["reported"] == "4"
    assert actor.decisions == 4
    await store.send("e", encode(Control(action="resume", by="me")))
    await actor.turn()
    assert await attempts(store) == [(f"{i}-1", 1) for i in range(4)]


async def test_entries_that_another_actor_took_over_and_decided_are_decided_once(clock):
    store = Rivalled(clock)
    actor, other = await begun(store), an_actor(store, "b")

    async def takes_over():
        clock.passes(TAKE_OVER_MS)
        await other.turn()

    await train(store, 4)
    store.rival = takes_over
    await actor.turn()
    assert (actor.decisions, other.decisions) == (4, 4)
    assert len(await lines(store, history.TrialReported)) == 4
    assert not await lines(store, history.ReportStale)


def test_of_two_actors_one_gives_way_and_searches_are_spread_over_both():
    def leads(search, actor, others):
        return not any(
            gives_way(search, actor, f"17-3.42.{nonce_of(other, 7)}") for other in others
        )

    actors = ["actor-1", "host.example-2", "c#d"]
    led = {actor: sum(leads(f"search-{n}", actor, actors) for n in range(300)) for actor in actors}
    assert sum(led.values()) == 300
    assert min(led.values()) > 60
    # With a version of its own, and with one that no actor wrote.
    assert not gives_way("e", "a", f"17-3.42.{nonce_of('a', 7)}")
    assert not gives_way("e", "a", "17-3.0.")


@pytest.mark.parametrize("first", [True, False])
def test_an_actor_that_was_outrun_leaves_the_inbox_to_the_other_for_a_moment(first):
    async def play():
        store = Rivalled(lambda: int(1000 * asyncio.get_running_loop().time()))
        names = ["a", next(n for n in "bcdefgh" if gives_way("e", "a", nonce_of(n, 1)) is first)]
        await submit(store)
        actor, other = (Actor(store, name, pace_s=0.1) for name in names)
        await actor.turn()

        async def pauses():
            await store.send("e", encode(Control(action="pause", by="me")))
            await other.turn()

        await train(store, 4)
        store.rival = pauses
        await actor.turn()
        # It decides what it had read itself, since no other actor would.
        assert (actor.outrun, (await store.load("e")).meta["reported"]) == (1, "4")
        await store.send("e", encode(Control(action="resume", by="me")))
        began_s = asyncio.get_running_loop().time()
        while (await store.load("e")).meta["status"] == "paused":
            await actor.turn()
        waited_s = asyncio.get_running_loop().time() - began_s
        # Twice at most, because its own later decisions look like those of the other actor.
        assert (GIVE_WAY_S <= waited_s < 2 * GIVE_WAY_S + 0.2) if first else waited_s == 0.0
        # The other actor has ended, so this one no longer gives way.
        await store.send("e", encode(Control(action="pause", by="me")))
        await actor.turn()
        assert (await store.load("e")).meta["status"] == "paused"

    virtual_time.run(play())


def test_an_inbox_is_left_for_as_long_as_the_other_actor_goes_on():
    async def play():
        store = Rivalled(lambda: int(1000 * asyncio.get_running_loop().time()))
        leader = next(name for name in "bcdefgh" if gives_way("e", "a", nonce_of(name, 1)))
        await submit(store, steps=100)
        actor, other = Actor(store, "a", pace_s=0.1), Actor(store, leader, pace_s=0.1)
        await actor.turn()
        await train(store, 2)
        store.rival = lambda: train_and_decide(store, other)
        await actor.turn()
        assert actor.outrun == 1
        for _ in range(20):
            await train(store, 1)
            # Both actors look; the slower one reads nothing.
            await actor.turn()
            await other.turn()
        # Once each: the other actor had not seen what the first one still decided.
        assert (actor.outrun, other.outrun) == (1, 1)
        assert not await store.pending("e", "a", BATCH)

    virtual_time.run(play())


async def test_a_dead_actors_entries_are_taken_over_after_a_while(store, clock):
    actor = await begun(store)
    await train(store, 4)
    assert len(await store.read(["e"], "dead", BATCH, 0)) == 4
    clock.passes(TAKE_OVER_MS - 1)
    await actor.turn()
    assert not await lines(store, history.TrialReported)
    clock.passes(1)
    await actor.turn()
    assert len(await lines(store, history.TrialReported)) == 4
    assert await store.pending("e", "dead", BATCH) == []


async def test_an_experiment_that_is_removed_meanwhile_is_forgotten(clock):
    store = Rivalled(clock)
    await submit(store)
    actor = an_actor(store)

    async def removes():
        await store.remove("e")

    store.rival = removes
    await actor.turn()
    assert await store.experiments() == {}
    # An experiment of the same name is a different one.
    await submit(store, population=5)
    await actor.turn()
    assert len(await attempts(store)) == 5


async def test_an_experiment_that_is_gone_with_the_servers_data_is_named_and_forgotten(
    store, caplog
):
    for name in ("e", "other"):
        await submit(store, name)
    actor = an_actor(store)
    await actor.turn()
    await store.remove("e")
    await actor.turn()
    await actor.turn()
    assert [record.message for record in caplog.records] == ["experiment e is gone from the server"]
    assert list(actor._searches) == ["other"]


async def test_an_experiment_that_a_restarted_server_has_lost_is_named(clock, caplog):
    store = Damaged(clock)
    await submit(store, "bad")
    actor = an_actor(store)
    await actor.turn()
    # During the outage the actor forgets what it has cached.
    actor._searches["bad"].cached = None
    await store.remove("bad")
    await actor.turn()
    assert "experiment bad is gone from the server" in caplog.messages


# -- what cannot be used --------------------------------------------------------------------------


async def test_the_log_names_a_new_status_once(store, caplog):
    await submit(store)
    actor = an_actor(store)
    await actor.turn()
    with caplog.at_level(logging.INFO, "romul.actor"):
        for action in ("pause", "resume", "stop"):
            await store.send("e", encode(Control(action=action, by="me")))
            await actor.turn()
    said = [record.message.strip() for record in caplog.records]
    assert said == ["e: paused by me", "e: running", "e: stopped by me"]


async def test_a_message_that_is_none_becomes_a_dead_letter_and_the_rest_is_decided(store):
    await submit(store)
    await store.send("e", b"\xc1garbage")
    await store.send("e", encode(Control(action="drain", worker="w", by="me")))
    await an_actor(store).turn()
    [dead] = await store.dead("e")
    assert (dead.origin, dead.body) == ("inbox", b"\xc1garbage")
    assert "not MessagePack" in dead.reason
    assert len(await lines(store, history.TrialCreated)) == 4
    assert len(await lines(store, history.WorkerDrained)) == 1


async def test_a_batch_of_nothing_usable_commits_nothing(store):
    await submit(store)
    actor = an_actor(store)
    await store.read(["e"], "elsewhere", 1, 0)
    await store.send("e", b"garbage")
    before = await store.load("e")
    await actor.turn()
    assert await store.load("e") == before
    assert len(await store.dead("e")) == 1


async def test_an_experiment_that_cannot_be_served_is_named_once_and_keeps_none_waiting(
    store, caplog
):
    await submit(store)
    spec = experiment("bad").model_dump()
    spec["optimizer"]["name"] = "no such"
    await store.create("bad", json.dumps(spec, default=str), encode(Submitted()))
    actor = an_actor(store)
    with caplog.at_level(logging.ERROR, "romul.actor"):
        await actor.turn()
        await actor.turn()
    [message] = [record.message for record in caplog.records]
    assert "experiment bad cannot be served" in message
    assert await store.experiments() == {"bad": "submitted", "e": "running"}


async def test_the_fault_of_a_search_that_was_removed_and_came_again_is_said_again(store, caplog):
    spec = experiment("bad").model_dump()
    spec["optimizer"]["name"] = "no such"
    actor = an_actor(store)
    for _ in range(2):
        await store.create("bad", json.dumps(spec, default=str), encode(Submitted()))
        with caplog.at_level(logging.ERROR, "romul.actor"):
            await actor.turn()
        assert "no such" in store.memory.find("bad").meta["fault"]
        await store.remove("bad")
        await actor.turn()
    assert len(caplog.records) == 2


class Damaged(MemoryStore):
    """A store in which one call raises an error for one experiment, "bad"."""

    def __init__(self, clock):
        super().__init__(clock)
        self.call = ""
        self.error = StoreError("the server refuses: a key is not of the right type")

    def _fail(self, call, names):
        if self.call == call and "bad" in names:
            raise self.error

    async def load(self, name):
        self._fail("load", [name])
        return await super().load(name)

    async def read(self, names, actor, count, block_ms):
        self._fail("read", names)
        return await super().read(names, actor, count, block_ms)

    async def take_over(self, name, actor, idle_ms, count):
        self._fail("take_over", [name])
        return await super().take_over(name, actor, idle_ms, count)

    async def sweep(self, name, actor, idle_ms, count, worker=None, version=""):
        self._fail("sweep", [name])
        return await super().sweep(name, actor, idle_ms, count, worker, version)

    async def outstanding(self, name):
        self._fail("outstanding", [name])
        return await super().outstanding(name)

    async def commit(self, name, actor, commit):
        self._fail("commit", [name])
        return await super().commit(name, actor, commit)

    async def spec(self, name):
        self._fail("spec", [name])
        return await super().spec(name)

    async def ages(self, name):
        self._fail("ages", [name])
        return await super().ages(name)

    async def tick(self, name, body, every_ms):
        self._fail("tick", [name])
        return await super().tick(name, body, every_ms)


CALLS = [
    *("load", "spec", "read", "take_over", "commit"),
    *("sweep", "ages", "tick", "outstanding"),
]
"""All store calls of an actor for an experiment; those in the second line are less frequent."""


async def served_beside_a_damaged_one(store, call):
    """The log of an actor with two experiments, one of which begins to fail."""
    for name in ("bad", "e"):
        await submit(store, name)
    actor = an_actor(store)
    if call in CALLS[5:]:
        await actor.turn()
    store.call = call
    for _ in range(3):
        await actor.turn()
    return actor


@pytest.mark.parametrize("call", CALLS)
async def test_an_experiment_whose_data_fail_does_not_hold_up_the_others(clock, call, caplog):
    store = Damaged(clock)
    with caplog.at_level(logging.ERROR, "romul.actor"):
        actor = await served_beside_a_damaged_one(store, call)
    messages = {record.message for record in caplog.records}
    assert messages == {f"experiment bad cannot be served: {store.error}"}
    fault = f"actor a cannot serve it: {store.error}"
    assert store.memory.find("bad").meta["fault"] == fault
    await train(store, 4)
    await actor.turn()
    assert len(await lines(store, history.TrialReported)) == 4
    # The actor keeps trying: when the data is repaired, the experiment continues normally.
    store.call = ""
    clock.passes(TAKE_OVER_MS)
    await actor.turn()
    assert len(await attempts(store, "bad")) == 4
    assert "fault" not in store.memory.find("bad").meta


async def test_leases_and_offers_of_a_damaged_experiment_do_not_hold_up_those_of_others(clock):
    class Unreleased(Damaged):
        async def release_offers(self, name):
            self._fail("release", [name])
            return await super().release_offers(name)

    store = Unreleased(clock)
    for name in ("bad", "e"):
        await submit(store, name)
    actor = an_actor(store)
    await actor.turn()
    held = {name: await store.lease([name], "gone", 0) for name in ("bad", "e")}
    assert all(held.values())
    clock.passes(SILENT_MS)
    store.call = "sweep"
    assert await actor.lost("gone") == 1
    assert list((await store.leases("bad")).values()) == ["gone"]
    for name in ("bad", "e"):
        actor._searches[name].release_after(0)
    store.call = "release"
    # A round in which an offer that is due cannot be released still decides the others.
    await actor.turn()
    [line] = await lines(store, history.TrialFailed)
    assert (line.worker, line.reason) == ("gone", "lost")
    # The offers of the other experiment were released.
    assert "fault" in store.memory.find("bad").meta
    assert actor._searches["e"].release_s == math.inf


async def test_a_new_actor_clears_the_fault_that_another_one_left_behind(store):
    await submit(store)
    await store.set_fault("e", "actor b cannot serve it: it is mended since")
    actor = an_actor(store)
    await actor.turn()
    assert "fault" not in (await store.load("e")).meta


@pytest.mark.parametrize("call", CALLS)
async def test_a_store_that_does_not_answer_ends_the_round_for_all(clock, call):
    store = Damaged(clock)
    store.error = StoreUnavailableError("the server does not answer")
    with pytest.raises(StoreUnavailableError):
        await served_beside_a_damaged_one(store, call)


async def test_a_slot_that_holds_garbage_stops_its_own_experiment_alone(store, clock, caplog):
    for name in ("bad", "e"):
        await submit(store, name)
    await an_actor(store).turn()
    slots = store.memory.find("bad").slots
    right = slots[2]["vector"]
    slots[2]["vector"] = "[0.5, 0.5]"
    actor = an_actor(store, "b")
    await store.send("bad", encode(Control(action="pause", by="me")))
    with caplog.at_level(logging.ERROR, "romul.actor"):
        await train(store, 4)
        await actor.turn()
    [message] = [record.message for record in caplog.records]
    assert "experiment 'bad', slot 2: field 'vector' holds '[0.5, 0.5]'" in message
    assert len(await lines(store, history.TrialReported)) == 4
    slots[2]["vector"] = right
    await actor.turn()
    assert await store.experiments() == {"bad": "paused", "e": "running"}


# -- leases ---------------------------------------------------------------------------------------


async def test_a_lease_without_heartbeats_ends_and_its_trial_is_tried_again(store, clock):
    actor = await begun(store)
    held, trial = await lease(store)
    clock.passes(int(1000 * LEASE_S) - 1)
    await actor.turn()
    assert not await lines(store, history.TrialFailed)
    clock.passes(1)
    await actor.turn()
    [line] = await lines(store, history.TrialFailed)
    assert (line.trial, line.worker, line.reason, line.again) == (trial.id, "w", "lost", True)
    assert (trial.id, 2) in await attempts(store)
    assert not (await store.beat(held, trial.slot, trial.id, {"state": "busy"})).kept


@pytest.mark.usefixtures("quiet")
async def test_after_a_silence_of_the_store_a_lease_has_its_whole_time_again(
    store, clock, monkeypatch
):
    """During the silence no heartbeat could arrive."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    now_s, silences = loop.time(), iter([True])
    monkeypatch.setattr(loop, "time", lambda: now_s)
    actor = await begun(store)
    held, trial = await lease(store)

    async def turn():
        if next(silences, False):
            raise StoreUnavailableError("the server does not answer")
        stop.set()

    async def wait(seconds, stop):
        del seconds, stop

    with monkeypatch.context() as patch:
        patch.setattr(actor, "turn", turn)
        patch.setattr(loop_module, "pause", wait)
        await actor.run(stop)
    clock.passes(int(2000 * LEASE_S))
    # Nor does a broken connection to the broker end it before a heartbeat may have arrived.
    assert await actor.lost("w") == 0
    now_s += LEASE_S - 1
    await actor.turn()
    assert (await store.beat(held, trial.slot, trial.id, {"state": "busy"})).kept
    now_s += 1
    clock.passes(int(1000 * LEASE_S))
    await actor.turn()
    assert not (await store.beat(held, trial.slot, trial.id, {"state": "busy"})).kept


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("call", ["experiments", "take_over", "sweep", "tick", "read", "commit"])
async def test_a_silence_that_the_stores_client_waits_out_is_one_too(
    store, clock, monkeypatch, call
):
    """There is no exception; the call just takes long, in any part of a round."""
    loop = asyncio.get_running_loop()
    now_s, answer = loop.time(), getattr(store, call)
    monkeypatch.setattr(loop, "time", lambda: now_s)
    # The sweep of the first may be late, and the second is swept after it.
    await submit(store, "a")
    actor = await begun(store)
    held, trial = await lease(store)
    await store.send("e", encode(Control(action="drain", worker="w", by="me")))

    async def late(*arguments, **named):
        nonlocal now_s
        if arguments[:1] != ("e",) or call == "commit":
            clock.passes(int(2000 * LEASE_S))
            now_s += 2 * LEASE_S
        return await answer(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(store, call, late)
        await actor.turn()
    await actor.turn()
    assert (await store.beat(held, trial.slot, trial.id, {"state": "busy"})).kept
    now_s += LEASE_S
    clock.passes(int(1000 * LEASE_S))
    await actor.turn()
    assert not (await store.beat(held, trial.slot, trial.id, {"state": "busy"})).kept


async def test_a_lease_lasts_as_its_own_search_says_and_not_a_former_one_of_that_name(store, clock):
    """One of two actors has not read the new search yet."""
    await submit(store, timeouts={"lease_s": 1.0})
    other = an_actor(store, "b")
    await other.turn()
    await store.remove("e")
    await begun(store, timeouts={"lease_s": LEASE_S})
    held, trial = await lease(store)
    clock.passes(1000)
    await other.turn()
    assert (await store.beat(held, trial.slot, trial.id, {"state": "busy"})).kept


async def test_a_worker_whose_connection_broke_loses_its_leases_at_once(store, clock):
    actor = await begun(store)
    (_, first), (_, second) = await lease(store, "gone"), await lease(store, "there")
    assert await actor.lost("gone") == 0
    clock.passes(SILENT_MS)
    assert await actor.lost("gone") == 1
    await actor.turn()
    [line] = await lines(store, history.TrialFailed)
    assert (line.trial, line.worker) == (first.id, "gone")
    assert list((await store.leases("e")).values()) == ["there"]
    assert (second.id, 1) in await attempts(store)


async def test_a_leased_trial_that_is_none_becomes_a_dead_letter(store, clock):
    actor = await begun(store)
    stored = await store.load("e")
    assert await store.commit("e", "b", Commit(stored.version, [], trials=[b"garbage"]))
    for _ in range(5):
        assert await store.lease(["e"], "w", 0)
    clock.passes(int(1000 * LEASE_S))
    await actor.turn()
    [dead] = await store.dead("e")
    assert (dead.origin, dead.body) == ("trials", b"garbage")
    assert len(await lines(store, history.TrialFailed)) == 4


# -- time -----------------------------------------------------------------------------------------


async def test_ticks_carry_the_workers_that_are_alive_and_old_ones_are_forgotten(clock):
    ticks = []

    class Watched(MemoryStore):
        async def tick(self, name, body, every_ms):
            ticks.append(decode_event(body))
            return await super().tick(name, body, every_ms)

    store = Watched(clock)
    actor = await begun(store)
    assert ticks == []
    await store.present(["e"], "long gone", {"state": "idle"})
    clock.passes(FORGET_MS + 1)
    await store.present(["e"], "silent", {"state": "idle"})
    clock.passes(int(1000 * LEASE_S))
    for worker in ("u", "v", "w"):
        await store.present(["e"], worker, {"state": "idle"})
    await actor.turn()
    assert set(await store.workers("e")) == {"silent", "u", "v", "w"}
    assert ticks == [Tick(workers=3)]


@pytest.mark.parametrize(
    ("seconds", "every_s"), [(0.0, 1.0), (10.0, 1.0), (100.0, 5.0), (1e6, LONGEST_TICK_S)]
)
def test_a_population_receives_twenty_ticks_a_trial_within_bounds(seconds, every_s):
    run = Run(population()).start()
    if seconds:
        run.tell(run.result(0, 1.0, seconds=seconds))
    assert tick_every_s(run.population, 0.5) == every_s
    assert tick_every_s(None, 0.5) == 1.0


# -- garbage --------------------------------------------------------------------------------------


async def test_checkpoints_that_nothing_needs_are_garbage_after_the_commit(store):
    actor = await begun(store, steps=4)
    for _ in range(3):
        await train(store, 4)
        await actor.turn()
    kept = (await load(store, "e")).population.needed_checkpoints()
    made = {line.checkpoint for line in await lines(store, history.TrialReported)}
    garbage = set(await store.garbage("e", 0, 100))
    assert garbage
    assert garbage == made - kept


async def test_all_checkpoints_are_kept_on_request(store):
    actor = await begun(store, steps=4, keep_checkpoints="all")
    for _ in range(3):
        await train(store, 4)
        await actor.turn()
    assert await store.garbage("e", 0, 100) == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [1, 7])
def test_counted_needs_find_the_garbage_that_a_look_at_all_slots_finds(seed, batch):
    """In any order of results, failures and partial checkpoints, and batches of any size."""
    shuffler = random.Random(seed)
    run = Run(population(n_slots=6, steps=6, seed=seed, max_attempts=2)).start()
    counted = NeededCheckpoints(run.population)
    before, events, reported = run.population, [], set()
    collected: set[str] = set()
    while run.population.status == "running":
        slot = shuffler.choice(run.queued())
        trial, token = run.trials[slot], run.token(slot)
        match shuffler.randrange(6):
            case 0:
                event = run.failed(slot)
            case 1:
                name, at = f"{trial.id}-{trial.attempt}-p", trial.start + 0.1
                event = Released(**token, reason="preempted", checkpoint=name, at=at)
                reported.add(name)
            case _:
                event = run.result(slot, shuffler.random())
                reported.add(event.checkpoint)
        run.tell(event)
        events.append(event)
        if len(events) == batch or run.population.status != "running":
            slots = changed(before.slots, run.population.slots)
            garbage = counted.follow(before, run.population, slots, events)
            assert garbage == sorted(reported - run.population.needed_checkpoints() - collected)
            collected.update(garbage)
            before, events = run.population, []
    assert run.population.status == "finished"
    assert collected


def test_an_unchanged_population_makes_no_garbage():
    run = Run(population()).start()
    counted = NeededCheckpoints(run.population)
    assert counted.follow(run.population, run.population, [], [run.result(0, 1.0)]) == []


async def test_an_actor_stores_the_version_of_its_messages_where_another_one_stands(store):
    await submit(store)
    actor = an_actor(store)
    await actor.turn()
    # The first version was never written.
    assert await store.protocol("e") == ""
    stored = await store.load("e")
    await store.commit("e", "b", Commit(stored.version, [], {"protocol": str(VERSION + 1)}))
    await store.send("e", encode(Control(action="pause", by="me")))
    await actor.turn()
    assert await store.protocol("e") == str(VERSION)


# -- reconciliation -------------------------------------------------------------------------------


async def test_an_attempt_that_is_nowhere_is_queued_again(store):
    await submit(store)
    await an_actor(store).turn()
    _, leased = await lease(store)
    held, ended = await lease(store)
    await report(store, held, ended)
    # Remove the other two from the queue without giving them to a worker.
    lost = []
    for _ in range(2):
        gone, trial = await lease(store)
        assert await store.dead_letter("e", "trials", [(gone.id, "gone", gone.body)])
        lost.append(trial.id)
    actor = an_actor(store, "b")
    await actor.turn()
    await actor.turn()
    found = await lines(store, history.TrialReleased)
    assert sorted(line.trial for line in found) == sorted(lost)
    assert {(line.reason, line.worker) for line in found} == {("missing", "")}
    assert await attempts(store) == sorted([(leased.id, 1), *((trial, 2) for trial in lost)])


async def test_nothing_is_compared_with_messages_of_another_version(clock):
    class Moving(MemoryStore):
        async def outstanding(self, name):
            found = await super().outstanding(name)
            return replace(found, version="another", trials=[])

    store = Moving(clock)
    await submit(store)
    actor = an_actor(store)
    for _ in range(3):
        await actor.turn()
    assert not await lines(store, history.TrialReleased)


async def test_whatever_is_on_its_way_is_not_missing(store):
    actor = await begun(store)
    await store.send("e", encode(Tick(workers=1)))
    await store.send("e", b"garbage")
    held, trial = await lease(store)
    await report(store, held, trial)
    kept = (await load(store, "e")).population
    outstanding = await store.outstanding("e")
    assert missing_attempts(kept, outstanding) == []
    nothing = replace(outstanding, trials=[b"garbage"], inbox=[])
    assert [(m.trial, m.attempt) for m in missing_attempts(kept, nothing)] == [
        (f"{i}-0", 1) for i in range(4)
    ]
    # A waiting slot has no attempt that could be missing.
    await actor.turn()
    kept = (await load(store, "e")).population
    assert [m.slot for m in missing_attempts(kept, nothing)] == [
        slot.index for slot in kept.slots if slot.index != trial.slot
    ]


def test_a_batch_is_what_one_event_after_the_other_leads_to():
    run = Run(population()).start()
    start = run.population
    events = [Stamped(run.result(slot, float(slot)), 10 + slot) for slot in range(8)]
    whole = decide_all(start, events)
    trials, added = [], []
    for stamped in events:
        decision = run.tell(stamped.event, stamped.at_ms)
        trials += decision.trials
        added += decision.history
    assert whole == Decision(run.population, tuple(trials), tuple(added))
    assert len(trials) == 8
    assert decide_all(start, []).population is start


@pytest.mark.parametrize("optimizer", ["romul", "initiator", "random"])
@pytest.mark.parametrize("seed", range(4))
def test_batches_of_any_size_lead_where_single_events_do(seed, optimizer):
    """Events are results, failures and ticks. Counted values equal those from all slots."""
    shuffler = random.Random(seed)
    elasticity = Elasticity(max_slots=9, per_worker=2.0)
    run = Run(population(optimizer, steps=5, seed=seed, elasticity=elasticity)).start()
    kept, events, expected, ticks = run.population, [], [], 0
    while run.population.status == "running":
        now_ms = run.now_ms + shuffler.choice([1, 700, 3000])
        queued = run.queued()
        if not queued or shuffler.random() < 0.3:
            event = Tick(workers=shuffler.randrange(1, 12))
        else:
            slot = shuffler.choice(queued)
            lost = shuffler.random() < 0.2
            event = run.failed(slot) if lost else run.result(slot, shuffler.random())
        decision = run.tell(event, now_ms)
        ticks += any(isinstance(line, TimePassed) for line in decision.history)
        for step, progress in run.population.progress.items():
            assert progress == progress_of(run.population.slots, step)
        events.append(Stamped(event, now_ms))
        expected += decision.history
        if shuffler.random() < 0.2 or run.population.status != "running":
            batch = decide_all(kept, events)
            assert (batch.population, batch.history) == (run.population, tuple(expected))
            kept, events, expected = batch.population, [], []
    assert run.population.status == "finished"
    assert ticks


def test_a_tick_that_changes_nothing_leaves_the_population_as_it_is():
    run = Run(population()).start()
    start = run.population
    ticks = [Stamped(Tick(workers=4), at_ms) for at_ms in (10, 20)]
    assert decide_all(start, ticks).population is start
    result = Stamped(run.result(0, 1.0), 15)
    batch = decide_all(start, [ticks[0], result, ticks[1]])
    run.tell(result.event, result.at_ms)
    assert (batch.population, batch.history) == (run.population, tuple(run.history[-1:]))


def test_a_process_of_actors_looks_for_garbage_in_cycles_rarely_but_does():
    before, usual = gc.get_threshold(), (2_000, 10, 10)
    # Another test of this process may have called the same.
    gc.set_threshold(*usual)
    try:
        collect_rarely()
        assert gc.get_threshold() == GC_THRESHOLDS
        assert gc.isenabled()
        assert all(now > then for now, then in zip(gc.get_threshold(), usual, strict=True))
    finally:
        gc.set_threshold(*before)
