"""Metrics for autoscalers."""

import asyncio
import http.client
from typing import Any

from romul_actors.actor.loop import Actor
from romul_actors.core.events import Result, Submitted
from romul_actors.core.history import SearchStarted, TrialReleased, Unknown
from romul_actors.errors import StoreUnavailableError
from romul_actors.observe import health
from romul_actors.observe.metrics import ActorMetrics, served
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.store.memory import MemoryStore
from tests.trials import declare

STEPS = 3


async def desired(store):
    metrics = ActorMetrics()
    await metrics.refresh(store)
    value = metrics.registry.get_sample_value
    assert value("romul_fleet_workers_desired") == value(
        "romul_workers_desired", {"experiment": "e"}
    )
    return value("romul_fleet_workers_desired")


async def submit(store, name, **keys):
    experiment = declare(name=name, steps=STEPS, **keys)
    await store.create(name, experiment.model_dump_json(), encode(Submitted()))


async def ends_a_trial(store):
    lease = await store.lease(["e"], "w", 0)
    trial = decode_trial(lease.body)
    token: dict[str, Any] = {
        "trial": trial.id,
        "slot": trial.slot,
        "attempt": trial.attempt,
        "worker": "w",
    }
    result = Result(**token, value=1.0 + trial.slot, checkpoint=f"{trial.id}-1", seconds=1.0)
    await store.settle(lease, trial.slot, f"{trial.id}#{trial.attempt}", encode(result))


async def test_workers_are_desired_for_all_slots_though_they_wait_for_the_last():
    store = MemoryStore()
    await submit(store, "e", population=4)
    assert await desired(store) == 1
    actor = Actor(store, "a", pace_s=0.01)
    await actor.turn()
    seen = []
    for _ in range(4 * STEPS):
        seen.append((await desired(store), (await store.depths("e"))["trials"]))
        await ends_a_trial(store)
        await actor.turn()
    steps = [4, 3, 2, 1]
    assert [depth for _, depth in seen] == steps * STEPS
    # In the last step there is nothing to wait for.
    assert [wanted for wanted, _ in seen] == [4.0] * 4 * (STEPS - 1) + steps
    assert await desired(store) == 0


def test_lines_and_lost_attempts_are_counted_by_their_stored_names():
    metrics = ActorMetrics()
    token: dict[str, Any] = {"trial": "0-0", "attempt": 1, "worker": "w"}
    lines = [
        SearchStarted(at_ms=1),
        TrialReleased(**token, at_ms=2, reason="preempted"),
        Unknown(at_ms=3, name="of a later version", values={}),
    ]
    metrics.count("e", lines)
    metrics.count("e", lines[:1])
    value = metrics.registry.get_sample_value

    def n(event):
        return value("romul_events_total", {"experiment": "e", "event": event})

    assert [n("started"), n("released"), n("of a later version")] == [2.0, 1.0, 1.0]
    assert value("romul_attempts_lost_total", {"experiment": "e", "reason": "preempted"}) == 1.0


async def test_an_experiment_that_cannot_be_read_has_no_gauges_and_hides_no_other():
    store = MemoryStore()
    for name in ("bad", "e"):
        await submit(store, name)
    store.memory.find("bad").meta["created"] = "many"
    metrics = ActorMetrics()
    await metrics.refresh(store)
    value = metrics.registry.get_sample_value
    assert value("romul_workers_desired", {"experiment": "e"}) == 1
    assert value("romul_workers_desired", {"experiment": "bad"}) is None


