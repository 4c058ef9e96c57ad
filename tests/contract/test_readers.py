"""Queue consumers on a real server: dead ones are removed, but none of their entries is lost."""

import asyncio

import pytest

from romul_actors.actor import loop
from romul_actors.actor.loop import Actor
from romul_actors.core.events import Submitted
from romul_actors.protocol.messages import encode
from romul_actors.store.keys import GROUPS, key
from romul_actors.store.redis import RedisStore
from tests.trials import declare

HOUR_MS = 3_600_000


@pytest.fixture
async def store(redis_url, raw):
    made = RedisStore(redis_url)
    spec = declare(task="toys", population=4).model_dump_json()
    await made.create("e", spec, encode(Submitted()))
    yield made
    await made.close()


def readers(raw, queue):
    return sorted(each["name"] for each in raw.xinfo_consumers(key("e", queue), GROUPS[queue]))


async def test_an_actor_that_ends_is_listed_no_more(store, raw):
    stop = asyncio.Event()
    actor = Actor(store, "a", on_commit=lambda name, lines: stop.set(), pace_s=0.0)
    await actor.run(stop)
    assert readers(raw, "inbox") == []


async def test_an_actor_forgets_those_that_were_killed(store, raw, monkeypatch):
    await Actor(store, "killed", pace_s=0.0).turn()
    await store.lease(["e"], "w", 0)
    [(lease, _)] = await store.sweep("e", "killed", 0, 1)
    assert await store.settle(lease, 0, "0-0#1 expired", b"x")
    assert (readers(raw, "inbox"), readers(raw, "trials")) == (["killed"], ["killed", "w"])
    monkeypatch.setattr(loop, "FORGET_MS", 0)
    await Actor(store, "a", pace_s=0.0).turn()
    assert "killed" not in readers(raw, "inbox") + readers(raw, "trials")


async def test_a_reader_that_has_an_entry_or_was_there_lately_stays(store, raw):
    [entry] = await store.read(["e"], "holds", 1, 0)
    assert await store.read(["e"], "idle", 1, 0) == []
    await store.forget_readers("e", HOUR_MS)
    assert readers(raw, "inbox") == ["holds", "idle"]
    await store.forget_readers("e", 0, "holds")
    assert readers(raw, "inbox") == ["holds", "idle"]
    await store.forget_readers("e", 0)
    assert readers(raw, "inbox") == ["holds"]
    assert await store.pending("e", "holds", 1) == [entry]


async def test_where_a_queue_is_gone_none_is_forgotten_and_nothing_is_made(store, raw):
    raw.delete(key("e", "inbox"))
    raw.set(key("e", "trials"), "x")
    await store.forget_readers("e", 0)
    assert not raw.exists(key("e", "inbox"))
