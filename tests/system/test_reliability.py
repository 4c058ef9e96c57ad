"""Machines, brokers and servers fail: nothing is lost, and nothing counts twice."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from typing import Any

import aiomqtt
import pytest
from aiomqtt import ProtocolVersion

from romul_actors.local.mqtt_broker import embedded_broker
from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import embedded_server
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.connection import MqttConnection, connected, protocols, publish_on
from romul_actors.mqtt.topics import status
from tests.conftest import wait_for
from tests.system.conftest import System, aws, processes_with, timeless

BROKERS = [
    pytest.param(
        "mosquitto",
        marks=pytest.mark.skipif(not shutil.which("mosquitto"), reason="no mosquitto here"),
    ),
    "amqtt",
]


@pytest.fixture(params=BROKERS)
def broker(request, background, tmp_path):
    """A real broker that can be stopped and restarted: (url, stop, start)."""
    port = free_port()
    made = []

    def start():
        context = embedded_broker(tmp_path, port, "secret", request.param)
        made.append(background.enter(context))
        return made[-1][0]

    url = start()
    yield url, made[-1][1], start
    made[-1][1]()


def check_nothing_lost_or_doubled(system, name="e"):
    created = Counter(line["trial"] for line in system.history(name, "trial"))
    ended = Counter(line["trial"] for line in system.history(name, "result"))
    assert set(created.values()) == {1}
    assert set(ended.values()) == {1}
    assert created.keys() == ended.keys()


# -- trials that are cut short ------------------------------------------------------------------


def test_a_trial_cut_short_goes_on_elsewhere_from_where_it_stood(system):
    system.submit(task="counting:pausing", steps=1, budget=1, timeouts={"lease_s": 6})
    system.actor()
    first = system.worker("--name=first", "--allow=counting")
    wait_for(lambda: system.presence("first").get("at"))
    first.terminate()
    assert first.wait(30) == 0
    [line] = wait_for(lambda: system.history(event="released"))
    assert (line["reason"], line["worker"]) == ("preempted", "first")
    assert 0.0 < line["at"] < 1.0
    slot = wait_for(lambda: system.slot(int(line["trial"].partition("-")[0])))
    assert slot["partial"] == line["checkpoint"]
    for _ in range(4):
        system.worker("--allow=counting")
    # The task itself refuses a checkpoint that does not fit the place where its trial starts.
    system.wait_for_status("finished")
    check_nothing_lost_or_doubled(system)
    results = {one["trial"]: one for one in system.history(event="result")}
    starts = {trial: result["metrics"]["start"] for trial, result in results.items()}
    assert starts == {**dict.fromkeys(results, 0.0), line["trial"]: line["at"]}
    assert system.history(event="failed") == []


def test_a_worker_that_knows_its_end_takes_only_what_it_can_finish(system):
    system.submit(steps=50, constants={"seconds": 0.4}, budget=4)
    system.actor()
    # Far more notice than a trial takes: a busy machine takes some of it for something else.
    worker = system.worker("--notice-s=6", "--grace=1")
    wait_for(lambda: len(system.history(event="result")) >= 2)
    before = len(system.history(event="result"))
    os.kill(worker.pid, signal.SIGUSR1)
    assert worker.wait(30) == 0
    # It went on for a while, ended before its experiment did, and gave nothing back.
    after = system.history(event="result")
    assert len(after) >= before + 2
    assert len(after) < 4 * 50
    assert system.history(event="released") == []


def test_a_notice_file_drains_a_worker(system, tmp_path):
    system.submit(task="misbehaving:slow", steps=1)
    system.actor()
    notice = tmp_path / "going"
    worker = system.worker(f"--notice={notice}", "--grace=30")
    wait_for(system.leases)
    notice.write_text("20")
    assert worker.wait(30) == 0
    [line] = wait_for(lambda: system.history(event="released"))
    assert line["reason"] == "preempted"


def test_a_task_without_a_sign_of_progress_is_ended(system):
    system.submit(
        task="misbehaving:deaf",
        constants={"marked": 3600.25},
        steps=1,
        max_attempts=1,
        timeouts={"stall_s": 0.5, "lease_s": 30},
    )
    system.actor()
    system.worker()
    line = wait_for(lambda: system.history(event="failed"))[0]
    assert line["reason"] == "stalled"
    assert "timeouts.stall_s = 0.5 s" in line["message"]
    assert json.loads(system.meta()["causes"])["stalled"] >= 1
    system.call("stop", "e")
    wait_for(lambda: not processes_with("sleep 3600.25"))


# -- the broker ---------------------------------------------------------------------------------


def test_a_killed_workers_trial_is_elsewhere_long_before_its_lease_ends(system, broker):
    mqtt = {"ROMUL_MQTT_URL": broker[0], "ROMUL_MQTT_KEEPALIVE_S": "1"}
    system.submit(task="misbehaving:slow", timeouts={"lease_s": 60}, steps=1)
    actor = system.actor(**mqtt)
    victim = system.worker("--name=victim", **mqtt)
    entry, _ = wait_for(lambda: list(system.leases().items()))[0]
    heirs = [system.worker(f"--name=heir-{n}", **mqtt) for n in range(4)]
    # Everybody is on the broker, three heirs have a trial each, one waits.
    wait_for(lambda: len(system.leases()) == 4)
    wait_for(lambda: broker_knows(system, broker[0], 5))
    os.killpg(victim.pid, signal.SIGKILL)
    wait_for(lambda: entry not in system.leases())
    wait_for(lambda: len(system.leases()) == 4 and "victim" not in system.leases().values())
    [line] = system.history(event="failed")
    assert (line["reason"], line["worker"], line["again"]) == ("lost", "victim", True)
    assert all(process.poll() is None for process in (actor, *heirs))


def test_both_leases_of_a_killed_worker_are_elsewhere_long_before_they_end(
    system, broker, hanging_store
):
    mqtt = {"ROMUL_MQTT_URL": broker[0], "ROMUL_MQTT_KEEPALIVE_S": "1"}
    given = {"task": "misbehaving:first_at_once", "timeouts": {"lease_s": 60}, "steps": 1}
    system.submit(checkpoints="s3://romul/e", **given)
    system.actor(**mqtt)
    victim = system.worker("--overlap", "--name=victim", **mqtt, **aws(hanging_store.address))
    # The first trial's checkpoint is on its way, and stays there; the second one trains.
    wait_for(lambda: list(system.leases().values()) == ["victim", "victim"])
    wait_for(lambda: system.presence("victim").get("storing"))
    shown = wait_for(lambda: [w for w in system.as_json("workers", "e") if w["trial"]])
    assert [(row["state"], bool(row["storing"])) for row in shown] == [("training", True)]
    entries = list(system.leases())
    wait_for(lambda: broker_knows(system, broker[0], 1))
    os.killpg(victim.pid, signal.SIGKILL)
    wait_for(lambda: not set(entries) & set(system.leases()))
    # Taken from the worker first, decided by the actor after that.
    lost = wait_for(lambda: found if len(found := system.history(event="failed")) > 1 else None)
    assert [(line["reason"], line["worker"], line["again"]) for line in lost] == [
        ("lost", "victim", True)
    ] * 2


def broker_knows(system, url, workers):
    """Whether this number of workers have announced themselves at the broker."""
    at = Broker.parse(url)

    async def look():
        seen = set()
        with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
            async with (
                asyncio.timeout(2),
                aiomqtt.Client(at.host, at.port, username=at.user, password=at.password) as client,
            ):
                await client.subscribe("romul/workers/+/status")
                async for message in client.messages:
                    seen.add(str(message.topic))
                    if len(seen) >= workers:
                        return True
        return False

    return asyncio.run(look())


def test_without_a_broker_the_lease_notices(system):
    system.submit(task="misbehaving:slow", timeouts={"lease_s": 2}, steps=1)
    system.actor()
    victim = system.worker("--name=victim")
    entry, _ = wait_for(lambda: list(system.leases().items()))[0]
    for _ in range(4):
        system.worker()
    wait_for(lambda: len(system.leases()) == 4)
    os.killpg(victim.pid, signal.SIGKILL)
    wait_for(lambda: entry not in system.leases())
    wait_for(lambda: len(system.leases()) == 4 and "victim" not in system.leases().values())
    [line] = [line for line in system.history(event="failed") if line["worker"] == "victim"]
    assert (line["reason"], line["again"]) == ("lost", True)
    assert system.slot(line["slot"])["attempt"] == "2"


def test_a_broker_that_comes_and_goes_changes_nothing(system, broker):
    url, end, start = broker
    mqtt = {"ROMUL_MQTT_URL": url, "ROMUL_MQTT_KEEPALIVE_S": "1"}
    system.submit(steps=40, constants={"seconds": 0.1}, timeouts={"lease_s": 5})
    system.actor(**mqtt)
    for _ in range(2):
        system.worker(**mqtt)
    wait_for(lambda: len(system.history(event="result")) > 20)
    end()
    before = len(system.history(event="result"))
    wait_for(lambda: len(system.history(event="result")) > before + 20)
    start()
    wait_for(lambda: broker_knows(system, url, 2))
    system.wait_for_status("finished")
    check_nothing_lost_or_doubled(system)
    assert system.history(event="failed") == []


@pytest.mark.skipif(not shutil.which("mosquitto"), reason="no mosquitto here")
async def test_no_other_program_is_told_the_password_of_the_embedded_broker(tmp_path, monkeypatch):
    """All users of a machine can read the command lines of processes."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mosquitto").symlink_to(str(shutil.which("mosquitto")))
    monkeypatch.setenv("PATH", str(programs))
    async with embedded_broker(tmp_path, password="told", kind="mosquitto") as url:
        users = tmp_path / "broker" / "users"
        assert users.stat().st_mode & 0o077 == 0
        assert "told" not in users.read_text()
        at = Broker.parse(url)
        for password in ("told", "guessed"):
            one = aiomqtt.Client(at.host, at.port, username=at.user, password=password)
            refused = pytest.raises(aiomqtt.MqttError)
            with contextlib.nullcontext() if password == "told" else refused:
                async with one:
                    pass


