"""The contract of a store, which every kind of store must fulfil."""

import asyncio
from dataclasses import replace

import pytest

from romul_actors.errors import ExperimentExistsError, UnknownExperimentError
from romul_actors.protocol.statuses import ENDED
from romul_actors.store import Commit, Output
from romul_actors.store.values import MAX_UNDECIDED, MOST_UNDECIDED


async def made(store, name="e"):
    await store.create(name, "{}", b"submitted")
    return name


async def batch(store, name="e", actor="a"):
    return [entry.id for entry in await store.read([name], actor, 100, 0)]


async def queue_trials(store, *bodies, name="e"):
    """Commit trials for `name`; the inbox is empty afterwards."""
    stored = await store.load(name)
    ids = await batch(store, name)
    assert await store.commit(name, "a", Commit(stored.version, ids, trials=bodies))


async def test_an_experiment_is_created_once(store):
    await made(store)
    with pytest.raises(ExperimentExistsError, match="'e' already exists"):
        await store.create("e", "other", b"x")
    assert await store.experiments() == {"e": "submitted"}
    assert await store.spec("e") == "{}"


async def test_an_unknown_experiment_is_said_to_be_unknown(store):
    for call in (store.load("no"), store.spec("no")):
        with pytest.raises(UnknownExperimentError, match="no experiment 'no'"):
            await call
    # Half of a surrogate pair, which cannot be sent to a server.
    for call in (store.load("n\ud800"), store.spec("n\ud800"), store.glance("n\ud800")):
        with pytest.raises(UnknownExperimentError, match=r"no experiment 'n\\ud800'"):
            await call
    assert await store.remove("no") is False
    assert await store.reported("no") == 0
    assert await store.read(["no"], "a", 10, 0) == []
    assert await store.lease(["no"], "w", 0) is None
    assert await store.sweep("no", "a", 0, 10) == []
    assert await store.take_over("no", "a", 0, 10) == []


async def test_a_removed_experiment_leaves_nothing_and_its_name_is_free(store):
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    await store.settle(lease, 3, "token", b"result")
    assert await store.remove("e") is True
    assert await store.experiments() == {}
    await made(store)
    stored = await store.load("e")
    await store.commit("e", "a", Commit(stored.version, [], {"slots": "4"}))
    assert [dict(slot) for slot in (await store.load("e")).slots] == [{}] * 4
    assert (await store.depths("e"))["trials"] == 0


async def test_experiments_that_come_and_go_are_listed_at_once(store):
    assert await store.experiments() == {}
    await made(store, "f")
    assert await store.experiments() == {"f": "submitted"}
    await made(store, "e")
    assert list((await store.experiments()).items()) == [("e", "submitted"), ("f", "submitted")]
    stored = await store.load("f")
    await store.commit("f", "a", Commit(stored.version, [], {"status": "running"}))
    assert await store.experiments() == {"e": "submitted", "f": "running"}
    await store.remove("e")
    assert await store.experiments() == {"f": "running"}
    await made(store, "e")
    await store.remove("f")
    assert await store.experiments() == {"e": "submitted"}


async def test_results_are_counted_where_a_worker_can_see_it(store):
    await made(store)
    assert await store.reported("e") == 0
    stored = await store.load("e")
    await store.commit("e", "a", Commit(stored.version, [], {"reported": "3"}))
    assert await store.reported("e") == 3


async def test_each_trial_ends_the_wait_of_one_worker(store):
    await made(store, "e")
    await made(store, "f")
    waits = [
        asyncio.create_task(store.lease(["e", "f"], worker, 60_000))
        for worker in ("one", "two", "three")
    ]
    await queue_trials(store, b"1", b"2", name="e")
    await queue_trials(store, b"3", name="f")
    async with asyncio.timeout(30):
        leases = await asyncio.gather(*waits)
    assert sorted(lease.body for lease in leases) == [b"1", b"2", b"3"]
    assert sorted(lease.worker for lease in leases) == ["one", "three", "two"]


async def test_entries_arrive_in_order_and_each_at_one_actor(store):
    await made(store)
    await store.send("e", b"1")
    first = await store.read(["e"], "a", 100, 0)
    await store.send("e", b"2")
    second = await store.read(["e"], "b", 100, 0)
    assert [entry.body for entry in first] == [b"submitted", b"1"]
    assert [entry.body for entry in second] == [b"2"]
    assert [e.body for e in await store.pending("e", "a", 10)] == [b"submitted", b"1"]


