"""When a worker takes a second lease, and what it reports then, in virtual time."""

import asyncio
from dataclasses import replace

import pytest

from romul_actors.errors import StoreUnavailableError
from romul_actors.protocol.messages import decode_event, decode_trial, encode
from romul_actors.store import Commit, Hold
from romul_actors.store.memory import MemoryStore
from romul_actors.waiting import cancel
from romul_sim.cluster.virtual_time import run
from romul_workers.trainer import Failure, Restored, Success, ignore
from romul_workers.worker.affinity import Affinity
from romul_workers.worker.overlap import LEAST_S, LOOK_S, TIMES, Overlap
from tests.trials import TRIAL
from tests.unit.test_worker import EXPERIMENT, StubTrainer, filled, worker

SLOW, FAST = 2 * LEAST_S, LEAST_S / 2
COLD = Restored(0.25, warm=False)


class StoringTrainer(StubTrainer):
    """Trains for a second, then stores for a given time; only one trial trains at a time."""

    def __init__(self, *store_s, room=True, endings=()):
        super().__init__(*endings)
        self.store_s = list(store_s)
        self.room = room
        self.trains = False
        self.asked = []

    async def train(self, experiment, trial, stores=ignore):
        assert not self.trains, "two trials in one process"
        self.trains = True
        self.at, self.output = None, f"of {trial.id}"
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.trains = False
        self.trained.append(trial.id)
        stores()
        await asyncio.sleep(self.store_s.pop(0))
        return self.endings.pop(0) if self.endings else Success(1.0, f"{trial.id}-1-a")

    def has_room(self):
        return self.room

    def ask_to_stop(self):
        self.asked.append(asyncio.get_running_loop().time())