async def test_a_broker_that_does_not_answer_mqtt_5_is_spoken_to_in_the_older_version(tmp_path):
    reached = asyncio.Event()

    async def receive(message):
        del message

    def note(there):
        if there:
            reached.set()

    async with embedded_broker(tmp_path, kind="amqtt") as url:
        # Without the options in its URL.
        broker = Broker.parse(url.partition("?")[0])
        assert protocols(broker)[0] == ProtocolVersion.V5
        lasting = MqttConnection(broker, "w", [], receive, on_change=note)
        running = asyncio.create_task(lasting.run())
        async with connected(broker) as client, asyncio.timeout(30):
            await publish_on(client, status("w", "idle", 1.0))
            await reached.wait()
        running.cancel()
        await asyncio.wait([running])


def test_an_operator_drains_a_worker_over_the_broker(system, broker):
    mqtt = {"ROMUL_MQTT_URL": broker[0]}
    system.submit(task="misbehaving:slow", steps=1)
    system.actor(**mqtt)
    worker = system.worker("--name=w", "--grace=30", **mqtt)
    wait_for(system.leases)
    wait_for(lambda: broker_knows(system, broker[0], 1))
    assert system.call("control", "w", "debug", **mqtt).returncode == 0
    wait_for(lambda: "log level is debug now" in worker.log.read_text())
    assert system.call("control", "w", "drain", **mqtt).returncode == 0
    assert worker.wait(30) == 0
    [line] = wait_for(lambda: system.history(event="released"))
    assert line["reason"] == "drained"
    # The history names who requested it.
    [asked] = wait_for(lambda: system.history(event="drain"))
    assert asked["worker"] == "w"
    assert asked["by"]
    # A request that no worker received is not reported as done.
    output = system.call("control", "w", "drain", **mqtt)
    assert (output.returncode, "w does not answer" in output.stderr) == (3, True)
    output = system.call("control", "w", "drain", ROMUL_MQTT_URL="mqtt://127.0.0.1:1")
    assert (output.returncode, "127.0.0.1:1" in output.stderr) == (3, True)


