"""Damaged data in Redis: the store reads the rest, or says what is wrong."""

import asyncio
import contextlib
import json
import logging
from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from romul_actors.errors import StoreError
from romul_actors.store import Commit, DeadLetter, Lease, Output
from romul_actors.store.redis import RedisStore

META, SLOT, INBOX, TRIALS, HISTORY, DEAD, LOGS, WORKERS, SETTLED, GARBAGE, TICK = (
    f"romul:{{e}}{part}"
    for part in (
        *("", ":slot:0", ":inbox", ":trials", ":history", ":dead", ":logs", ":workers"),
        *(":settled", ":garbage", ":tick"),
    )
)
GOOD = {"state": "idle", "trial": "", "host": "h", "pid": 1}
NOW_MS = 1_785_000_000_000


@pytest.fixture
def raw(redis_url):
    client = redis.Redis.from_url(redis_url, protocol=2)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
async def damaged(redis_url, raw):
    """A store with one complete experiment, which tests damage through `raw`."""
    store = RedisStore(redis_url)
    await filled(store)
    yield store
    await store.close()


async def filled(store):
    """An experiment with one of everything."""
    await store.create("e", "{}", b"submitted")
    await store.send("e", b"bad")
    entries = await store.read(["e"], "a", 10, 0)
    await store.dead_letter("e", "inbox", [(entries[1].id, "unusable", b"bad")])
    commit = Commit(
        (await store.load("e")).version,
        [entries[0].id],
        meta={"slots": "1", "status": "running"},
        slots={0: {"status": "queued"}},
        trials=[b"t0", b"t1"],
        history=['{"n":1}'],
        garbage=["0-0-1"],
    )
    assert await store.commit("e", "a", commit)
    await store.present(["e"], "good", GOOD)
    await store.write_output("e", Output("0-0", 1, "good", "printed"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b'"text"',
        b"not JSON",
        b"{}",
        b'{"seen_ms": null}',
        b'{"seen_ms": "late"}',
        b'{"seen_ms": true}',
        b'{"seen_ms": NaN}',
        b'{"seen_ms": 1e999}',
        b'{"seen_ms": 1, "pid": "x"}',
        b'{"seen_ms": 1, "state": []}',
        b'{"seen_ms": 1, "at": "far"}',
        b'{"seen_ms": 1, "at": null}',
        b"[" * 10_000,
    ],
)
async def test_a_worker_whose_presence_is_none_was_never_seen(damaged, raw, body):
    raw.hset(WORKERS, "odd", body)
    glance = await damaged.glance("e")
    for workers in (await damaged.workers("e"), glance.workers):
        assert set(workers) == {"good", "odd"}
        assert set(workers["odd"]) == {"age_ms"}
        assert workers["odd"]["age_ms"] >= glance.now_ms - 5_000


async def test_a_worker_without_a_text_for_a_name_is_shown_and_its_lease_is_swept(damaged, raw):
    raw.hset(WORKERS, b"\xff", json.dumps({**GOOD, "seen_ms": NOW_MS}))
    raw.xreadgroup("workers", b"\xff", {TRIALS: ">"}, count=1)
    assert list(await damaged.workers("e")) == ["good", "\\xff"]
    assert list((await damaged.leases("e")).values()) == ["\\xff"]
    [(lease, last)] = await damaged.sweep("e", "a", 0, 10)
    assert (lease.body, last) == (b"t0", "\\xff")


async def test_outputs_that_are_none_are_left_out(damaged, raw):
    raw.xadd(LOGS, {"trial": "0-0"})
    raw.xadd(LOGS, {"trial": "0-0", "attempt": "many", "worker": "w", "text": "t"})
    raw.xadd(LOGS, {"trial": b"\xff", "attempt": "1", "worker": "w", "text": "t"})
    raw.xadd(LOGS, {"trial": "0-0", "attempt": "2", "worker": "w", "text": b"\xff"})
    assert [output.text for output in await damaged.outputs("e", "0-0")] == ["printed", "\ufffd"]