async def test_a_removed_experiment_has_no_metrics_and_one_that_cannot_be_read_keeps_its_counts():
    store = MemoryStore()
    metrics = ActorMetrics()
    released = TrialReleased(at_ms=2, trial="0-0", attempt=1, worker="w", reason="preempted")
    for name in ("bad", "e", "gone"):
        await submit(store, name)
        metrics.count(name, [SearchStarted(at_ms=1), released])
    await metrics.refresh(store)
    store.memory.find("bad").meta["created"] = "many"
    await store.remove("gone")
    await metrics.refresh(store)
    samples = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    of: dict[str, set[str]] = {name: set() for name in ("bad", "e", "gone")}
    for sample in samples:
        if "experiment" in sample.labels:
            of[sample.labels["experiment"]].add(sample.name)
    counted = {"romul_events_total", "romul_attempts_lost_total"}
    assert of["gone"] == set()
    assert of["e"] > counted
    assert {name for name in of["bad"] if name.endswith("_total")} == counted


async def test_what_is_counted_of_a_new_experiment_while_all_are_listed_is_kept():
    metrics = ActorMetrics()

    class Slow(MemoryStore):
        async def experiments(self):
            found = await super().experiments()
            metrics.count("new", [SearchStarted(at_ms=1)])
            return found

    await metrics.refresh(Slow())
    labels = {"experiment": "new", "event": "started"}
    assert metrics.registry.get_sample_value("romul_events_total", labels) == 1


async def test_what_was_read_long_ago_is_served_no_more(monkeypatch):
    store, metrics = MemoryStore(), ActorMetrics()
    await submit(store, "e")
    metrics.count("e", [SearchStarted(at_ms=1)])

    def names():
        return {family.name for family in metrics.registry.collect()}

    before = names()
    await metrics.refresh(store)
    state = {"romul_fleet_workers_desired", "romul_workers_alive", "romul_slots"}
    assert (state & before, state & names()) == (set(), state)
    monkeypatch.setattr(health, "SILENT_S", 0.0)
    assert names() == before >= {"romul_events", "romul_last_refresh_timestamp_seconds"}
    assert metrics.registry.get_sample_value("romul_last_refresh_timestamp_seconds") > 0


async def probed(port, path):
    """Status and text of a response."""

    def ask():
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        asking.request("GET", path)
        answer = asking.getresponse()
        return answer.status, answer.read().decode()

    return await asyncio.to_thread(ask)


async def test_a_server_that_does_not_answer_makes_a_process_unready_and_not_unhealthy(monkeypatch):
    looks, answers = asyncio.Event(), asyncio.Event()

    async def look():
        looks.set()
        if not answers.is_set():
            raise StoreUnavailableError("no answer")

    monkeypatch.setattr(health, "LOOK_S", 0.01)
    ours = health.Health()
    async with served(ActorMetrics().registry, ours, "127.0.0.1", 0) as port:
        watching = asyncio.create_task(ours.watch(look))
        await looks.wait()
        silent = "the server has not answered yet\n"
        assert await probed(port, "/readyz") == (503, silent)
        assert await probed(port, "/healthz") == (200, silent)
        answers.set()
        while (await probed(port, "/readyz"))[0] != 200:
            await asyncio.sleep(0.01)
        assert (await probed(port, "/metrics"))[0] == 200
        monkeypatch.setattr(health, "SILENT_S", 0.0)
        ready = await probed(port, "/readyz")
        assert (ready[0], ready[1].startswith("the server answered")) == (503, True)
        assert (await probed(port, "/healthz"))[0] == 200
        watching.cancel()


async def test_a_process_whose_loop_does_not_run_is_not_healthy(monkeypatch):
    monkeypatch.setattr(health, "RUNS_S", 0.05)
    ours = health.Health()
    assert await asyncio.to_thread(ours.is_running)
    # Here it keeps the loop from running.
    assert not ours.is_running()


async def test_batches_that_another_actor_outran_are_counted():
    class Outrun(MemoryStore):
        outran = 0

        async def commit(self, name, actor, commit):
            self.outran += 1
            return None if self.outran == 1 else await super().commit(name, actor, commit)

    store, metrics = Outrun(), ActorMetrics()
    await submit(store, "e")
    actor = Actor(store, "a", pace_s=0.01)
    metrics.watch(actor)
    await actor.turn()
    assert metrics.registry.get_sample_value("romul_commits_outrun") == 1
