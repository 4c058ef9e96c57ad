"""What a worker reports about its memory, and which trials it is offered, in virtual time."""

import asyncio
from dataclasses import replace

import pytest

from romul_actors.protocol.messages import encode
from romul_actors.store import AffinityCounts, Commit, Hold
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster.virtual_time import run
from romul_workers.trainer import Failure, Restored, Success
from romul_workers.worker.affinity import LONGEST_S, Affinity
from tests.trials import TRIAL
from tests.unit.test_worker import StubTrainer, filled, worker

COLD, WARM = Restored(0.25, warm=False), Restored(0.001, warm=True)


def said(affinity, ending):
    """What a worker sends with the report of its next trial."""
    return affinity.after("e", ending, affinity.leased())


def test_a_trial_waits_no_longer_than_the_latest_restore_from_files_took():
    affinity = Affinity(None)
    assert said(affinity, Success(1.0, "a")) is None
    assert said(affinity, Success(1.0, "b", restored=WARM)) is None
    assert said(affinity, Success(1.0, "c", restored=COLD)) == Hold("c", 250, warm=False)
    assert said(affinity, Success(1.0, "d", restored=WARM)) == Hold("d", 250, warm=True)
    slow = Success(1.0, "e", restored=Restored(60.0, warm=False))
    assert said(affinity, slow) == Hold("e", int(1000 * LONGEST_S), warm=False)
    assert said(affinity, Failure("killed", "")) == Hold()


def test_a_restore_of_an_instant_is_worth_no_claim():
    instant = Success(1.0, "a", restored=Restored(0.001, warm=False))
    assert said(Affinity(None), instant) is None


def test_what_is_held_is_used_or_given_up_with_the_next_trial():
    affinity = Affinity(0.5)
    hold = said(affinity, Success(1.0, "a"))
    assert hold == Hold("a", 500)
    affinity.accepted("e", hold, 1)
    assert affinity.holding(["d", "e"]) == ["e"]
    affinity.leased()
    assert affinity.holding(["d", "e"]) == []


def test_a_worker_without_affinity_says_nothing():
    affinity = Affinity(0.0)
    assert said(affinity, Success(1.0, "a", restored=COLD)) is None
    affinity.accepted("e", None, 1)
    assert affinity.holding(["e"]) == []


class Recording(MemoryStore):
    """Records each lease and report."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        super().__init__(lambda: int(1000 * loop.time()))
        self.calls = []

    async def lease(self, names, worker, block_ms, holding=()):
        found = await super().lease(names, worker, block_ms, holding)
        self.calls.append(("lease", worker, tuple(holding), found and found.body))
        return found

    async def settle(self, *args):
        self.calls.append(("settle", args[5] if len(args) > 5 else None))
        return await super().settle(*args)


async def queue(store, trial):
    stored = await store.load("e")
    commit = Commit(stored.version, [], trials=[encode(trial)], parents=[trial.parent or ""])
    await store.commit("e", "a", commit)


NEXT = replace(TRIAL, id="0-1", step=1, parent="0-0-1-a", start=1.0, stop=2.0)


@pytest.mark.parametrize("affinity_s", [None, 0.5])
def test_the_next_trial_goes_to_the_worker_whose_process_holds_its_parent(affinity_s):
    async def main():
        store, stop = await filled(Recording(), TRIAL), asyncio.Event()
        ours = StubTrainer(
            Success(1.0, "0-0-1-a", restored=COLD), Success(1.0, "0-1-1-b", restored=WARM)
        )
        other = StubTrainer(Success(1.0, "0-1-1-c"))
        working = asyncio.create_task(worker(store, ours, affinity_s=affinity_s).run(stop))
        await asyncio.sleep(2.0)
        # It waited first: the shared queue would serve it first.
        idle = worker(store, other)
        idle._settings = replace(idle._settings, name="other")
        waiting = asyncio.create_task(idle.run(stop))
        await asyncio.sleep(3.3)
        await queue(store, NEXT)
        await asyncio.sleep(3.0)
        stop.set()
        await asyncio.gather(working, waiting)
        return len(ours.trained), len(other.trained), await store.affinity("e")

    trained, others, counts = run(main())
    assert (trained, others) == (2, 0)
    assert counts == AffinityCounts(restores=2, warm=1, offers=1, released=0, waited_ms=0)


def test_without_affinity_every_call_is_as_before():
    async def main():
        store, stop = await filled(Recording(), TRIAL), asyncio.Event()
        ours = StubTrainer(Success(1.0, "0-0-1-a", restored=COLD), Success(1.0, "0-1-1-b"))
        working = asyncio.create_task(worker(store, ours, affinity_s=0.0).run(stop))
        await asyncio.sleep(2.0)
        await queue(store, NEXT)
        await asyncio.sleep(3.0)
        stop.set()
        await working
        return store.calls, await store.affinity("e")

    calls, counts = run(main())
    assert counts == AffinityCounts()
    assert all(call[1] is None for call in calls if call[0] == "settle")
    assert all(call[2] == () for call in calls if call[0] == "lease")
    assert [call[3] is not None for call in calls if call[0] == "lease"].count(True) == 2


def test_a_worker_that_ends_leaves_its_offer_to_all():
    class QuickActor(Recording):
        """Decides as soon as the report arrives."""

        async def settle(self, *args):
            done = await super().settle(*args)
            await queue(self, NEXT)
            return done

    async def main():
        store = await filled(QuickActor(), TRIAL)
        ours = StubTrainer(Success(1.0, "0-0-1-a", restored=COLD))
        await worker(store, ours, max_trials=1).run(asyncio.Event())
        return await store.lease(["e"], "other", 0), await store.affinity("e")

    lease, counts = run(main())
    assert lease.body == encode(NEXT)
    assert (counts.offers, counts.released, counts.waited_ms) == (1, 1, 0)
