"""Trials that are offered first to the worker that has their parent in memory, in each store."""

import asyncio

import pytest

from romul_actors.store import Commit, Hold
from tests.contract.test_store import batch, made

LONG_MS = 60_000
P = "0-0-1-ab"


async def commit(store, *trials, parent=P, name="e"):
    stored = await store.load(name)
    ids = await batch(store, name)
    parents = [parent] * len(trials)
    return await store.commit(
        name, "a", Commit(stored.version, ids, trials=trials, parents=parents)
    )


async def holds(store, worker="w", checkpoint=P, for_ms=LONG_MS, warm=None):
    """Let a worker report a trial and hold its checkpoint."""
    await commit(store, b"before", parent="")
    lease = await store.lease(["e"], worker, 0)
    hold = Hold(checkpoint, for_ms, warm)
    assert await store.settle(lease, 0, "0-0#1 result", b"result", hold)


async def test_a_trial_goes_to_the_worker_that_holds_its_parent_and_to_no_other(store):
    await made(store)
    await holds(store)
    done = await commit(store, b"t")
    assert done.release_ms == LONG_MS
    assert await store.lease(["e"], "other", 0) is None
    lease = await store.lease(["e"], "w", 0, ["e"])
    assert (lease.body, lease.worker) == (b"t", "w")
    assert list((await store.leases("e")).values()) == ["w"]
    assert await store.settle(lease, 0, "0-1#1 result", b"next") is True
    assert await store.settle(lease, 0, "0-1#2 result", b"again") is False
    assert [entry.body for entry in await store.read(["e"], "a", 10, 0)] == [b"next"]
    counts = await store.affinity("e")
    assert (counts.offers, counts.released) == (1, 0)
    assert (await store.depths("e"))["trials"] == 0


async def test_a_worker_that_waits_is_woken_by_its_offer(store):
    await made(store)
    await holds(store)
    waiting = asyncio.create_task(store.lease(["e"], "w", 10_000, ["e"]))
    other = asyncio.create_task(store.lease(["e"], "other", 10_000))
    await asyncio.sleep(0.05)
    await commit(store, b"t", b"u")
    assert (await waiting).body == b"t"
    assert (await other).body == b"u"


async def test_of_several_trials_with_one_parent_one_is_offered(store):
    await made(store)
    await holds(store)
    await commit(store, b"t", b"u")
    await commit(store, b"v")
    found = [await store.lease(["e"], "other", 0) for _ in range(3)]
    assert [lease and lease.body for lease in found] == [b"u", b"v", None]
    assert (await store.depths("e"))["trials"] == 3


async def test_nothing_is_offered_to_a_worker_that_has_a_trial(store):
    await made(store)
    await holds(store)
    await commit(store, b"other", parent="")
    busy = await store.lease(["e"], "w", 0, ["e"])
    assert (await commit(store, b"t")).release_ms is None
    assert (await store.lease(["e"], "other", 0)).body == b"t"
    # Nor does one that has taken a trial that was offered to it.
    await store.settle(busy, 0, "0-0#1 result", b"result", Hold(P, LONG_MS))
    await commit(store, b"u")
    assert (await store.lease(["e"], "w", 0, ["e"])).body == b"u"
    assert (await commit(store, b"v")).release_ms is None


async def test_a_report_says_what_is_held_from_then_on(store):
    await made(store)
    await holds(store)
    await holds(store, checkpoint="0-1-1-cd", warm=True)
    assert (await commit(store, b"t")).release_ms is None
    assert (await commit(store, b"u", parent="0-1-1-cd")).release_ms == LONG_MS
    await store.lease(["e"], "w", 0, ["e"])
    assert (await store.affinity("e")).restores == 1
    assert (await store.affinity("e")).warm == 1


async def test_a_worker_that_holds_nothing_any_more_is_offered_nothing(store):
    await made(store)
    await holds(store)
    await holds(store, checkpoint="", warm=False)
    assert (await commit(store, b"t")).release_ms is None
    counts = await store.affinity("e")
    assert (counts.restores, counts.warm, counts.offers) == (1, 0, 0)


async def test_an_offer_that_is_not_taken_in_time_goes_to_all(store):
    await made(store)
    await holds(store, for_ms=0)
    await commit(store, b"t")
    assert await store.lease(["e"], "other", 0) is None
    assert await store.release_offers("e") is None
    assert (await store.lease(["e"], "other", 0)).body == b"t"
    assert await store.lease(["e"], "w", 0, ["e"]) is None
    assert (await store.affinity("e")).released == 1


