"""Keys that are damaged, missing, or of the wrong type: each script does all or nothing."""

import asyncio

import pytest

from romul_actors.errors import StoreError, WrongTypeError
from romul_actors.observe.snapshot import snapshot
from romul_actors.store import Commit, Hold
from romul_actors.store.keys import key, slot_key
from romul_actors.store.redis import RedisStore
from romul_workers.trainer import ignore
from romul_workers.worker.reporting import Reporter
from romul_workers.worker.shutdown import Shutdown
from tests.contract.test_apart import Instant
from tests.trials import TRIAL, declare

SPEC = declare(task="toys").model_dump_json()


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
    """Replace a key by one of the wrong type or content."""
    place = part if part.startswith("romul:") else key("e", part)
    raw.delete(place)
    raw.set(place, "x")


async def test_an_experiment_that_another_team_takes_off_the_list_goes_on(redis_url, raw, caplog):
    """All teams share the list, so the server cannot restrict which names an operator removes."""
    store, late = RedisStore(redis_url), RedisStore(redis_url)
    await store.create("ours", SPEC, b"submitted")
    await store.create("theirs", SPEC, b"submitted")
    listed = await store.experiments()
    assert sorted(listed) == ["ours", "theirs"]
    raw.srem("romul:experiments", "ours")
    for _ in range(2):
        assert await store.experiments() == listed
    assert caplog.text.count("SADD romul:experiments ours") == 1
    assert list(await late.experiments()) == ["theirs"]
    # Removal works as before.
    await late.remove("ours")
    assert list(await store.experiments()) == ["theirs"]
    await store.close()
    await late.close()


NUMBERS = [None, "", "many", "-1", "1e3", "inf", "nan", "100000000000"]


@pytest.mark.parametrize("slots", NUMBERS, ids=str)
async def test_a_wrong_number_of_slots_is_named_and_holds_up_no_other_experiment(store, raw, slots):
    await store.create("other", SPEC, b"submitted")
    if slots is None:
        raw.hdel(key("e"), "slots")
    else:
        raw.hset(key("e"), "slots", slots)
    async with asyncio.timeout(10):
        # Existing entries, and a few beyond.
        assert len((await store.load("e")).slots) <= 1 + 1000
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


async def test_an_experiment_created_while_one_of_its_name_is_removed_is_listed(store, monkeypatch):
    client = store.connection.client
    srem = client.srem

    async def after_a_creation(*arguments):
        await store.create("e", SPEC, b"submitted")
        return await srem(*arguments)

    monkeypatch.setattr(client, "srem", after_a_creation)
    assert await store.remove("e")
    assert await store.experiments() == {"e": "submitted"}


@pytest.mark.parametrize("part", ["inbox", "trials"])
async def test_where_a_queue_is_left_over_nothing_is_created_before_it_is_removed(raw, store, part):
    await store.remove("e")
    raw.hset(key("e", part), "x", "y")
    with pytest.raises(StoreError, match=f"{part} already exists.*romul remove"):
        await store.create("e", SPEC, b"submitted")
    assert raw.keys() == [key("e", part)]
    assert await store.remove("e")
    await store.create("e", SPEC, b"submitted")
    assert [entry.body for entry in await store.read(["e"], "a", 10, 0)] == [b"submitted"]


@pytest.mark.parametrize("part", [slot_key("e", 0), slot_key("e", 1), "trials", "garbage"])
async def test_a_commit_that_meets_a_wrong_key_changes_nothing_and_names_it(store, raw, part):
    await store.send("e", b"event")
    [entry] = await store.read(["e"], "a", 10, 0)
    version = (await store.load("e")).version
    spoil(raw, part)
    before = raw.hgetall(key("e"))
    slots = {0: {"status": "waiting"}, 1: {"status": "queued"}}
    commit = Commit(version, [entry.id], {"slots": "2"}, slots, [b"u"], garbage=["c"])
    place = part if part.startswith("romul:") else key("e", part)
    with pytest.raises(WrongTypeError, match=f"^{place} has the wrong type"):
        await store.commit("e", "a", commit)
    assert raw.hgetall(key("e")) == before
    assert [waiting.id for waiting in await store.pending("e", "a", 10)] == [entry.id]