async def test_a_dead_message_that_is_none_is_listed_so_that_it_can_be_dropped(damaged, raw):
    raw.xadd(DEAD, {"x": "y"})
    raw.xadd(DEAD, {"origin": "history", "reason": b"\xff", "body": b"b", "size": "many"})
    _, bare, odd = await damaged.dead("e")
    assert (bare.origin, bare.reason, bare.body, bare.size) == ("unknown", "unknown", b"", 0)
    assert (odd.origin, odd.reason, odd.body, odd.size) == ("history", "\\xff", b"b", 1)
    # Put back where it says that it came from, it would be a line of history.
    assert [await damaged.resubmit("e", dead) for dead in (bare, odd)] == [False, False]
    assert (await damaged.depths("e"))["history"] == 1
    assert await damaged.drop("e", [bare.id, odd.id]) == 2


async def test_a_dead_message_of_no_queue_is_not_put_back_in_any_store(store):
    await store.create("e", "{}", b"submitted")
    assert not await store.resubmit("e", DeadLetter("1-0", "history", "r", b"b", 1))
    assert (await store.depths("e"))["history"] == 0


async def test_garbage_that_names_no_checkpoint_does_not_hold_up_the_rest(damaged, raw):
    raw.zadd(GARBAGE, {bytes([255, n]): 1 for n in range(10)})
    assert await damaged.garbage("e", 0, 3) == ["0-0-1"]


async def test_an_experiment_that_is_none_does_not_hide_the_others(damaged, raw):
    raw.sadd("romul:experiments", b"\xff", "list", "odd")
    raw.rpush("romul:{list}", "x")
    raw.hset("romul:{odd}", "status", b"\xff")
    assert await damaged.experiments() == {"e": "running"}


@pytest.mark.parametrize("key", [META, SLOT])
async def test_a_population_that_is_no_text_is_an_error_that_names_the_key(damaged, raw, key):
    raw.hset(key, "status", b"\xff")
    for call in (damaged.load("e"), damaged.glance("e", ["status"])):
        with pytest.raises(StoreError, match=r"romul:\{e\}.* cannot be read"):
            await call


async def test_history_is_never_read_with_a_gap(damaged, raw):
    entry = raw.xadd(HISTORY, {"m": "x"})
    for call in (damaged.history("e"), damaged.glance("e", count=10)):
        with pytest.raises(StoreError, match=f"{entry.decode()} has no field 'json'"):
            await call


TEXTS = st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff", b"-1", b"1e999", b"{}", b"e"]))
NAMES = st.one_of(
    TEXTS,
    st.sampled_from([b"status", b"spec", b"reported", b"m", b"json", b"origin", b"size", b"text"]),
)
FIELDS = st.dictionaries(NAMES, TEXTS, min_size=1, max_size=4)
AFFINITY, OFFERS, TARGETED = (f"romul:{{e}}:{part}" for part in ("affinity", "offers", "targeted"))


@pytest.mark.parametrize("key", [AFFINITY, OFFERS, TARGETED, "romul:{e}:bell:w"])
@pytest.mark.parametrize(
    "content", ["x", {"w": "x", "c 0-0-1": "x", "offers": "x"}, {"c 0-0-1": "500 w", "w": "9 9 m"}]
)
async def test_what_a_worker_may_write_fails_no_commit_and_holds_up_no_trial(
    damaged, raw, key, content
):
    raw.delete(TRIALS)
    raw.xgroup_create(TRIALS, "workers", "0", mkstream=True)
    if isinstance(content, str):
        raw.set(key, content)
    else:
        raw.hset(key, mapping=content)
    version = (await damaged.load("e")).version
    commit = Commit(version, [], {"status": "running"}, trials=[b"t", b"u"], parents=["0-0-1", ""])
    assert await damaged.commit("e", "a", commit) is not None
    await damaged.release_offers("e")
    found = [await damaged.lease(["e"], "other", 0) for _ in range(4)]
    # A forged offer is a forged trial, as a worker's password may forge them anyway.
    assert {lease.body for lease in found if lease} - {b"m"} == {b"t", b"u"}
    # A worker with an error continues without what it holds.
    with contextlib.suppress(StoreError):
        await damaged.lease(["e"], "w", 1, ["e"])
    assert await damaged.lease(["e"], "w", 1) is None