async def test_an_offer_in_its_time_stays(store):
    await made(store)
    await holds(store)
    await commit(store, b"t")
    assert 0 < await store.release_offers("e") <= LONG_MS
    assert await store.lease(["e"], "other", 0) is None
    assert await store.sweep("e", "a", 0, 10) == []
    assert (await store.lease(["e"], "w", 0, ["e"])).body == b"t"


@pytest.mark.parametrize("gone", ["left", "lost"])
async def test_what_is_offered_to_a_worker_that_is_gone_goes_to_all_at_once(store, gone):
    await made(store)
    await holds(store)
    await commit(store, b"t")
    if gone == "left":
        await store.present(["e"], "w", {})
    else:
        # No worker had leased the trial yet, so no attempt was lost.
        assert await store.sweep("e", "a", 0, 10, "w") == []
    assert (await store.lease(["e"], "other", 0)).body == b"t"
    assert (await store.affinity("e")).released == 1


async def test_a_sweep_by_any_actor_releases_what_another_one_offered(store):
    await made(store)
    await holds(store, for_ms=0)
    await commit(store, b"t")
    assert await store.sweep("e", "b", LONG_MS, 10) == []
    assert (await store.lease(["e"], "other", 0)).body == b"t"


async def test_a_targeted_lease_is_swept_and_kept_as_any_other(store):
    await made(store)
    await holds(store)
    await commit(store, b"t")
    lease = await store.lease(["e"], "w", 0, ["e"])
    assert (await store.beat(lease, 0, "0-1", {"state": "training"})).kept is True
    assert await store.sweep("e", "a", LONG_MS, 10) == []
    [(swept, last)] = await store.sweep("e", "a", 0, 10)
    assert (swept.body, swept.worker, last) == (b"t", "a", "w")
    assert (await store.beat(lease, 0, "0-1", {"state": "training"})).kept is False
    assert await store.settle(lease, 0, "0-1#1 result", b"late", Hold(P, LONG_MS)) is False
    assert await store.settle(swept, 0, "0-1#1 expired", b"expired") is True
    # The late call did not change what the worker holds.
    assert (await commit(store, b"u")).release_ms == LONG_MS


async def test_an_unusable_targeted_trial_is_a_dead_letter_of_the_trials(store):
    await made(store)
    await holds(store)
    await commit(store, b"t")
    lease = await store.lease(["e"], "w", 0, ["e"])
    assert await store.dead_letter("e", lease.stream, [(lease.id, "bad", lease.body)]) == 1
    [dead] = await store.dead("e")
    assert (dead.origin, dead.body) == ("trials", b"t")
    assert await store.resubmit("e", dead) is True
    assert (await store.lease(["e"], "other", 0)).body == b"t"


async def test_a_targeted_trial_that_is_put_back_is_for_any_worker(store):
    await made(store)
    await holds(store)
    await commit(store, b"t")
    lease = await store.lease(["e"], "w", 0, ["e"])
    assert await store.put_back(lease) is True
    assert (await store.lease(["e"], "other", 0)).body == b"t"


async def test_offers_and_targeted_leases_are_on_the_way_and_in_the_depths(store):
    await made(store)
    await holds(store)
    await holds(store, "v", "1-0-1-cd")
    await commit(store, b"taken")
    await store.lease(["e"], "w", 0, ["e"])
    await commit(store, b"offered", parent="1-0-1-cd")
    await commit(store, b"queued", parent="")
    assert sorted((await store.outstanding("e")).trials) == [b"offered", b"queued", b"taken"]
    assert (await store.depths("e"))["trials"] == (await store.glance("e")).depths["trials"] == 3


async def test_a_removed_experiment_takes_its_offers_along(store):
    await made(store)
    await holds(store)
    await commit(store, b"t")
    assert await store.remove("e") is True
    assert await store.release_offers("e") is None
    await made(store)
    assert (await store.depths("e"))["trials"] == 0
    assert (await store.affinity("e")).offers == 0
    assert (await commit(store, b"u")).release_ms is None
    assert (await store.lease(["e"], "w", 0, ["e"])).body == b"u"


async def test_a_worker_holds_in_one_experiment_and_takes_from_another(store):
    for name in ("e", "f"):
        await made(store, name)
    await holds(store)
    await commit(store, b"of f", parent="", name="f")
    assert (await store.lease(["e", "f"], "w", 1000, ["e"])).body == b"of f"


async def test_an_offer_and_a_trial_at_once_are_one_lease_and_none_is_lost(store):
    await made(store)
    await holds(store)
    waiting = asyncio.create_task(store.lease(["e"], "w", 10_000, ["e"]))
    await asyncio.sleep(0.05)
    await commit(store, b"t", b"u")
    lease = await waiting
    assert (await store.depths("e"))["trials"] == 2
    other = await store.lease(["e"], "other", 1000)
    assert {lease.body, other.body} == {b"t", b"u"}