# -- the server ---------------------------------------------------------------------------------


@pytest.fixture
def own_server(background, tmp_path):
    """A durable server for one test: (url, a function that kills and restarts it)."""
    port, made = free_port(), []

    def start():
        context = embedded_server(tmp_path / "server", port=port, password="secret")
        made.append(background.enter(context))
        return made[-1][0]

    def restart(actor):
        def failures():
            return actor.log.read_text().count("trying again")

        before = failures()
        os.kill(int((tmp_path / "server/redis/server.pid").read_text()), signal.SIGKILL)
        made.pop()[1]()
        wait_for(lambda: failures() > before)
        start()

    url = start()
    yield url, restart
    made[-1][1]()


@pytest.mark.timeout(240)
def test_a_killed_server_comes_back_and_the_run_goes_on(own_server, tmp_path):
    url, restart = own_server
    system = System(url, tmp_path)
    try:
        system.submit(steps=30, constants={"seconds": 0.05}, timeouts={"lease_s": 3})
        actor = system.actor()
        for _ in range(2):
            system.worker()
        for results in (20, 60):
            wait_for(lambda results=results: len(system.history(event="result")) > results)
            restart(actor)
        wait_for(lambda: alive(system) and system.meta()["status"] == "finished", 90)
        check_nothing_lost_or_doubled(system)
    finally:
        system.close()