async def test_a_read_waits_for_an_entry(store):
    await made(store)
    await batch(store)
    reading = asyncio.create_task(store.read(["e"], "a", 10, 5000))
    await asyncio.sleep(0.05)
    await store.send("e", b"late")
    assert [entry.body for entry in await reading] == [b"late"]


async def test_a_removed_experiment_holds_up_no_read_of_the_others(store):
    names = [await made(store, name) for name in ("e", "f", "g")]
    await store.remove("f")
    read = await store.read(names, "a", 10, 0)
    assert [entry.experiment for entry in read] == ["e", "g"]
    await store.send("g", b"late")
    assert [entry.body for entry in await store.read(names, "a", 10, 0)] == [b"late"]


async def test_a_commit_applies_everything(store):
    await made(store)
    before = await store.load("e")
    ids = await batch(store)
    commit = Commit(
        before.version,
        ids,
        meta={"status": "running", "slots": "2"},
        slots={0: {"loss": "1"}, 1: {"loss": "2"}},
        trials=[b"t0", b"\xff\x00t1"],
        history=['{"n":1}', '{"n":2}'],
    )
    version = (await store.commit("e", "a", commit)).version
    after = await store.load("e")
    assert version == after.version != before.version
    assert after.meta["status"] == "running"
    assert [slot["loss"] for slot in after.slots] == ["1", "2"]
    assert [line for _, line in await store.history("e")] == ['{"n":1}', '{"n":2}']
    assert await store.depths("e") == {"inbox": 0, "trials": 2, "history": 2, "dead": 0}


async def test_a_commit_on_an_old_version_applies_nothing(store):
    await made(store)
    stored = await store.load("e")
    ids = await batch(store)
    assert await store.commit("e", "a", Commit(stored.version, [], meta={"status": "paused"}))
    late = Commit(stored.version, ids, meta={"status": "running"}, trials=[b"t"], history=["{}"])
    assert await store.commit("e", "a", late) is None
    assert (await store.experiments())["e"] == "paused"
    assert await store.depths("e") == {"inbox": 1, "trials": 0, "history": 0, "dead": 0}


async def test_a_commit_of_entries_that_another_actor_took_over_applies_nothing(store):
    await made(store)
    stored = await store.load("e")
    ids = await batch(store, actor="a")
    assert [e.id for e in await store.take_over("e", "b", 0, 10)] == ids
    assert await store.commit("e", "a", Commit(stored.version, ids, meta={"x": "1"})) is None
    assert await store.commit("e", "b", Commit(stored.version, ids, meta={"x": "2"}))
    assert (await store.load("e")).meta["x"] == "2"


async def test_a_version_of_a_removed_experiment_is_no_version_of_the_next(store):
    await made(store)
    old = await store.load("e")
    await store.remove("e")
    await made(store)
    assert await store.commit("e", "a", Commit(old.version, [])) is None


async def test_entries_are_taken_over_only_when_idle(store):
    await made(store)
    await batch(store, actor="a")
    assert await store.take_over("e", "b", 60_000, 10) == []


async def test_a_trial_is_leased_to_one_worker(store):
    await made(store)
    await queue_trials(store, b"t0", b"t1")
    first = await store.lease(["e"], "w1", 0)
    second = await store.lease(["e"], "w2", 0)
    assert (first.body, second.body) == (b"t0", b"t1")
    assert await store.lease(["e"], "w3", 0) is None
    assert sorted((await store.leases("e")).values()) == ["w1", "w2"]


async def test_one_lease_is_one_trial_also_of_many_experiments(store):
    names = [await made(store, name) for name in ("e", "f", "g")]
    waiting = asyncio.create_task(store.lease(names, "w", 5000))
    await asyncio.sleep(0.05)
    for name in names:
        await queue_trials(store, b"t", name=name)
    lease = await waiting
    held = [len(await store.leases(name)) for name in names]
    assert sum(held) == 1
    # The other entries of the same read are available to others at once.
    others = [await store.lease(names, "x", 0) for _ in range(2)]
    assert {lease.experiment, *(other.experiment for other in others)} == set(names)


