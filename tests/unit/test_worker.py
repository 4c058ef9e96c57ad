"""The worker alone, with a store that fails at the worst moment, in virtual time."""

import asyncio
import itertools
from dataclasses import replace

import msgpack
from aiomqtt import MqttError

from romul_actors.core.events import Released, Submitted
from romul_actors.errors import CheckpointError, StoreUnavailableError
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.connection import MqttConnection
from romul_actors.protocol.messages import VERSION, decode_event, encode
from romul_actors.store import Commit
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster.virtual_time import run
from romul_workers.trainer import Failure, NoRoom, Outage, Stopped, Success, Trainer, ignore
from romul_workers.worker.admission import LEFT_S
from romul_workers.worker.loop import Worker
from romul_workers.worker.outages import FREE_S, Outages
from romul_workers.worker.settings import WorkerSettings
from romul_workers.worker.shutdown import LAST_S
from tests.trials import TRIAL, declare

EXPERIMENT = declare(task="simulated")


class StubTrainer(Trainer):
    """Ends each trial with the given ending, after a number of seconds."""

    def __init__(self, *endings, seconds=1.0):
        self.endings = list(endings)
        self.seconds = seconds
        self.discarded = []
        self.trained = []

    async def train(self, experiment, trial, stores=ignore):
        self.trained.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return self.endings.pop(0)

    def ask_to_stop(self):
        return None

    async def discard(self, experiment, checkpoint):
        self.discarded.append(checkpoint)

    async def close(self):
        return None


class DeafStore(MemoryStore):
    """Reports arrive or not; the answers never do."""

    def __init__(self, arrives):
        loop = asyncio.get_running_loop()
        super().__init__(lambda: int(1000 * loop.time()))
        self.arrives = arrives

    async def settle(self, *args):
        if self.arrives:
            await super().settle(*args)
        raise StoreUnavailableError("no answer")


async def filled(store, *trials, name="e"):
    experiment = EXPERIMENT.model_copy(update={"name": name})
    await store.create(name, experiment.model_dump_json(), encode(Submitted()))
    stored = await store.load(name)
    bodies = [encode(trial) for trial in trials]
    await store.commit(name, "a", Commit(stored.version, [], {"status": "running"}, trials=bodies))
    return store


def worker(store, trainer, **settings):
    made = WorkerSettings(name="w", allow=("simulated",), host="h", pid=1, **settings)
    return Worker(store, trainer, made)


def test_a_checkpoint_whose_report_may_have_arrived_is_never_removed():
    async def main(arrives):
        store = await filled(DeafStore(arrives), TRIAL)
        trainer, stop = StubTrainer(Success(1.0, "0-0-1-a")), asyncio.Event()
        working = asyncio.create_task(worker(store, trainer, grace_s=2.0).run(stop))
        await asyncio.sleep(1.5)
        stop.set()
        await working
        return trainer.discarded, (await store.depths("e"))["inbox"]

    assert run(main(arrives=True)) == ([], 2)
    assert run(main(arrives=False)) == ([], 1)


def test_a_refusal_after_a_silence_leaves_the_checkpoint_of_a_report_that_may_have_arrived():
    class OnceDeafStore(DeafStore):
        """The first report arrives but is not answered; then the slot continues before the next."""

        async def settle(self, lease, *args):
            if self.arrives:
                self.arrives = False
                await MemoryStore.settle(self, lease, *args)
                self.memory.experiments["e"].settled[0] = "0-1#1 result by another"
                raise StoreUnavailableError("no answer")
            return await MemoryStore.settle(self, lease, *args)

    async def main():
        store, trainer, stop = (
            OnceDeafStore(arrives=True),
            StubTrainer(Success(0.5, "0-0-1-c")),
            asyncio.Event(),
        )
        await filled(store, TRIAL)
        work = asyncio.create_task(worker(store, trainer).run(stop))
        await asyncio.sleep(10.0)
        stop.set()
        await work
        return trainer.discarded, await store.depths("e")

    discarded, depths = run(main())
    assert (discarded, depths["inbox"]) == ([], 2)