def alive(system):
    with contextlib.suppress(Exception):
        return system.client.ping()
    return False


def test_a_trial_that_is_nowhere_is_queued_again(system):
    system.submit(steps=2)
    actor = system.actor()
    wait_for(lambda: system.client.xlen("romul:{e}:trials") == 4)
    os.kill(actor.pid, signal.SIGKILL)
    actor.wait()
    # As if the server had come back from older data.
    binary = type(system.client).from_url(system.url, protocol=2)
    entries = [entry for entry, _ in binary.xrange("romul:{e}:trials")]
    binary.xdel("romul:{e}:trials", *entries[:3])
    binary.close()
    system.actor()
    system.worker()
    system.wait_for_status("finished")
    released = system.history(event="released")
    assert {line["reason"] for line in released} == {"missing"}
    assert len(released) == 3
    check_nothing_lost_or_doubled(system)


# -- checkpoints --------------------------------------------------------------------------------


def stored(system, name="e"):
    folder = system.folder / "checkpoints"
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_checkpoints_that_no_trial_needs_are_removed_and_no_others(system):
    system.submit(steps=30)
    system.actor()
    workers = [system.worker("--garbage-s=0") for _ in range(2)]
    # A collector killed at any time leaves its work to the next one.
    for results in (30, 60):
        wait_for(lambda results=results: len(system.history(event="result")) > results)
        os.killpg(workers.pop().pid, signal.SIGKILL)
        workers.append(system.worker("--garbage-s=0"))
    system.wait_for_status("finished")
    check_nothing_lost_or_doubled(system)
    last = {json.loads(system.slot(n)["outcomes"])["29"]["checkpoint"] for n in range(4)}
    best = json.loads(system.meta()["best"])["checkpoint"]
    wait_for(lambda: system.client.zcard("romul:{e}:garbage") == 0, 60)
    assert stored(system) >= last | {best}
    # A worker killed between writing and reporting leaves what no list names.
    assert len(stored(system)) <= len(last | {best}) + 2
    assert system.call("collect", "e", "--older=0").returncode == 0
    assert stored(system) == last | {best}


def test_all_checkpoints_stay_if_asked_to(system):
    system.submit(steps=5, keep_checkpoints="all")
    system.actor()
    system.worker("--garbage-s=0")
    system.wait_for_status("finished")
    assert len(stored(system)) == 20
    assert system.client.zcard("romul:{e}:garbage") == 0


def test_leftovers_of_dead_workers_are_collected_on_request(system):
    system.submit(steps=3, keep_checkpoints="all")
    system.actor()
    system.worker()
    system.wait_for_status("finished")
    folder = system.folder / "checkpoints"
    for name in ("9-9-9-abcdef", ".part/3-3-3.xyz"):
        (folder / name).mkdir()
    dry = system.call("collect", "e", "--older=0", "--dry-run")
    assert "9-9-9-abcdef" in dry.stdout
    assert (folder / "9-9-9-abcdef").exists()
    done = system.call("collect", "e", "--older=0")
    assert done.returncode == 0
    assert not (folder / "9-9-9-abcdef").exists()
    assert not (folder / ".part/3-3-3.xyz").exists()
    best = json.loads(system.meta()["best"])["checkpoint"]
    assert best in stored(system)
    assert system.call("best", "e", f"--copy-to={system.folder}/best").returncode == 0
    assert "0 checkpoints removed" in system.call("collect", "e", "--older=3600").stdout