async def test_experiments_are_leased_from_in_the_order_given(store):
    for name in ("e", "f"):
        await made(store, name)
        await queue_trials(store, b"t", name=name)
    assert (await store.lease(["f", "e"], "w", 0)).experiment == "f"


async def test_a_lease_is_settled_once_and_the_same_call_again_is_fine(store):
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    assert await store.settle(lease, 0, "0-0#1", b"result") is True
    assert await store.settle(lease, 0, "0-0#1", b"result") is True
    assert await store.settle(lease, 0, "0-0#1 other", b"result") is False
    assert [entry.body for entry in await store.read(["e"], "a", 10, 0)] == [b"result"]
    assert (await store.depths("e"))["trials"] == 0


async def test_a_report_sent_twice_is_known_after_a_second_copy_has_ended_too(store):
    """A client repeats a call whose answer was lost; later reports must not hide the first one."""
    await made(store)
    await queue_trials(store, b"first", b"copy", b"next")
    first, copy, after = [await store.lease(["e"], "w", 0) for _ in range(3)]
    assert await store.settle(first, 0, "0-1#1 result by w", b"1") is True
    assert await store.settle(copy, 0, "0-1#2 result by w", b"2") is True
    assert await store.settle(first, 0, "0-1#1 result by w", b"1") is True
    assert await store.settle(first, 0, "0-1#3 result by w", b"3") is False
    assert await store.settle(after, 0, "0-2#1 result by w", b"4") is True
    # The slot has continued, so it is no longer known whether that trial was reported.
    assert await store.settle(first, 0, "0-1#1 result by w", b"1") is None
    assert await store.settle(first, 0, "0-3#1 result by w", b"5") is False


async def test_a_result_that_did_not_count_makes_no_later_attempt_outdated(store):
    """For example, if the search had ended meanwhile and was extended."""
    await made(store)
    await queue_trials(store, b"1", b"2", b"3")
    first, second, third = [await store.lease(["e"], "w", 0) for _ in range(3)]
    await store.settle(first, 0, "0-1#1 result by w", b"result")
    assert (await store.beat(second, 0, "0-1", {"state": "training"})).outdated is True
    await store.settle(second, 0, "0-1#2 released by w", b"released")
    assert (await store.beat(third, 0, "0-1", {"state": "training"})).outdated is False


async def test_the_latest_ends_of_a_trial_are_known(store):
    await made(store)
    await queue_trials(store, *[b"t"] * 9)
    leases = [await store.lease(["e"], "w", 0) for _ in range(9)]
    for number, lease in enumerate(leases):
        assert await store.settle(lease, 0, f"0-1#{number} released by w", b"r") is True
    again = [
        await store.settle(each, 0, f"0-1#{n} released by w", b"r") for n, each in enumerate(leases)
    ]
    assert again == [False, *[True] * 8]


async def test_an_expired_lease_is_the_sweepers_and_the_zombie_is_refused(store):
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    assert await store.sweep("e", "a", 60_000, 10) == []
    [(swept, last)] = await store.sweep("e", "a", 0, 10)
    assert (swept.body, last) == (b"t", "w")
    assert (await store.beat(lease, 0, "0-0", {"state": "training"})).kept is False
    assert await store.settle(lease, 0, "zombie", b"late") is False
    assert await store.settle(swept, 0, "expired", b"expired") is True
    assert [entry.body for entry in await store.read(["e"], "a", 10, 0)] == [b"expired"]


async def test_a_heartbeat_keeps_the_lease(store):
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    # The sweep's limit lies between the time since the lease and that since the heartbeat.
    await asyncio.sleep(0.4)
    beat = await store.beat(lease, 0, "0-0", {"state": "training"})
    assert (beat.kept, beat.status, beat.before) == (True, "submitted", {})
    assert await store.sweep("e", "a", 400, 10) == []
    again = await store.beat(lease, 0, "0-0", {"state": "training", "pid": 2, "at": 0.5})
    assert again.before == {"state": "training"}
    again = await store.beat(lease, 0, "0-0", {"state": "training"})
    assert again.before == {"state": "training", "pid": 2, "at": 0.5}
    [presence] = (await store.workers("e")).values()
    assert presence["state"] == "training"
    assert 0 <= presence["age_ms"] < 5000


async def test_a_worker_comes_and_goes(store):
    await made(store)
    await store.present(["e"], "w", {"state": "idle"})
    assert list(await store.workers("e")) == ["w"]
    await store.present(["e"], "w", {})
    assert await store.workers("e") == {}


