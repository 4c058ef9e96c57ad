"""Keys that are damaged, missing, or of another type: each script acts whole or not at all."""

import asyncio

import pytest
import redis

from romul_actors.errors import StoreError
from romul_actors.observe.snapshot import snapshot
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Commit
from romul_actors.store.keys import key, slot_key
from romul_actors.store.redis import RedisStore

SPEC = Experiment.model_validate(
    {
        "name": "e",
        "task": "toys",
        "space": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
        "steps": 1,
    }
).model_dump_json()


@pytest.fixture
def raw(redis_url):
    client = redis.Redis.from_url(redis_url, decode_responses=True, protocol=2)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
async def store(redis_url, raw):
    """A store with one experiment of one slot, whose trial waits for a worker."""
    made = RedisStore(redis_url)
    await made.create("e", SPEC, b"submitted")
    [entry] = await made.read(["e"], "a", 10, 0)
    version = (await made.load("e")).version
    meta, slots = {"slots": "1", "status": "running"}, {0: {"status": "queued"}}
    assert await made.commit("e", "a", Commit(version, [entry.id], meta, slots, trials=[b"t"]))
    yield made
    await made.close()


def spoil(raw, part):
    """Make something else of a key than it should be."""
    place = part if part.startswith("romul:") else key("e", part)
    raw.delete(place)
    raw.set(place, "x")


NUMBERS = [None, "", "many", "-1", "1e3", "inf", "nan", "100000000000"]


@pytest.mark.parametrize("slots", NUMBERS, ids=str)
async def test_a_wrong_number_of_slots_is_named_and_holds_up_no_other_experiment(store, raw, slots):
    await store.create("other", SPEC, b"submitted")
    if slots is None:
        raw.hdel(key("e"), "slots")
    else:
        raw.hset(key("e"), "slots", slots)
    async with asyncio.timeout(10):
        # What there is, and no more than one beyond.
        assert len((await store.load("e")).slots) <= 2
        with pytest.raises(StoreError, match=r"experiment 'e'.*slot"):
            await snapshot(store, "e")
        assert (await store.load("other")).meta["status"] == "submitted"


@pytest.mark.parametrize("slots", NUMBERS, ids=str)
async def test_an_experiment_is_removed_whatever_number_of_slots_it_says(store, raw, slots):
    if slots is None:
        raw.hdel(key("e"), "slots")
    else:
        raw.hset(key("e"), "slots", slots)
    async with asyncio.timeout(10):
        assert await store.remove("e")
    assert raw.keys() == []
    assert not await store.remove("e")


@pytest.mark.parametrize("part", ["", "inbox", "affinity", "workers", slot_key("e", 0)])
async def test_an_experiment_is_removed_whatever_its_keys_are(store, raw, part):
    spoil(raw, part)
    assert await store.remove("e")
    assert raw.keys() == []


async def test_what_a_lost_hash_leaves_is_removed_too(store, raw):
    raw.delete(key("e"))
    assert await store.remove("e")
    assert raw.keys() == []


@pytest.mark.parametrize("part", ["inbox", "trials"])
async def test_where_a_queue_is_left_over_nothing_is_created_before_it_is_removed(raw, store, part):
    await store.remove("e")
    raw.hset(key("e", part), "x", "y")
    with pytest.raises(StoreError, match=f"{part} is there already.*romul remove"):
        await store.create("e", SPEC, b"submitted")
    assert raw.keys() == [key("e", part)]
    assert await store.remove("e")
    await store.create("e", SPEC, b"submitted")
    assert [entry.body for entry in await store.read(["e"], "a", 10, 0)] == [b"submitted"]