def test_a_full_quota_stops_a_worker_and_costs_no_trial(system):
    system.submit(steps=4)
    system.actor()
    full = system.worker("--quota-gb=0", "--name=full")
    wait_for(lambda: json.loads(system.meta().get("causes") or "{}").get("no_room", 0) >= 2)
    wait_for(lambda: system.presence("full").get("state") == "no room")
    assert "bytes of a quota of 0" in full.log.read_text()
    assert {system.slot(n)["failures"] for n in range(4)} == {"0"}
    system.worker()
    system.wait_for_status("finished")
    check_nothing_lost_or_doubled(system)
    full.terminate()
    assert full.wait(30) == 0


def test_a_mount_that_refuses_for_a_while_costs_no_trial(system):
    system.submit(steps=12)
    system.actor()
    system.worker("--name=w")
    wait_for(lambda: int(system.meta().get("reported", 0)) >= 4)
    mount, away = system.folder / "checkpoints", system.folder / "away"
    mount.rename(away)
    # Even root cannot use a link to itself.
    mount.symlink_to(mount)
    wait_for(lambda: json.loads(system.meta().get("causes") or "{}").get("no_room", 0) >= 2)
    wait_for(lambda: system.presence("w").get("state") == "no storage")
    mount.unlink()
    away.rename(mount)
    system.wait_for_status("finished")
    assert {system.slot(n)["failures"] for n in range(4)} == {"0"}
    check_nothing_lost_or_doubled(system)


def test_a_machine_where_everything_fails_does_not_eat_the_population(system):
    """Such a machine fails faster than others train, so it would take nearly every trial."""
    system.submit(
        task="misbehaving:sick",
        space={"x": {"type": "float", "min": 0.0, "max": 1.0}},
        population=8,
        steps=6,
    )
    system.actor()
    sick = system.worker("--name=sick", SICK="1")
    system.worker("--name=well")
    wait_for(lambda: system.presence("sick").get("state") == "failing")
    assert "in a row failed here" in sick.log.read_text()
    system.wait_for_status("finished")
    causes = json.loads(system.meta()["causes"])
    # Left alone it would have failed twice as many as the other one trains, which are 48.
    assert causes["exception"] < 24
    assert {line["worker"] for line in system.history(event="failed")} == {"sick"}


# -- queues -------------------------------------------------------------------------------------


def test_dead_messages_are_listed_tried_again_and_dropped(system):
    system.submit(steps=2)
    for body in (b"garbage", b"x" * 2_000):
        system.client.xadd("romul:{e}:inbox", {"m": body})
    system.actor()
    wait_for(lambda: system.client.xlen("romul:{e}:dead") == 2)
    rows = json.loads(system.call("dead", "list", "e", "--json").stdout)
    assert [(row["queue"], row["bytes"]) for row in rows] == [("inbox", 7), ("inbox", 2_000)]
    assert "not MessagePack" in system.call("dead", "list", "e").stdout
    output = system.call("dead", "retry", "e", "--all").stdout
    assert "1 put back, 1 too long" in output
    # It is still a dead letter.
    wait_for(lambda: system.client.xlen("romul:{e}:dead") == 2)
    assert system.call("dead", "drop", "e").returncode == 2
    assert system.call("dead", "drop", "e", "1-1").returncode == 3
    assert "1 dropped" in system.call("dead", "drop", "e", rows[1]["id"]).stdout
    assert "1 dropped" in system.call("dead", "drop", "e", "--all").stdout
    assert "no dead letters" in system.call("dead", "list", "e").stdout


def test_failures_are_shown_by_reason_and_region(system):
    system.submit(
        task="misbehaving",
        space={
            "how": {"type": "categorical", "choices": ["is fine", "out of memory"]},
            "x": {"type": "float", "min": 0.0, "max": 1.0},
        },
        initial=[{"how": "is fine", "x": 0.1}] * 3 + [{"how": "out of memory", "x": 0.9}],
        steps=1,
        max_attempts=2,
    )
    system.actor()
    system.worker()
    system.wait_for_status("finished")
    output = json.loads(system.call("failures", "e", "--json").stdout)
    assert output["causes"] == {"out_of_memory": 2}
    fine, memory = output["regions"]["how"]
    assert (fine["failed"], memory["failed"], memory["attempts"]) == (0, 2, 2)
    assert [row["failed"] for row in output["regions"]["x"]] == [0, 0, 0, 2]
    assert "out_of_memory 2" in system.call("failures", "e").stdout
    assert "out_of_memory 2" in system.call("status").stdout