async def test_a_worker_that_left_with_a_trial_still_loses_it_to_the_sweep(store):
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    await store.present(["e"], "w", {})
    [(swept, last)] = await store.sweep("e", "a", 0, 10)
    assert (swept.body, last) == (b"t", "w")
    assert (await store.beat(lease, 0, "0-0", {"state": "training"})).kept is False


async def test_the_beat_of_a_removed_experiment_says_so(store):
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    await store.remove("e")
    beat = await store.beat(lease, 0, "0-0", {"state": "training"})
    assert (beat.kept, beat.status) == (False, "")
    assert await store.settle(lease, 0, "x", b"late") is False


async def test_an_unusable_entry_is_buried_with_its_reason(store):
    await made(store)
    await queue_trials(store, b"bad trial")
    await store.send("e", b"garbage")
    [entry] = await store.read(["e"], "a", 10, 0)
    lease = await store.lease(["e"], "w", 0)
    twice = [(entry.id, "not a message", entry.body), (entry.id, "again", b"x")]
    assert await store.dead_letter("e", "inbox", twice) == 1
    assert await store.dead_letter("e", "trials", [(lease.id, "not a trial", lease.body)]) == 1
    assert await store.dead_letter("e", "inbox", [(entry.id, "buried before", b"x")]) == 0
    found = [(dead.origin, dead.reason, dead.body) for dead in await store.dead("e")]
    assert found == [
        ("inbox", "not a message", b"garbage"),
        ("trials", "not a trial", b"bad trial"),
    ]
    assert await store.depths("e") == {"inbox": 0, "trials": 0, "history": 0, "dead": 2}


async def test_a_trial_that_is_put_back_is_the_last_in_the_queue_for_any_worker(store):
    await made(store)
    await queue_trials(store, b"first", b"second")
    lease = await store.lease(["e"], "w", 0)
    assert await store.put_back(lease) is True
    assert await store.put_back(lease) is False
    assert await store.settle(lease, 0, "x", b"late") is False
    found = [await store.lease(["e"], "v", 0) for _ in range(3)]
    assert [lease and lease.body for lease in found] == [b"second", b"first", None]
    await store.remove("e")
    assert await store.put_back(found[0]) is False


async def test_the_version_of_the_actors_messages_is_stored(store):
    await made(store)
    assert (await store.protocol("e"), await store.protocol("none")) == ("", "")
    stored = await store.load("e")
    await store.commit("e", "a", Commit(stored.version, [], {"protocol": "2"}))
    assert await store.protocol("e") == "2"


async def test_a_dead_message_is_kept_short_and_can_be_revived_or_dropped(store):
    await made(store)
    await queue_trials(store, b"x" * 5_000, b"second", b"third")
    for _ in range(3):
        lease = await store.lease(["e"], "w", 0)
        await store.dead_letter("e", "trials", [(lease.id, "bad", lease.body)])
    long, second, third = await store.dead("e")
    assert (len(long.body), long.size) == (1_024, 5_000)
    assert [dead.body for dead in await store.dead("e", long.id, 1)] == [b"second"]
    assert await store.resubmit("e", second) is True
    assert await store.resubmit("e", second) is False
    assert (await store.lease(["e"], "w", 0)).body == b"second"
    assert await store.drop("e", [long.id, second.id, third.id]) == 2
    assert await store.dead("e") == []


async def test_one_workers_leases_can_be_swept_alone(store):
    await made(store)
    await queue_trials(store, b"t", b"u")
    await store.lease(["e"], "v", 0)
    await store.lease(["e"], "w", 0)
    assert await store.sweep("e", "a", 0, 10, "unknown") == []
    assert await store.sweep("e", "a", 0, 10, "") == []
    [(swept, last)] = await store.sweep("e", "a", 0, 10, "w")
    assert (swept.body, last) == (b"u", "w")


async def test_a_sweep_for_a_former_experiment_leaves_the_leases_of_the_present_one(store):
    await made(store)
    former = (await store.load("e")).version
    await store.remove("e")
    await made(store)
    await queue_trials(store, b"t")
    lease = await store.lease(["e"], "w", 0)
    assert await store.sweep("e", "a", 0, 10, version=former) == []
    assert list((await store.leases("e")).values()) == ["w"]
    present = (await store.load("e")).version
    [(swept, last)] = await store.sweep("e", "a", 0, 10, version=present)
    assert (swept.id, last) == (lease.id, "w")