class Noting(MemoryStore):
    """Records leases and reports with their times, and the maximum of concurrent leases."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        super().__init__(lambda: int(1000 * self.loop.time()))
        self.events = []
        self.said = []
        self.most = 0
        self.beats = []

    def _note(self, what, trial):
        self.events.append((what, trial, round(self.loop.time(), 2)))
        kinds = [event[0] for event in self.events]
        self.most = max(self.most, kinds.count("lease") - kinds.count("report"))

    async def lease(self, *args):
        found = await super().lease(*args)
        if found is not None:
            self._note("lease", decode_trial(found.body).id)
        return found

    async def settle(self, lease, slot, token, body, hold=None):
        self._note("report", token.partition("#")[0])
        self.said.append(hold)
        return await super().settle(lease, slot, token, body, hold)

    async def beat(self, lease, slot, trial, presence):
        self.beats.append((trial, round(self.loop.time(), 2), dict(presence)))
        return await super().beat(lease, slot, trial, presence)


def trials(n):
    return [replace(TRIAL, id=f"{slot}-0", slot=slot) for slot in range(n)]


def worked(*store_s, overlap=None, room=True, more=0, until=None, **settings):
    """Run a worker on trials with the given storing times; return the store and the trainer."""

    async def main():
        store = await filled(Noting(), *trials(len(store_s) + more))
        trainer = StoringTrainer(*store_s, room=room)
        working = worker(store, trainer, overlap=overlap, max_trials=len(store_s), **settings)
        if until is not None:
            at, do = until
            asyncio.get_running_loop().call_later(at, do, working)
        await working.run(asyncio.Event())
        return store, trainer

    return run(main())


def beside(store):
    """Trials that were leased before the previous one was reported."""
    found, open_ = [], 0
    for what, trial, _ in store.events:
        open_ += 1 if what == "lease" else -1
        if open_ == 2 and what == "lease":
            found.append(trial)
    return found


def test_it_begins_once_storing_is_slow_three_times_and_ends_with_the_first_that_is_not():
    store, _ = worked(*[SLOW] * 5, *[FAST] * 5)
    assert TIMES == 3
    # The fourth trial is the first that may be stored beside another, the fifth. The sixth is
    # stored fast: the seventh has begun by then, and is the last one.
    assert beside(store) == ["4-0", "5-0", "6-0", "7-0"]
    assert store.most == 2


def test_one_slow_flush_says_nothing():
    store, _ = worked(SLOW, SLOW, FAST, SLOW, SLOW, FAST)
    assert beside(store) == []


@pytest.mark.parametrize(("overlap", "found"), [(False, []), (True, ["1-0", "2-0", "3-0"])])
def test_an_operator_has_the_last_word(overlap, found):
    store, _ = worked(*[10 * SLOW if overlap is False else FAST] * 4, overlap=overlap)
    assert beside(store) == found


def test_without_it_every_call_is_as_before():
    store, _ = worked(3.0, 3.0, overlap=False)
    assert [event[:2] for event in store.events] == [
        (what, trial) for trial in ("0-0", "1-0") for what in ("lease", "report")
    ]
    assert all(set(seen) == {"state", "trial", "host", "pid"} for _, _, seen in store.beats)
    assert {seen["state"] for _, _, seen in store.beats} == {"training"}


def test_without_room_for_another_checkpoint_there_is_one_lease():
    store, _ = worked(*[SLOW] * 4, overlap=True, room=False)
    assert (beside(store), store.most) == ([], 1)


def test_there_is_no_third_lease_however_long_a_checkpoint_takes():
    store, _ = worked(10.0, 0.5, 0.5, 0.5, overlap=True)
    assert store.most == 2
    times = {(what, trial): at for what, trial, at in store.events}
    # The first takes until 11.0; the next one is trained, stored and reported meanwhile, and so on.
    assert times["report", "0-0"] == 11.0
    assert times["report", "1-0"] == 2.5
    assert times["lease", "2-0"] == 2.5
    # And two that are long: none is taken until one of them is done.
    store, _ = worked(10.0, 10.0, 0.5, overlap=True)
    times = {(what, trial): at for what, trial, at in store.events}
    assert (times["lease", "1-0"], times["lease", "2-0"]) == (1.0, 11.0)


def test_a_worker_with_a_number_of_trials_takes_no_more():
    store, trainer = worked(5.0, 5.0, overlap=True, more=3)
    assert trainer.trained == ["0-0", "1-0"]
    assert [event[0] for event in store.events].count("report") == 2


def test_each_lease_has_heartbeats_of_its_own_and_presence_shows_both():
    store, _ = worked(30.0, 30.0, overlap=True)
    assert {trial for trial, at, _ in store.beats if at > 12} == {"0-0", "1-0"}
    [seen] = [seen for trial, at, seen in store.beats if (trial, at) == ("1-0", 1.2)]
    assert (seen["state"], seen["trial"], seen["storing"]) == ("training", "1-0", "0-0")
    late = [seen for _, at, seen in store.beats if 12 < at < 31]
    assert {(seen["state"], seen["trial"], seen["storing"]) for seen in late} == {
        ("storing", "", "0-0 1-0")
    }


def test_without_the_broker_both_send_heartbeats_quickly():
    store, _ = worked(30.0, 30.0, overlap=True, until=(1.5, lambda w: setattr(w, "quick", True)))
    times = {
        t: [at for trial, at, _ in store.beats if trial == t and at < 2.4] for t in ("0-0", "1-0")
    }
    assert times == {"0-0": [0.2, 1.5, 1.9, 2.3], "1-0": [1.2, 1.5, 1.9, 2.3]}


def test_a_task_is_asked_to_stop_for_its_own_trial_alone():
    drain = lambda working: working.drain(grace_s=2.0)  # noqa: E731
    # Nothing trains, so there is no task to stop.
    store, trainer = worked(9.0, 9.0, overlap=True, until=(3.0, drain))
    assert trainer.asked == []
    # Both end with the grace period, and say why.
    assert [event for event in store.events if event[0] == "report"] == [
        ("report", "0-0", 5.0),
        ("report", "1-0", 5.0),
    ]
    store, trainer = worked(9.0, 9.0, overlap=True, until=(1.5, drain))
    assert trainer.asked == [1.5]


def test_an_announced_end_lets_a_checkpoint_arrive():
    """No other trial fits; a checkpoint may be stored until the end, not just for the grace."""
    announce = lambda working: working.announce(9.0)  # noqa: E731
    store, _ = worked(
        3.0, 3.0, overlap=True, more=4, grace_s=1.0, until=(1.5, announce), pace_s=0.2
    )
    inbox = [event for event in store.events if event[0] == "report"]
    assert inbox == [("report", "0-0", 4.0), ("report", "1-0", 5.0)]


def test_a_second_copy_of_the_trial_that_is_stored_ends_with_its_report():
    async def main():
        store = await filled(Noting(), TRIAL, replace(TRIAL, attempt=2))
        trainer = StoringTrainer(3.3, 30.0)
        await worker(store, trainer, overlap=True, max_trials=2).run(asyncio.Event())
        return store.events, await store.read(["e"], "a", 10, 0)

    events, inbox = run(main())
    assert [at for what, _, at in events if what == "report"] == [4.3, 4.3]
    assert b"outdated" in inbox[-1].body


def test_what_reports_say_of_memory_is_true_of_the_process():
    affinity = Affinity(0.5)
    first = affinity.leased()
    second = affinity.leased()
    # The process trains the second: it holds nothing of the first.
    assert affinity.after("e", Success(1.0, "a"), first) is None
    affinity.accepted("e", None, first)
    assert affinity.after("e", Success(1.0, "b"), second) == Hold("b", 500)
    affinity.accepted("e", Hold("b", 500), second)
    assert affinity.holding(["e"]) == ["e"]
    # A late report withdraws nothing.
    third = affinity.leased()
    fourth = affinity.leased()
    assert affinity.after("e", Success(1.0, "d", restored=COLD), fourth) == Hold(
        "d", 500, warm=False
    )
    assert affinity.after("e", Success(1.0, "c", restored=COLD), third) is None
    # One that comes before the later one's says that the process gave up what it held.
    fifth = affinity.leased()
    affinity.leased()
    assert affinity.after("e", Success(1.0, "x", restored=COLD), fifth) == Hold(warm=False)


def test_while_a_checkpoint_is_stored_its_worker_is_offered_nothing():
    """It gets its own next trial after its report, unless it has taken another one."""

    async def main():
        loop = asyncio.get_running_loop()
        store = await filled(Noting(), TRIAL)
        endings = [Success(1.0, name, restored=COLD) for name in ("0-0-1-a", "0-1-1-b", "0-2-1-c")]
        trainer = StoringTrainer(5.0, 5.0, 5.0, endings=endings)
        working = worker(store, trainer, overlap=True, max_trials=3)
        work = asyncio.create_task(working.run(asyncio.Event()))

        async def queue(at, step, parent):
            await asyncio.sleep(at - loop.time())
            trial = replace(TRIAL, id=f"0-{step}", step=step, parent=parent)
            stored = await store.load("e")
            commit = Commit(stored.version, [], trials=[encode(trial)], parents=[parent])
            return (await store.commit("e", "a", commit)).release_ms

        # It holds the first one's checkpoint and waits: its next trial is offered to it.
        offered = [await queue(6.5, 1, "0-0-1-a")]
        # It stores the second one's: what continues from the first is for all.
        offered.append(await queue(9.0, 2, "0-0-1-a"))
        await work
        return offered, store.events

    offered, events = run(main())
    assert offered == [250, None]
    assert ("lease", "0-1", 6.5) in events
    assert ("lease", "0-2", 9.0) in events


def test_a_trial_that_waits_for_its_decision_finds_its_worker_at_once():
    """A worker that waits for a second trial also receives the offer that follows its report."""

    class QuickActor(Noting):
        """Decides as soon as the report arrives."""

        async def settle(self, *args):
            done = await super().settle(*args)
            if len(self.said) < 4:
                step = len(self.said)
                parent = f"0-{step - 1}-1-a"
                trial = replace(TRIAL, id=f"0-{step}", step=step, parent=parent)
                stored = await self.load("e")
                await self.commit(
                    "e", "a", Commit(stored.version, [], trials=[encode(trial)], parents=[parent])
                )
            return done

    async def main():
        store = await filled(QuickActor(), TRIAL)
        endings = [Success(1.0, f"0-{step}-1-a", restored=COLD) for step in range(4)]
        trainer = StoringTrainer(*[3.05] * 4, endings=endings)
        await worker(store, trainer, overlap=True, max_trials=4).run(asyncio.Event())
        return store.events, await store.affinity("e")

    events, counts = run(main())
    reports = [at for what, _, at in events if what == "report"]
    leases = [at for what, _, at in events if what == "lease"]
    # At its first report the worker does not know yet how long a restore takes.
    assert reports[0] <= leases[1] <= reports[0] + LOOK_S
    assert leases[2:] == reports[1:3]
    assert (counts.offers, counts.released) == (3, 0)
    assert counts.waited_ms == round(1000 * (leases[1] - reports[0]))


def test_an_error_of_the_store_beside_the_loop_is_met_as_one_in_it():
    class OnceSilent(Noting):
        """Does not answer the first request for the number of results."""

        asked = 0

        async def reported(self, name):
            self.asked += 1
            if self.asked == 1:
                raise StoreUnavailableError("no answer")
            return await super().reported(name)

    async def main():
        store = await filled(OnceSilent(), *trials(3))
        endings = [Failure("storage", "x"), Failure("storage", "y"), Success(1.0, "0-2-1-c")]
        trainer = StoringTrainer(*[3.0] * 3, endings=endings)
        await worker(store, trainer, overlap=True, max_trials=3).run(asyncio.Event())
        events = [decode_event(entry.body) for entry in await store.read(["e"], "a", 10, 0)]
        return store.asked, [event.type for event in events]

    assert run(main()) == (2, ["submitted", "failed", "failed", "result"])


def test_a_worker_that_breaks_leaves_nothing_running():
    async def main():
        store = await filled(Noting(), *trials(2))
        trainer = StoringTrainer(30.0, 30.0)
        work = asyncio.create_task(worker(store, trainer, overlap=True).run(asyncio.Event()))
        await asyncio.sleep(1.5)
        await cancel(work)
        return store.events, len(asyncio.all_tasks())

    events, tasks = run(main())
    assert [event[:2] for event in events] == [("lease", "0-0"), ("lease", "1-0")]
    assert tasks == 1


def test_rules_are_of_each_experiment():
    overlap = Overlap(None)
    for _ in range(TIMES):
        overlap.took(EXPERIMENT.name, LEAST_S)
        overlap.took("other", None)
    assert (overlap.pays(EXPERIMENT.name), overlap.pays("other")) == (True, False)
    overlap.forget(EXPERIMENT.name)
    assert not overlap.pays(EXPERIMENT.name)