# -- elasticity ---------------------------------------------------------------------------------


@pytest.mark.long(20)
@pytest.mark.timeout(300)
def test_one_worker_then_sixteen_then_two_then_eight(system):
    system.submit(
        population=12,
        steps=60,
        constants={"seconds": 0.5},
        elasticity={"min": 4, "max": 16, "per_worker": 6, "second_copy": 0},
        timeouts={"lease_s": 5},
    )
    system.actor()
    workers: list[Any] = []
    slots = {}
    for wanted in (1, 16, 2, 8):
        leaving = [workers.pop(0) for _ in range(len(workers) - wanted)]
        for worker in leaving:
            worker.terminate()
        assert [worker.wait(30) for worker in leaving] == [0] * len(leaving)
        while len(workers) < wanted:
            workers.append(system.worker())
        # Sixteen at once take long to start on a machine that does something else, too.
        wait_for(lambda wanted=wanted: present(system) == wanted, 90)
        before = len(system.history(event="result"))
        # Every worker that is there trains, and more than once.
        wait_for(lambda wanted=wanted, n=before: busy(system.history(event="result")[n:]) >= wanted)
        slots[wanted] = sum(
            system.slot(n).get("status") in ("queued", "waiting") for n in range(16)
        )
    assert max(slots.values()) <= 16
    assert slots[16] > slots[1]
    system.call("stop", "e")
    steps = spread(system)
    assert max(steps) <= 2, steps


def present(system):
    states = [json.loads(v)["state"] for v in system.client.hvals("romul:{e}:workers")]
    return sum(state != "draining" for state in states)


def busy(results):
    """The number of workers with two results or more."""
    return sum(n > 1 for n in Counter(line["worker"] for line in results).values())


def spread(system):
    """The distance in steps between the active slots, after each decision."""
    steps, spreads = {}, []
    for line in system.history():
        if line["event"] in ("trial", "resumed"):
            steps[line["slot"]] = line["step"]
        elif line["event"] == "parked":
            steps.pop(line["slot"], None)
        if line["event"] == "trial" and line["slot"] in steps:
            spreads.append(max(steps.values()) - min(steps.values()))
    return spreads


@pytest.mark.long(25)
@pytest.mark.timeout(600)
def test_an_actor_killed_fifty_times_decides_as_one_that_never_was(system):
    fields = {
        "population": 8,
        "steps": 20,
        "optimizer": {"name": "romul", "options": {"quorum_share": 1.0}},
        "elasticity": {"second_copy": 0},
        "space": {
            "rate": {"type": "float", "min": 1e-3, "max": 1.0, "scale": "log"},
            "momentum": {"type": "float", "min": 0.0, "max": 0.9},
        },
    }
    system.submit(name="calm", **fields)
    permits = system.folder / "permits"
    permits.mkdir()
    system.submit(
        name="wild", **{**fields, "task": "permitted"}, constants={"permits": str(permits)}
    )
    worker = [system.worker("--experiment=calm") for _ in range(2)]
    actor = system.actor("--experiment=calm")
    system.wait_for_status("finished", "calm")
    for process in (actor, *worker):
        process.terminate()
    for _ in range(2):
        system.worker("--experiment=wild", "--allow=permitted")
    shuffler = random.Random(5)
    for kill in range(50):
        version = system.meta("wild")["version"]
        # As many results as come in a burst, and not more than there are before the last step:
        # however slow the machine is, the search does not end meanwhile.
        for n in range(3):
            (permits / f"permit-{kill}-{n}").touch()
        actor = system.actor("--experiment=wild")
        wait_for(lambda v=version: system.meta("wild")["version"] != v, 60)
        time.sleep(shuffler.random() * 0.2)
        assert system.meta("wild")["status"] == "running"
        os.kill(actor.pid, signal.SIGKILL)
        actor.wait()
    (permits / "open").touch()
    system.actor("--experiment=wild")
    system.wait_for_status("finished", "wild", seconds=120)
    calm, wild = (
        {line["trial"]: timeless(line) for line in system.history(name, "trial")}
        for name in ("calm", "wild")
    )
    assert len(calm) == 160
    assert wild == calm
    assert [json.loads(system.slot(n, "wild")["memory"]) for n in range(8)] == [
        json.loads(system.slot(n, "calm")["memory"]) for n in range(8)
    ]