async def test_a_slow_copy_learns_that_the_other_one_has_its_result(store):
    await made(store)
    await queue_trials(store, b"t", b"t")
    fast, slow = await store.lease(["e"], "v", 0), await store.lease(["e"], "w", 0)
    assert (await store.beat(slow, 2, "2-5", {})).outdated is False
    assert await store.settle(fast, 2, "2-5#1 failed by v", b"failed")
    assert (await store.beat(slow, 2, "2-5", {})).outdated is False
    await queue_trials(store, b"t")
    fast = await store.lease(["e"], "v", 0)
    assert await store.settle(fast, 2, "2-5#3 result by v", b"result")
    beat = await store.beat(slow, 2, "2-5", {})
    assert (beat.kept, beat.outdated) == (True, True)
    assert (await store.beat(slow, 2, "2-55", {})).outdated is False


async def test_a_version_that_once_was_never_comes_again(store):
    await made(store)
    first = (await store.load("e")).version
    one = (await store.commit("e", "a", Commit(first, [], nonce="a#1"))).version
    # As if the server had been restored from before that commit, and had continued to count.
    other = one.replace("a#1", "b#1")
    assert one != other
    assert await store.commit("e", "b", Commit(other, [], nonce="b#2")) is None
    assert (await store.load("e")).version == one
    assert (await store.outstanding("e")).version == one


async def test_garbage_is_listed_until_it_is_said_to_be_gone(store):
    await made(store)
    stored = await store.load("e")
    done = await store.commit("e", "a", Commit(stored.version, [], garbage=["0-0-1", "0-1-1"]))
    await store.commit("e", "a", Commit(done.version, [], garbage=["0-0-1"]))
    assert await store.garbage("e", 60_000, 10) == []
    assert await store.garbage("e", 0, 1) == ["0-0-1"]
    assert await store.garbage("e", 0, 10) == ["0-0-1", "0-1-1"]
    await store.forget("e", ["0-0-1"])
    await store.forget("e", [])
    assert await store.garbage("e", 0, 10) == ["0-1-1"]
    await store.remove("e")
    assert await store.garbage("e", 0, 10) == []


async def test_all_that_is_on_the_way_is_seen_at_one_version(store):
    await made(store)
    await queue_trials(store, b"queued", b"leased")
    await store.lease(["e"], "w", 0)
    await store.send("e", b"new")
    found = await store.outstanding("e")
    assert found.version == (await store.load("e")).version
    assert list(found.trials) == [b"queued", b"leased"]
    assert list(found.inbox) == [b"new"]
    with pytest.raises(UnknownExperimentError):
        await store.outstanding("unknown")


async def test_a_fault_is_kept_with_the_experiment_until_it_is_over(store):
    await made(store)
    before = await store.load("e")
    await store.set_fault("e", "it cannot be read")
    stored = await store.load("e")
    assert stored.meta == {**before.meta, "fault": "it cannot be read"}
    assert stored.version == before.version
    assert (await store.glance("e")).meta["fault"] == "it cannot be read"
    await store.set_fault("e", "")
    await store.set_fault("e", "")
    assert await store.load("e") == before
    # This does not bring any of them back.
    await store.remove("e")
    await store.set_fault("e", "it cannot be read")
    assert await store.experiments() == {}
    await made(store)
    assert "fault" not in (await store.load("e")).meta


async def test_a_tick_comes_at_most_once_in_a_while(store):
    await made(store)
    assert await store.tick("e", b"tick", 60_000) is True
    assert await store.tick("e", b"tick", 60_000) is False
    assert [entry.body for entry in await store.read(["e"], "a", 10, 0)] == [b"submitted", b"tick"]


async def test_a_tick_may_come_as_often_as_it_is_asked_for(store):
    await made(store)
    assert await store.tick("e", b"tick", 0) is True