def test_a_report_that_came_too_late_takes_its_checkpoint_along():
    async def main():
        loop = asyncio.get_running_loop()
        store = await filled(MemoryStore(lambda: int(1000 * loop.time())), TRIAL)
        trainer, stop = StubTrainer(Success(1.0, "0-0-1-a"), seconds=0.15), asyncio.Event()
        working = asyncio.create_task(worker(store, trainer).run(stop))
        # Before its first heartbeat, which would tell it.
        await asyncio.sleep(0.1)
        [(lease, _)] = await store.sweep("e", "a", 0, 10)
        await store.settle(lease, 0, "0-0#1 expired", b"expired")
        await asyncio.sleep(1)
        stop.set()
        await working
        return trainer.discarded

    assert run(main()) == ["0-0-1-a"]


class TimedStore(MemoryStore):
    """Records the times of heartbeats."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        super().__init__(lambda: int(1000 * self.loop.time()))
        self.beats = []

    async def beat(self, *args):
        self.beats.append(round(self.loop.time(), 3))
        return await super().beat(*args)


def test_a_worker_that_loses_the_broker_sends_a_heartbeat_at_once():
    async def main():
        store = await filled(TimedStore(), TRIAL)
        working = worker(store, StubTrainer(Success(1.0, "0-0-1-c"), seconds=8.0), max_trials=1)
        work = asyncio.create_task(working.run(asyncio.Event()))
        await asyncio.sleep(5.0)
        working.quick = True
        await asyncio.sleep(1.0)
        working.quick = False
        await work
        return store.beats

    # The lease is of 30 s: without the broker's news the second heartbeat is due at 10.2.
    assert run(main()) == [0.2, 5.0, 5.4, 5.8, 6.0]


def test_a_worker_that_was_taken_for_dead_learns_of_it_when_its_connection_is_back():
    async def main():
        store = await filled(TimedStore(), TRIAL)
        trainer = StubTrainer(Success(1.0, "0-0-1-c"), Success(1.0, "0-0-1-c"), seconds=8.0)
        working, stop = worker(store, trainer), asyncio.Event()
        work = asyncio.create_task(working.run(stop))
        working.quick = True
        await asyncio.sleep(0.3)
        await store.sweep("e", "a", 0, 10)
        await asyncio.sleep(0.05)
        states = [working.state]
        working.quick = False
        await asyncio.sleep(0.05)
        states.append(working.state)
        stop.set()
        await work
        return states, trainer.discarded

    assert run(main()) == (["training", "idle"], [])


def test_a_broker_that_refuses_slowly_is_tried_less_and_less_often():
    class Refused(MqttConnection):
        async def _serve_once(self, farewell):
            began.append(asyncio.get_running_loop().time())
            await asyncio.sleep(5.0)
            raise MqttError("no answer")

    async def received(_):
        raise AssertionError

    async def main():
        link = asyncio.create_task(Refused(Broker("h", 1), "w", [], received).run())
        await asyncio.sleep(60.0)
        link.cancel()

    began: list[float] = []
    run(main())
    pauses = [round(later - earlier - 5.0, 1) for earlier, later in itertools.pairwise(began)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_without_room_a_worker_waits_longer_each_time():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, *[TRIAL] * 4)
        trainer = StubTrainer(*[NoRoom("full")] * 3, Success(1.0, "0-0-1-a"), seconds=0.0)
        working = worker(store, trainer, max_trials=4)
        await working.run(asyncio.Event())
        bodies = [entry.body for entry in await store.read(["e"], "a", 10, 0)]
        return trainer.trained, sum(b"no_room" in body for body in bodies)

    times, released = run(main())
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert (waits, released) == ([1, 2, 4], 3)


def test_without_room_for_one_search_a_worker_trains_the_trials_of_another():
    class OneFull(StubTrainer):
        async def train(self, experiment, trial, stores=ignore):
            self.trained.append((experiment.name, round(asyncio.get_running_loop().time())))
            return NoRoom("full") if experiment.name == "e" else Success(1.0, "0-0-1-a")

    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, TRIAL, TRIAL)
        await filled(store, TRIAL, TRIAL, TRIAL, name="f")
        trainer, began = OneFull(), loop.time()
        working = worker(store, trainer, max_trials=5)
        await working.run(asyncio.Event())
        return [(name, at - round(began)) for name, at in trainer.trained]

    trained = run(main())
    assert sorted(trained) == [("e", 0), ("e", 1), ("f", 0), ("f", 0), ("f", 0)]


def outages(*endings, trials=None, results=0):
    """Run a worker while the storage is unavailable; return training times, reports and states.

    Args:
        endings: how its trials end.
        trials: the queued trials; default: the same trial again and again.
        results: how many results of other workers arrive between two counts.
    """

    class Elsewhere(MemoryStore):
        looks = 0

        async def reported(self, name):
            self.looks += 1
            return results * self.looks

    async def main():
        loop = asyncio.get_running_loop()
        store = Elsewhere(lambda: int(1000 * loop.time()))
        await filled(store, *(trials or [TRIAL] * len(endings)))
        trainer = StubTrainer(*endings, seconds=0.0)
        working = worker(store, trainer, max_trials=len(endings), pace_s=0.1)
        work = asyncio.create_task(working.run(asyncio.Event()))
        states = set()
        while not work.done():
            states.add(working.state)
            await asyncio.sleep(0.1)
        bodies = [entry.body for entry in await store.read(["e"], "a", 99, 0)]
        return trainer.trained, [decode_event(body) for body in bodies][1:], states

    return run(main())


AWAY = Outage("the storage 's3://c' refuses")


def test_an_outage_of_the_storage_costs_no_attempt_and_is_waited_out_longer_each_time():
    fine = Success(1.0, "0-0-1-a")
    times, reports, states = outages(*[AWAY] * 8, fine, AWAY)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 0]
    assert {type(report) for report in reports[:8]} == {Released}
    assert (reports[0].reason, reports[0].message) == ("no_room", AWAY.message)
    assert reports[8].type == "result"
    assert states == {"idle", "no storage"}


def test_an_outage_that_lasts_without_any_result_counts_in_the_end():
    many = [replace(TRIAL, id=f"{n}-0", slot=n) for n in range(30)]
    times, reports, _ = outages(*[AWAY] * 30, trials=many)
    failed = [at for at, report in zip(times, reports, strict=True) if report.type == "failed"]
    assert failed == [at for at in times if at - times[0] >= FREE_S]
    assert 5 < len(failed) < 25
    assert "'s3://c' refuses (for 15 minutes at least)" in reports[-len(failed)].message


def test_where_others_have_results_only_a_trial_that_meets_it_again_and_again_is_at_fault():
    many = [replace(TRIAL, id=f"{n}-0", slot=n) for n in range(30)]
    _, reports, _ = outages(*[AWAY] * 30, trials=many, results=1)
    assert {report.type for report in reports} == {"released"}
    _, reports, _ = outages(*[AWAY] * 30, results=1)
    assert {report.type for report in reports[-5:]} == {"failed"}


def judged(*endings):
    """The reports of attempts that take an hour each, one after another without a pause.

    Args:
        endings: trials, and how they end.
    """

    async def main():
        loop = asyncio.get_running_loop()
        met = Outages(await filled(MemoryStore(lambda: int(1000 * loop.time()))))
        reported = []
        for trial, ending in endings:
            await asyncio.sleep(3600.0)
            reported.append(await met.judge("e", trial, ending, 3600.0))
        return reported

    return run(main())


def test_outages_of_an_instant_that_are_hours_apart_are_none_that_lasted():
    fine = Success(1.0, "0-0-1-a")
    assert (
        judged(("0-1", AWAY), *[(f"{n}-1", fine) for n in range(1, 9)], ("0-1", AWAY))[-1] == AWAY
    )
    assert judged(("0-1", AWAY), ("1-1", AWAY)) == [AWAY, AWAY]
    assert judged(("0-1", AWAY), ("1-1", AWAY), ("2-1", fine), *[("3-1", AWAY)] * 3)[-1] == AWAY


def test_outages_in_a_row_cost_attempts_however_long_trials_take():
    kinds = [type(ending) for ending in judged(*[(f"{n}-1", AWAY) for n in range(5)])]
    assert kinds == [Outage, Outage, Outage, Failure, Failure]


def begun_with(seconds, *endings):
    """When a worker begins trials of this duration, and the states that it announces."""

    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, *(replace(TRIAL, id=f"{n}-0", slot=n) for n in range(len(endings))))
        trainer = StubTrainer(*endings, seconds=seconds)
        working = worker(store, trainer, max_trials=len(endings), pace_s=0.1)
        work = asyncio.create_task(working.run(asyncio.Event()))
        shown: list[str | None] = []
        while not work.done():
            await asyncio.sleep(1.0)
            state = (await store.workers("e")).get("w", {}).get("state")
            shown += [state] if shown[-1:] != [state] else []
        return [round(at) for at in trainer.trained], shown

    return run(main())


def test_a_worker_that_can_read_and_not_write_trains_in_vain_for_half_of_its_time():
    assert begun_with(100.0, *[AWAY] * 4)[0] == [0, 101, 301, 501]
    # A pause longer than an hour is useless.
    assert begun_with(5000.0, *[AWAY] * 3)[0] == [0, 5001, 13601]


def test_that_a_storage_is_away_is_shown_until_a_checkpoint_is_stored():
    _, shown = begun_with(100.0, AWAY, AWAY, FINE, FINE)
    assert shown == ["training", "no storage", "training", None]


def test_an_outage_of_one_experiments_storage_holds_up_no_other():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, *[TRIAL] * 2)
        await filled(store, *(replace(TRIAL, id=f"{n}-0", slot=n) for n in range(3)), name="f")

        class Elsewhere(StubTrainer):
            async def train(self, experiment, trial, stores=ignore):
                self.trained.append((experiment.name, round(loop.time())))
                return AWAY if experiment.name == "e" else Success(1.0, "0-0-1-a")

        trainer = Elsewhere()
        await worker(store, trainer, max_trials=5, pace_s=0.1).run(asyncio.Event())
        return trainer.trained

    trained = run(main())
    assert [at for name, at in trained if name == "e"] == [0, 1]
    assert [at for name, at in trained if name == "f"] == [0, 0, 0]


def test_a_worker_that_gets_no_more_trials_after_an_outage_is_idle():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, TRIAL)
        stop, shown = asyncio.Event(), []
        work = asyncio.create_task(worker(store, StubTrainer(AWAY), pace_s=0.1).run(stop))
        await asyncio.sleep(1.5)
        for _ in range(2):
            shown.append((await store.workers("e"))["w"]["state"])
            await asyncio.sleep(5.0)
        stop.set()
        await work
        return shown

    assert run(main()) == ["no storage", "idle"]


def test_only_an_experiment_whose_own_trials_are_at_fault_is_told_so():
    class Elsewhere(MemoryStore):
        looks = 0

        async def reported(self, name):
            self.looks += 1
            return self.looks

    class Mixed(StubTrainer):
        async def train(self, experiment, trial, stores=ignore):
            return AWAY if experiment.name == "e" else BROKEN

    async def main():
        loop = asyncio.get_running_loop()
        store = Elsewhere(lambda: int(1000 * loop.time()))
        await filled(store, TRIAL)
        await filled(store, *[TRIAL] * 3, name="f")
        await filled(store, name="g")
        stop = asyncio.Event()
        work = asyncio.create_task(worker(store, Mixed(), pace_s=0.1).run(stop))
        await asyncio.sleep(0.5)
        states = {name: (await store.workers(name))["w"]["state"] for name in "efg"}
        stop.set()
        await work
        return states

    assert run(main()) == {"e": "no storage", "f": "failing", "g": "idle"}


def pauses_after(*endings, elsewhere=0, counts=()):
    """The pauses between trials, and whether the worker was failing.

    Args:
        endings: how this worker's trials end.
        elsewhere: how many trials of other workers succeed between two counts of results.
        counts: the number of results at each count; the last number stays.
    """

    class Elsewhere(MemoryStore):
        looks = 0

        async def reported(self, name):
            self.looks += 1
            return counts[min(self.looks, len(counts)) - 1] if counts else elsewhere * self.looks

    async def main():
        loop = asyncio.get_running_loop()
        store = Elsewhere(lambda: int(1000 * loop.time()))
        await filled(store, *[TRIAL] * len(endings))
        trainer = StubTrainer(*endings, seconds=0.0)
        working = worker(store, trainer, max_trials=len(endings), pace_s=0.1)
        work = asyncio.create_task(working.run(asyncio.Event()))
        states = set()
        while not work.done():
            states.add(working.state)
            await asyncio.sleep(0.1)
        return trainer.trained, states

    times, states = run(main())
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    return pauses, "failing" in states


BROKEN, DIVERGED, FINE = Failure("task", "x"), Failure("not_finite", "x"), Success(1.0, "0-0-1-a")


def test_where_everything_fails_that_succeeds_elsewhere_a_worker_takes_less_and_less():
    endings = [BROKEN] * 6 + [FINE] + [BROKEN] * 4
    assert pauses_after(*endings, elsewhere=1) == ([0, 0, 1, 2, 4, 8, 0, 0, 0, 1], True)


def test_what_fails_everywhere_or_for_its_hyperparameters_is_not_the_machines_fault():
    assert pauses_after(*[BROKEN] * 6, elsewhere=0) == ([0] * 5, False)
    assert pauses_after(*[DIVERGED] * 6, elsewhere=1) == ([0] * 5, False)
    assert pauses_after(*[BROKEN, BROKEN, FINE] * 3, elsewhere=1) == ([0] * 8, False)


def test_own_results_that_are_counted_late_are_no_success_elsewhere():
    lost = Failure("lost_parent", "x")
    # Two results of this worker are counted after the first of the failures that follow them.
    endings = [FINE, FINE, *[lost] * 5]
    assert pauses_after(*endings, counts=(0, 1, 2)) == ([0] * 6, False)
    # A third one is another worker's: its machine can read what this one cannot.
    assert pauses_after(*endings, counts=(0, 2, 3)) == ([0, 0, 0, 0, 1, 2], True)


def test_what_is_counted_again_after_a_server_came_back_with_older_data_is_no_success_elsewhere():
    lost = Failure("lost_parent", "x")
    assert pauses_after(*[lost] * 7, counts=(40, 30)) == ([0] * 6, False)


def test_a_task_is_asked_to_stop_at_once_though_a_heartbeat_hangs():
    class Hanging(MemoryStore):
        async def beat(self, *args):
            await asyncio.sleep(8.0)
            return await super().beat(*args)

    class Pausing(StubTrainer):
        async def train(self, experiment, trial, stores=ignore):
            self.asked_s = asyncio.get_running_loop().create_future()
            await self.asked_s
            return Stopped("0-0-1-a", 0.5, "half of it")

        def ask_to_stop(self):
            self.asked_s.set_result(asyncio.get_running_loop().time())

    async def main():
        loop = asyncio.get_running_loop()
        store = await filled(Hanging(lambda: int(1000 * loop.time())), TRIAL)
        trainer, stop = Pausing(), asyncio.Event()
        loop.call_later(2.0, stop.set)
        await worker(store, trainer, grace_s=7.0).run(stop)
        [_, entry] = await store.read(["e"], "a", 10, 0)
        return decode_event(entry.body), await trainer.asked_s

    event, asked_s = run(main())
    assert isinstance(event, Released)
    assert (event.reason, event.checkpoint, event.at) == ("preempted", "0-0-1-a", 0.5)
    assert event.message == "half of it"
    # The heartbeat is under way from 0.2 s to 8.2 s.
    assert asked_s == 2.0


def test_what_changes_while_a_heartbeat_is_under_way_is_looked_at_right_after_it():
    class Slow(MemoryStore):
        def __init__(self, *args):
            super().__init__(*args)
            self.begun_s = []

        async def beat(self, *args):
            self.begun_s.append(round(asyncio.get_running_loop().time(), 1))
            await asyncio.sleep(2.0)
            return await super().beat(*args)

    async def main():
        loop = asyncio.get_running_loop()
        store = await filled(Slow(lambda: int(1000 * loop.time())), TRIAL)
        working = worker(store, StubTrainer(Success(1.0, "0-0-1-a"), seconds=3.0), max_trials=1)
        loop.call_later(1.0, lambda: setattr(working, "quick", True))
        await working.run(asyncio.Event())
        return store.begun_s

    assert run(main()) == [0.2, 2.2]


def test_after_a_notice_only_what_can_be_finished_is_taken():
    async def main(seconds):
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, *(replace(TRIAL, id=f"{n}-0", slot=n) for n in range(9)))
        trainer = StubTrainer(*[Success(1.0, "0-0-1-a")] * 9, seconds=seconds)
        working = worker(store, trainer, grace_s=1.0)
        loop.call_later(1.5, working.announce, 9.0)
        await working.run(asyncio.Event())
        return len(trainer.trained), round(loop.time())

    # The end is at 10.5, and before it are three seconds for reports and the grace period: trials
    # of 1 s fit five more times.
    assert run(main(1.0)) == (6, 6)
    # A trial of unknown duration is not started.
    assert run(main(4.0)) == (1, 4)


def given_back_after(*events, grace_s=20.0):
    """When and why a trial is released whose task ignores requests to stop.

    Args:
        events: times, and what is done with the worker then.
        grace_s: grace period of the worker, in seconds.
    """

    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, TRIAL)
        deaf = StubTrainer(Success(1.0, "0-0-1-a"), seconds=500.0)
        working = worker(store, deaf, grace_s=grace_s)
        for at, event in events:
            loop.call_later(at, event, working)
        await working.run(asyncio.Event())
        [_, entry] = await store.read(["e"], "a", 10, 0)
        return round(loop.time()), decode_event(entry.body)

    ended_s, event = run(main())
    assert isinstance(event, Released)
    return ended_s, event.reason


def notice(seconds):
    return lambda working: working.announce(seconds)


def test_a_notice_that_is_shorter_than_the_grace_period_shortens_it():
    # Each leaves three seconds for the report.
    assert given_back_after((10.0, notice(6.0))) == (13, "preempted")
    assert given_back_after((10.0, notice(20.0))) == (27, "preempted")
    assert given_back_after((10.0, notice(2.0))) == (10, "preempted")


def test_a_notice_that_is_longer_than_the_grace_period_leaves_seconds_for_reports_too():
    for seconds in (12.0, 13.0, 20.0, 120.0):
        ended_s = 10 + seconds - LAST_S
        assert given_back_after((10.0, notice(seconds)), grace_s=10.0) == (ended_s, "preempted")


def test_a_notice_shortens_the_grace_period_of_an_end_that_has_begun():
    drained = lambda working: working.drain("drained")  # noqa: E731
    assert given_back_after((10.0, drained), (12.0, notice(6.0))) == (15, "drained")
    # A longer one does not extend it, neither at once nor later.
    assert given_back_after((10.0, notice(6.0)), (11.0, notice(60.0))) == (13, "preempted")
    assert given_back_after((10.0, notice(25.0)), (11.0, notice(9.0))) == (17, "preempted")


def test_a_stop_after_a_drain_shortens_the_grace_period():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, TRIAL)
        working = worker(store, StubTrainer(Success(1.0, "0-0-1-a"), seconds=50.0), grace_s=40.0)
        loop.call_later(1.0, working.drain, "drained")
        loop.call_later(3.0, working.drain, "drained", 0.0)
        await working.run(asyncio.Event())
        [_, entry] = await store.read(["e"], "a", 10, 0)
        return decode_event(entry.body), round(loop.time())

    event, ended_s = run(main())
    assert isinstance(event, Released)
    assert (event.reason, ended_s) == ("drained", 3)


def test_a_checkpoint_that_cannot_be_removed_stays_listed_as_garbage():
    class Refusing(StubTrainer):
        async def discard(self, experiment, checkpoint):
            if checkpoint == "0-1-1-a":
                raise CheckpointError("the storage is away")
            await super().discard(experiment, checkpoint)

    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store)
        stored = await store.load("e")
        garbage = ["0-0-1-a", "0-1-1-a", "0-2-1-a"]
        await store.commit("e", "a", Commit(stored.version, [], {}, garbage=garbage))
        trainer, stop = Refusing(), asyncio.Event()
        loop.call_later(3.0, stop.set)
        await worker(store, trainer, garbage_ms=0).run(stop)
        return trainer.discarded, await store.garbage("e", 0, 9)

    assert run(main()) == (["0-0-1-a", "0-2-1-a"], ["0-1-1-a"])


def test_what_is_left_out_of_results_is_warned_of_once(caplog):
    class Printing(StubTrainer):
        output = "10 %"

    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, TRIAL, replace(TRIAL, id="1-0", slot=1))
        odd = {"note": "str", "nan": "nan"}
        endings = [
            Success(1.0, "0-0-1-a", left_out=odd),
            Success(1.0, "1-0-1-b", {"n": 1.0}, left_out=odd),
        ]
        await worker(store, Printing(*endings), max_trials=2).run(asyncio.Event())
        inbox = await store.read(["e"], "a", 10, 0)
        outputs = [(await store.outputs("e", name))[0].text for name in ("0-0", "1-0")]
        return [decode_event(entry.body) for entry in inbox], outputs

    events, outputs = run(main())
    results = [event for event in events if event.type == "result"]
    assert [result.left_out for result in results] == [{"note": "str", "nan": "nan"}, {}]
    assert [result.metrics for result in results] == [{}, {"n": 1.0}]
    [line] = [text for text in caplog.messages if "left out" in text]
    assert "e: left out of results: 'note' (str), 'nan' (nan)" in line
    assert outputs[0].startswith("10 %\nromul: warning: left out of results: 'note' (str)")
    assert outputs[1] == "10 %"


def test_where_results_come_from_is_sent_when_it_changes():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        await filled(store, *(replace(TRIAL, id=f"{n}-0", slot=n) for n in range(4)))
        one, two = {"commit": "a"}, {"commit": "b"}
        endings = [
            Success(1.0, f"{n}-0-1", provenance=p) for n, p in enumerate((one, one, two, two))
        ]
        await worker(store, StubTrainer(*endings), max_trials=4).run(asyncio.Event())
        inbox = await store.read(["e"], "a", 10, 0)
        events = [decode_event(entry.body) for entry in inbox]
        return [(event.provenance, event.seconds) for event in events if event.type == "result"]

    found = run(main())
    assert [provenance for provenance, _ in found] == [{"commit": "a"}, {}, {"commit": "b"}, {}]
    assert [seconds for _, seconds in found] == [1.0] * 4


def test_a_result_that_cannot_be_sent_fails_and_leaves_no_checkpoint():
    async def main():
        store = MemoryStore(lambda: int(1000 * asyncio.get_running_loop().time()))
        await filled(store, TRIAL)
        half = chr(0xD800)
        trainer, stop = StubTrainer(Success(1.0, "0-0-1-a", {half: 1.0})), asyncio.Event()
        working = asyncio.create_task(worker(store, trainer).run(stop))
        await asyncio.sleep(5.0)
        stop.set()
        await working
        events = [decode_event(entry.body) for entry in await store.read(["e"], "a", 10, 0)]
        return trainer.discarded, events[1:]

    discarded, [report] = run(main())
    assert discarded == ["0-0-1-a"]
    assert (report.type, report.reason, report.seconds) == ("failed", "bad_result", 1.0)
    assert "cannot be sent" in report.message


def test_what_a_result_that_cannot_be_sent_left_out_is_said_with_the_next():
    async def main():
        store = MemoryStore(lambda: int(1000 * asyncio.get_running_loop().time()))
        await filled(store, *(replace(TRIAL, id=f"{n}-0", slot=n) for n in range(3)))
        odd = {"note": "str"}
        unsendable = Success(1.0, "0-0-1-a", {chr(0xD800): 1.0}, left_out=odd)
        fine = [Success(1.0, f"{n}-0-1-a", left_out=odd) for n in (1, 2)]
        await worker(store, StubTrainer(unsendable, *fine), max_trials=3).run(asyncio.Event())
        events = [decode_event(entry.body) for entry in await store.read(["e"], "a", 10, 0)]
        return [event.left_out for event in events if event.type == "result"]

    assert run(main()) == [{"note": "str"}, {}]


def test_a_task_module_that_came_under_an_admitted_name_is_not_trained():
    other = declare(task="elsewhere").model_dump_json()

    async def main(text):
        store = MemoryStore(lambda: int(1000 * asyncio.get_running_loop().time()))
        await filled(store)
        trainer, stop = StubTrainer(), asyncio.Event()
        made = worker(store, trainer)
        working = asyncio.create_task(made.run(stop))
        await asyncio.sleep(0.1)
        # Before the worker reads the list of experiments again, which looks the same then.
        await store.remove("e")
        await store.create("e", text, encode(Submitted()))
        stored = await store.load("e")
        await store.commit(
            "e",
            "a",
            Commit(stored.version, [], {"status": "running"}, trials=[encode(TRIAL)] * 3),
        )
        await asyncio.sleep(60.0)
        inbox = [decode_event(entry.body) for entry in await store.read(["e"], "a", 10, 0)]
        refused = made._admission.refused["e"]
        stop.set()
        await working
        return trainer.trained, [e for e in inbox if not isinstance(e, Submitted)], refused

    trained, [report], why = run(main(other))
    assert trained == []
    assert (report.type, report.reason) == ("failed", "task")
    assert (
        report.message == why == "task module 'elsewhere' is not allowed here (--allow elsewhere)"
    )
    # Nor is one that this version cannot read, because each lease would expire.
    trained, [report], why = run(main('{"name": "e"}'))
    assert (trained, report.reason) == ([], "task")
    assert report.message == why
    assert "stored experiment" in why


def of_version(trial, version):
    return msgpack.packb({**msgpack.unpackb(encode(trial)), "v": version})


async def with_trials(store, protocol, *bodies):
    await filled(store)
    stored = await store.load("e")
    meta = {"status": "running", **({"protocol": protocol} if protocol else {})}
    await store.commit("e", "a", Commit(stored.version, [], meta, trials=bodies))
    return store


def test_a_trial_that_actors_of_another_version_made_is_left_to_a_worker_of_that_version():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        later = of_version(TRIAL, VERSION + 1)
        await with_trials(store, str(VERSION + 1), later)
        trainer, stop = StubTrainer(FINE), asyncio.Event()
        made = worker(store, trainer)
        working = asyncio.create_task(made.run(stop))
        await asyncio.sleep(LEFT_S - 5.0)
        seen = (await store.depths("e"), (await store.workers("e"))["w"], await store.ages("e"))
        # A worker of that version finds the trial unchanged; then come actors of this version.
        lease = await store.lease(["e"], "another", 0)
        stored = await store.load("e")
        meta, trials = {"protocol": str(VERSION)}, [encode(TRIAL)]
        await store.commit("e", "a", Commit(stored.version, [], meta, trials=trials))
        await asyncio.sleep(10.0)
        stop.set()
        await working
        return seen, lease.body == later, trainer.trained

    (depths, presence, serving), kept, trained = run(main())
    assert depths == {"inbox": 1, "trials": 1, "history": 0, "dead": 0}
    why = f"its trials are of version {VERSION + 1}: this program speaks {VERSION}"
    assert (presence["state"], presence["why"], serving) == ("refuses", why, {})
    assert (kept, len(trained)) == (True, 1)


def test_a_trial_that_is_left_over_from_another_version_is_a_dead_letter():
    async def main(protocol):
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        bodies = [of_version(TRIAL, VERSION + 1), encode(TRIAL)]
        await with_trials(store, protocol, *bodies)
        trainer = StubTrainer(FINE)
        await worker(store, trainer, max_trials=1).run(asyncio.Event())
        return [dead.reason for dead in await store.dead("e")], round(loop.time())

    expected = ([f"version {VERSION + 1}: this program speaks {VERSION}"], 1)
    assert run(main("")) == run(main(str(VERSION))) == expected