HASHES = (META, SLOT, WORKERS, SETTLED, AFFINITY, OFFERS)
STREAMS = (INBOX, TRIALS, HISTORY, DEAD, LOGS, TARGETED)
KEYS = (*HASHES, *STREAMS, GARBAGE, TICK)
DAMAGE = st.one_of(
    st.tuples(st.just("hset"), st.sampled_from(HASHES), FIELDS),
    st.tuples(st.just("xadd"), st.sampled_from(STREAMS), FIELDS),
    st.tuples(st.just("zadd"), st.just(GARBAGE), st.dictionaries(TEXTS, st.just(1), min_size=1)),
    st.tuples(st.just("sadd"), st.just("romul:experiments"), TEXTS),
    st.tuples(st.just("replace"), st.sampled_from(KEYS), TEXTS),
    st.tuples(st.just("read"), st.sampled_from([INBOX, TRIALS]), st.binary(min_size=1, max_size=4)),
)


def damage(client, kind, key, content):
    if kind == "hset":
        client.hset(key, mapping=content)
    elif kind == "replace":
        client.delete(key)
        client.rpush(key, content)
    elif kind == "read":
        group = "actors" if key == INBOX else "workers"
        client.xreadgroup(group, content, {key: ">"}, count=1)
    else:
        getattr(client, kind)(key, content)


def calls(store):
    lease = Lease("e", "1-0", "w", b"")
    yield from (store.experiments, store.check)
    for method in ("spec", "reported", "load", "history", "dead", "outstanding", "workers"):
        yield lambda method=method: getattr(store, method)("e")
    for method in ("ages", "leases", "depths", "affinity", "release_offers"):
        yield lambda method=method: getattr(store, method)("e")
    yield lambda: store.glance("e", ["status"], count=10)
    yield lambda: store.outputs("e", "0-0")
    yield lambda: store.garbage("e", 0, 2)
    yield lambda: store.send("e", b"m")
    yield lambda: store.read(["e"], "a", 10, 0)
    yield lambda: store.pending("e", "a", 10)
    yield lambda: store.take_over("e", "a", 0, 10)
    yield lambda: store.tick("e", b"t", 1000)
    yield lambda: store.lease(["e"], "w", 0)
    yield lambda: store.lease(["e"], "w", 1, ["e"])
    yield lambda: store.beat(lease, 0, "0-0", GOOD)
    yield lambda: store.settle(lease, 0, "0-0#1 result", b"r")
    yield lambda: store.sweep("e", "a", 0, 10)
    yield lambda: store.present(["e"], "good", {})
    yield lambda: store.dead_letter("e", "inbox", [("1-0", "r", b"b")])
    yield lambda: store.remove("e")


@pytest.mark.timeout(120)
def test_whatever_lies_in_redis_every_call_answers_or_raises_a_store_error(redis_url, raw):
    @given(st.lists(DAMAGE, min_size=1, max_size=3))
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def check(damages):
        raw.flushall()
        asyncio.run(played(damages))

    async def played(damages):
        store = RedisStore(redis_url)
        try:
            await filled(store)
            for each in damages:
                # A key that was replaced by another type accepts no more writes of its own type.
                with contextlib.suppress(redis.ResponseError):
                    damage(raw, *each)
            for call in calls(store):
                try:
                    await call()
                    endings["answered"] += 1
                except StoreError:
                    endings["refused"] += 1
        finally:
            await store.close()

    endings = Counter[str]()
    logging.getLogger("romul.store").setLevel(logging.CRITICAL)
    try:
        check()
    finally:
        logging.getLogger("romul.store").setLevel(logging.NOTSET)
    # Damage that no call notices, or that stops every call, would prove nothing.
    assert endings["answered"] > endings["refused"] > 0