@pytest.mark.parametrize("version", ["many", ""])
async def test_a_version_that_is_no_number_is_named_and_nothing_is_committed(store, raw, version):
    await store.send("e", b"event")
    [entry] = await store.read(["e"], "a", 10, 0)
    held = (await store.load("e")).version.split(".")
    raw.hset(key("e"), "version", version)
    held[1] = version
    with pytest.raises(StoreError, match=r"romul:\{e\} has no version"):
        await store.load("e")
    commit = Commit(".".join(held), [entry.id], {"status": "stopped"})
    with pytest.raises(StoreError, match=r"romul:\{e\} has no version"):
        await store.commit("e", "a", commit)
    assert raw.hget(key("e"), "status") == "running"
    assert [waiting.id for waiting in await store.pending("e", "a", 10)] == [entry.id]


async def test_a_dead_message_that_cannot_be_kept_stays_in_its_queue(store, raw):
    await store.send("e", b"bad")
    [entry] = await store.read(["e"], "a", 10, 0)
    spoil(raw, "dead")
    with pytest.raises(WrongTypeError, match=r"^romul:\{e\}:dead has the wrong type"):
        await store.dead_letter("e", "inbox", [(entry.id, "unusable", b"bad")])
    assert [waiting.body for waiting in await store.pending("e", "a", 10)] == [b"bad"]


async def test_a_dead_message_is_not_lost_where_its_queue_cannot_take_it(store, raw):
    await store.send("e", b"bad")
    [entry] = await store.read(["e"], "a", 10, 0)
    await store.dead_letter("e", "inbox", [(entry.id, "unusable", b"bad")])
    spoil(raw, "inbox")
    [dead] = await store.dead("e")
    with pytest.raises(WrongTypeError):
        await store.resubmit("e", dead)
    assert await store.dead("e") == [dead]


async def test_a_report_that_cannot_be_noted_is_not_queued_again_and_again(store, raw):
    lease = await store.lease(["e"], "w", 0)
    spoil(raw, "settled")
    for _ in range(3):
        with pytest.raises(WrongTypeError):
            await store.settle(lease, 0, "0-0#1 result by w", b"report")
    assert raw.xlen(key("e", "inbox")) == 0
    assert await store.leases("e") == {lease.id: "w"}


@pytest.mark.parametrize("at", [float("nan"), float("inf")])
async def test_a_heartbeat_that_cannot_be_noted_renews_no_lease(store, raw, at):
    lease = await store.lease(["e"], "w", 0)
    raw.xclaim(key("e", "trials"), "workers", "w", 0, [lease.id], idle=60_000)
    with pytest.raises(StoreError):
        await store.beat(lease, 0, "0-0", {"state": "training", "at": at})
    assert [found.id for found, _ in await store.sweep("e", "a", 60_000, 1)] == [lease.id]


@pytest.mark.parametrize("damage", ["no group", "settled"])
async def test_a_report_that_the_server_refuses_keeps_no_worker_from_the_others(
    store, raw, caplog, damage
):
    lease = await store.lease(["e"], "w", 0)
    if damage == "no group":
        raw.xgroup_destroy(key("e", "trials"), "workers")
    else:
        spoil(raw, damage)
    reporter = Reporter(store, Instant(), "w", Shutdown(10.0, ignore))
    async with asyncio.timeout(60):
        await reporter.refuse(lease, TRIAL, "not allowed")
    assert f"trial {TRIAL.id} could not be reported" in caplog.text
    assert raw.xlen(key("e", "inbox")) == 0


@pytest.mark.parametrize("content", ["stream", "text"])
async def test_a_report_is_taken_whatever_lies_where_warm_processes_are_noted(store, raw, content):
    lease = await store.lease(["e"], "w", 0)
    if content == "stream":
        raw.xadd(key("e", "affinity"), {"x": "y"})
    else:
        raw.hset(key("e", "affinity"), "restores", "many")
    hold = Hold("0-0-1", 500, warm=True)
    assert await store.settle(lease, 0, "0-0#1 result by w", b"report", hold)
    assert raw.xlen(key("e", "inbox")) == 1
    assert await store.leases("e") == {}


OFFER = {"w": "1 1 body"}


@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("trials", lambda store: store.release_offers("e")),
        ("trials", lambda store: store.present(["e"], "w", {})),
        ("targeted", lambda store: store.lease(["e"], "w", 0, ["e"])),
    ],
    ids=["released", "left", "taken"],
)
async def test_an_offer_stays_where_its_queue_cannot_take_it(store, raw, part, call):
    raw.hset(key("e", "offers"), mapping=OFFER)
    spoil(raw, part)
    try:
        await call(store)
    except WrongTypeError as error:
        assert part in str(error)  # noqa: PT017
    assert raw.hgetall(key("e", "offers")) == OFFER
