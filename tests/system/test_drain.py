"""A stopped worker ends within its grace period; after a second signal, at once."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from romul_actors.core.events import Submitted
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.messages import decode_event, encode
from romul_actors.store import Commit
from romul_actors.store.redis import RedisStore
from tests.conftest import wait_for
from tests.system.conftest import System, aws, processes_with
from tests.trials import TRIAL

PARENT = "0-0-1-ab"
STORE = {"checkpoints": "s3://romul/e", "timeouts": {"lease_s": 60}, "steps": 2}


def queue(system, trial):
    """Queue a trial, as an actor does."""

    async def commit():
        store = RedisStore(system.url)
        stored = await store.load("e")
        changes = Commit(stored.version, [], {"status": "running"}, trials=[encode(trial)])
        assert await store.commit("e", "a", changes)
        await store.close()

    asyncio.run(commit())


def reports(system):
    """The reports of trials, in order."""

    async def read():
        store = RedisStore(system.url)
        entries = await store.read(["e"], "a", 10, 1)
        await store.close()
        return [decode_event(entry.body) for entry in entries]

    return [event for event in asyncio.run(read()) if not isinstance(event, Submitted)]


def ended(worker):
    return wait_for(lambda: worker.poll() is not None and [worker.returncode])[0]


def test_a_worker_that_must_go_waits_for_no_object_store_beyond_its_grace(system, hanging_store):
    given = {"task": "misbehaving:first_at_once", "timeouts": {"lease_s": 60}, "steps": 1}
    system.submit(checkpoints="s3://romul/e", **given)
    system.actor()
    worker = system.worker("--overlap", "--name=w", "--grace=1", **aws(hanging_store.address))
    wait_for(lambda: system.presence("w").get("storing"))
    wait_for(lambda: len(system.leases()) == 2)
    worker.send_signal(signal.SIGTERM)
    assert ended(worker) == 0
    assert system.leases() == {}
    assert system.presence("w") == {}
    wait_for(lambda: json.loads(system.meta()["causes"]) == {"preempted": 2})


def test_a_worker_that_must_go_waits_for_no_parent_beyond_its_grace(system, hanging_store):
    system.submit(**STORE)
    trial = replace(TRIAL, id="0-1", step=1, parent=PARENT, start=1.0, stop=2.0)
    queue(system, replace(trial, hyperparameters={"rate": 0.5}))
    worker = system.worker("--name=w", "--grace=1", **aws(hanging_store.address))
    wait_for(hanging_store.reached)
    assert list(system.leases().values()) == ["w"]
    worker.send_signal(signal.SIGTERM)
    assert ended(worker) == 0
    assert system.leases() == {}
    [event] = reports(system)
    assert (event.type, event.reason, event.checkpoint) == ("released", "preempted", None)


def test_a_worker_that_must_go_waits_for_no_garbage(system, hanging_store):
    system.submit(**STORE)
    system.client.zadd("romul:{e}:garbage", {PARENT: 0})
    worker = system.worker("--garbage-s=0", "--grace=3600", **aws(hanging_store.address))
    wait_for(hanging_store.reached)
    worker.send_signal(signal.SIGTERM)
    assert ended(worker) == 0
    # Another worker finds it listed.
    assert system.client.zrange("romul:{e}:garbage", 0, -1) == [PARENT]


def test_garbage_that_hangs_holds_up_no_other_experiment(system, hanging_store):
    system.submit(**STORE)
    system.actor()
    assert system.call("stop", "e").returncode == 0
    system.wait_for_status("stopped")
    system.client.zadd("romul:{e}:garbage", {PARENT: 0})
    system.worker("--garbage-s=0", **aws(hanging_store.address))
    wait_for(hanging_store.reached)
    system.submit(name="other")
    system.wait_for_status("finished", "other")
    assert system.client.zrange("romul:{e}:garbage", 0, -1) == [PARENT]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_worker_at_once(system, hanging_store, number):
    system.submit(task="misbehaving:deaf", constants={"marked": 3600.5}, steps=1)
    system.actor()
    worker = system.worker("--name=w", "--grace=3600")
    wait_for(lambda: len(processes_with("sleep 3600.5")) == 2)
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: system.presence("w").get("state") == "draining")
    worker.send_signal(number)
    assert ended(worker) == -number
    # The task's process ends with it, with all that it started.
    wait_for(lambda: not processes_with("sleep 3600.5"))


@pytest.fixture
def own_server(background, tmp_path):
    """A server for one test: its URL and its process."""
    url, end = background.enter(embedded_server(tmp_path / "server", durable=False))
    yield url, int((tmp_path / "server/redis/server.pid").read_text())
    end()


def heeds(process, number):
    """Whether a process handles a signal."""
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
    )
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_a_worker_that_must_go_waits_for_no_server_beyond_its_grace(own_server, tmp_path):
    url, server = own_server
    system = System(url, tmp_path)
    try:
        system.submit(task="misbehaving:slow", steps=1)
        system.actor()
        training = system.worker("--name=w", "--grace=1")
        wait_for(system.leases)
        os.kill(server, signal.SIGSTOP)
        beginning = system.worker("--grace=3600")
        for worker in (training, beginning):
            wait_for(lambda process=worker: heeds(process, signal.SIGTERM))
            worker.send_signal(signal.SIGTERM)
            assert ended(worker) == 0
    finally:
        os.kill(server, signal.SIGCONT)
        system.close()