async def test_history_is_read_on_from_where_it_was_left(store):
    await made(store)
    stored = await store.load("e")
    lines = [f'{{"n":{n}}}' for n in range(5)]
    await store.commit("e", "a", Commit(stored.version, [], history=lines))
    first = await store.history("e", count=2)
    rest = await store.history("e", after=first[-1][0])
    last = await store.history_before("e", count=2)
    earlier = await store.history_before("e", before=last[-1][0])
    assert last + earlier == (first + rest)[::-1]
    assert await store.history_before("e", before=first[0][0]) == []
    assert await store.history_before("none") == []
    assert [line for _, line in first + rest] == lines


async def test_a_glance_is_all_that_a_screen_shows(store):
    await made(store)
    ids = await batch(store)
    stored = await store.load("e")
    slots = {0: {"step": "3", "loss": "1"}, 1: {"step": "4", "loss": "2"}}
    lines = [f'{{"n": {n}}}' for n in range(6)]
    commit = Commit(stored.version, ids, {"status": "running", "slots": "2"}, slots, history=lines)
    assert await store.commit("e", "a", commit)
    await store.present(["e"], "w", {"state": "idle"})
    await store.send("e", b"x")

    seen = await store.glance("e", ["step", "nothing"], count=2)
    assert (seen.meta["status"], seen.meta["spec"]) == ("running", "{}")
    assert seen.slots == [{"step": "3", "nothing": ""}, {"step": "4", "nothing": ""}]
    assert [line for _, line in seen.history] == lines[4:]
    assert seen.depths == {"inbox": 1, "trials": 0, "history": 6, "dead": 0}
    [(arrived_ms, body)] = seen.undecided
    # Views show only its age; its body may be long.
    assert (0 <= seen.now_ms - arrived_ms < 60_000, body) == (True, b"")
    assert seen.workers["w"]["state"] == "idle"
    assert 0 <= seen.workers["w"]["age_ms"] < 60_000

    first = (await store.history("e", count=1))[0][0]
    later = await store.glance("e", after=first, count=3)
    assert ([line for _, line in later.history], later.slots) == (lines[1:4], [])
    [entry] = await batch(store)
    last = await store.glance("e")
    # An event that an actor has only read is still undecided.
    assert (last.history, last.undecided) == ([], seen.undecided)
    assert await store.commit("e", "a", Commit((await store.load("e")).version, [entry]))
    assert (await store.glance("e")).undecided == []
    with pytest.raises(UnknownExperimentError, match="no experiment 'no'"):
        await store.glance("no")


@pytest.mark.parametrize("status", ["running", *ENDED])
async def test_a_glance_at_a_search_that_has_ended_shows_requests_among_late_reports(store, status):
    await made(store)
    ended = Commit((await store.load("e")).version, await batch(store), {"status": status})
    assert await store.commit("e", "a", ended)
    bodies: list[bytes] = []
    for n in range(2 * MOST_UNDECIDED + 2):
        bodies.append(b"%d" % n)
        await store.send("e", bodies[-1])
        seen = await store.glance("e")
        shown = [body for _, body in seen.undecided]
        oldest, others = bodies[:MOST_UNDECIDED], bodies[MOST_UNDECIDED:]
        assert shown == ([b""] if status == "running" else oldest + others[-MOST_UNDECIDED:])
        arrivals = [at_ms for at_ms, _ in seen.undecided]
        assert arrivals == sorted(arrivals)


@pytest.mark.parametrize("status", ["running", *ENDED])
async def test_a_glance_shows_only_the_beginning_of_a_long_message(store, status):
    await made(store)
    ended = Commit((await store.load("e")).version, await batch(store), {"status": status})
    assert await store.commit("e", "a", ended)
    short, long = b"s" * MAX_UNDECIDED, b"l" * (MAX_UNDECIDED + 1)
    await store.send("e", long)
    await store.send("e", short)
    shown = [body for _, body in (await store.glance("e")).undecided]
    assert shown == ([b""] if status == "running" else [long[:-1], short])


async def test_what_a_task_printed_is_kept_for_a_while(store):
    await made(store)
    first, second = Output("0-0", 1, "w", "hello\n"), Output("0-0", 2, "v", "x" * 9_000)
    for output in (first, Output("1-0", 1, "w", "other"), second):
        await store.write_output("e", output)
    await store.write_output("no", first)
    kept = await store.outputs("e", "0-0")
    assert kept == [first, replace(second, text="x" * 8_000)]
    assert await store.outputs("no", "0-0") == []
    await store.remove("e")
    assert await store.outputs("e", "0-0") == []
