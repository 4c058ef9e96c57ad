"""Users of the server: tests each line of the table in SECURITY.md."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import redis
from redis.exceptions import AuthenticationError, ResponseError

import romul as python
from romul_actors.core.events import Result
from romul_actors.errors import AccessError, AclError
from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import find_server
from romul_actors.mqtt import connection
from romul_actors.mqtt.acl import password_line
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.snapshot import snapshot
from romul_actors.protocol.messages import encode
from romul_actors.store import Commit
from romul_actors.store.acl import user
from romul_actors.store.keys import key
from romul_actors.store.redis import RedisStore
from tests.conftest import listens, romul, wait_for
from tests.system.conftest import System

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a user for each role, for experiments called team-*; URLs by role."""
    folder = tmp_path_factory.mktemp("acl")
    file = folder / "users.acl"
    secrets = f"--secrets={folder / 'secrets'}"
    made = romul("acl", f"--out={file}", secrets, "--experiment=team-*")
    assert made.returncode == 0, made.stderr
    with file.open("a") as out:
        out.write("user root on nopass ~* &* +@all\n")
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                find_server(),
                *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
                *("--appendonly", "yes", "--aclfile", str(file)),
            ],
            stdout=log,
            stderr=log,
        )
    wait_for(lambda: listens(port))
    roles = {}
    for secret in (folder / "secrets").glob("*/password"):
        role = secret.parent.name
        roles[role] = f"redis://{role}:{secret.read_text()}@127.0.0.1:{port}/0"
        assert secret.stat().st_mode & 0o077 == 0
        assert secret.read_text() not in file.read_text()
    roles["root"] = f"redis://root:x@127.0.0.1:{port}/0"
    roles["stranger"] = f"redis://127.0.0.1:{port}/0"
    yield roles
    process.terminate()
    process.wait()


@pytest.fixture
def fleet(guarded, tmp_path):
    """The team's processes, each with its own user; the test itself sees everything."""
    made = System(guarded["operator"], tmp_path)
    made.client = redis.Redis.from_url(guarded["root"], decode_responses=True, protocol=2)
    made.client.flushall()
    yield made
    made.close()


def test_a_search_goes_through_with_each_part_behind_its_own_door(guarded, fleet):
    fleet.submit(name="team-a", steps=4)
    actor = fleet.start("actor", f"--redis={guarded['actor']}")
    # Other teams' data on the server does not stop a worker.
    fleet.client.sadd("romul:experiments", "other")
    fleet.client.hset("romul:{other}", mapping={"status": "running", "slots": 0})
    worker = fleet.start("worker", f"--redis={guarded['worker']}")
    fleet.wait_for_status("finished", "team-a")
    assert "refuses" not in worker.log.read_text()
    actor.terminate()
    assert actor.wait(30) == 0
    assert fleet.client.xinfo_consumers(key("team-a", "inbox"), "actors") == []
    reader = f"--redis={guarded['reader']}"
    for command in (
        ("status",),
        ("show", "team-a"),
        ("best", "team-a"),
        ("top", "team-a", "--once"),
        ("history", "team-a"),
        ("workers", "team-a"),
        ("explain", "team-a", "0-1"),
        ("waste", "team-a"),
        ("report", "team-a", f"--to={fleet.folder / 'r.html'}"),
        ("dead", "list", "team-a"),
    ):
        done = fleet.call(*command, reader)
        assert done.returncode == 0, (command, done.stderr)
    for command in (("pause", "team-a"), ("remove", "team-a", "--yes")):
        refused = fleet.call(*command, reader)
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr
    for command in (("resume", "team-a"), ("remove", "team-a", "--yes")):
        assert fleet.call(*command, f"--redis={guarded['operator']}").returncode == 0


def test_the_status_of_a_server_that_refuses_to_be_read_is_an_error(guarded, fleet):
    fleet.submit(name="team-a")
    refused = fleet.call("status", "--json", f"--redis={guarded['worker']}")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "the server refuses" in refused.stderr
    assert "Traceback" not in refused.stderr
    examined = fleet.call("doctor", f"--redis={guarded['worker']}")
    assert (examined.returncode, "`romul acl`'s reader" in examined.stdout) == (1, True)


def test_a_name_that_the_users_pattern_excludes_is_named_with_the_remedy(guarded, fleet):
    fleet.submit(name="team-a")
    text = (fleet.folder / "team-a.py").read_text().replace("team-a", "other")
    file = fleet.folder / "other.py"
    file.write_text(text)
    for command in (("submit", str(file)), ("pause", "other")):
        refused = fleet.call(*command)
        said = " ".join(refused.stderr.split())
        assert (refused.returncode, "experiment 'other'" in said) == (3, True), said
        assert "`romul acl --experiment PATTERN`" in said


def test_who_may_not_create_a_search_leaves_none_behind(guarded, fleet):
    fleet.submit(name="team-b")
    fleet.client.flushall()
    file = str(fleet.folder / "team-b.py")
    for role in ("worker", "reader", "actor"):
        refused = fleet.call("submit", file, f"--redis={guarded[role]}")
        assert (refused.returncode, "ermission" in refused.stderr) == (3, True), refused.stderr
        assert fleet.client.keys("romul:*") == []
    created = fleet.call("submit", file)
    assert created.returncode == 0, created.stderr


async def test_a_right_that_a_user_lacks_is_named_and_is_not_taken_for_a_damaged_key(
    guarded, fleet
):
    fleet.submit(name="team-a")
    everything = ("on", "nopass", "~*", "+@all")
    for lacks in ("hlen", "hgetall", "hmget"):
        fleet.client.execute_command("ACL", "SETUSER", lacks, *everything, f"-{lacks}")
    at = guarded["root"].partition("@")[2]
    actor = RedisStore(f"redis://hlen:x@{at}")
    [entry] = await actor.read(["team-a"], "a", 10, 0)
    version = (await actor.load("team-a")).version
    commit = Commit(version, [entry.id], {"slots": "1"}, {0: {"status": "queued"}})
    with pytest.raises(AccessError, match=r"'hlen'.*`romul acl` renews"):
        await actor.commit("team-a", "a", commit)
    assert fleet.client.hget(key("team-a"), "slots") == "0"
    await actor.close()
    root = RedisStore(guarded["root"])
    assert await root.commit("team-a", "a", commit) is not None
    await root.close()
    for lacks in ("hgetall", "hmget"):
        reader = RedisStore(f"redis://{lacks}:x@{at}")
        with pytest.raises(AccessError, match=rf"'{lacks}'"):
            await (reader.load("team-a") if lacks == "hgetall" else snapshot(reader, "team-a"))
        await reader.close()


def test_a_removed_search_leaves_no_bell_behind(guarded, fleet):
    fleet.submit(name="team-a")
    bells = [key("team-a", f"bell:{worker}") for worker in ("present", "warm")]
    for bell in bells:
        fleet.client.xadd(bell, {"m": ""})
    fleet.client.hset(key("team-a", "workers"), "present", "{}")
    fleet.client.hset(key("team-a", "affinity"), "w warm", "0-0-1-aaaaaa")
    removed = fleet.call("remove", "team-a", "--yes", f"--redis={guarded['operator']}")
    assert removed.returncode == 0, removed.stderr
    assert fleet.client.keys("romul:*") == []


def test_a_password_may_come_from_a_file(guarded, fleet, monkeypatch):
    fleet.submit(name="team-c")
    url = guarded["reader"]
    password, place = url.removeprefix("redis://reader:").split("@")
    file = fleet.folder / "password"
    file.write_text(password + "\n")
    without = f"--redis=redis://reader@{place}"
    done = fleet.call("status", without, "--json", ROMUL_REDIS_PASSWORD_FILE=str(file))
    assert '"team-c"' in done.stdout
    monkeypatch.setenv("ROMUL_REDIS_PASSWORD_FILE", str(file))
    assert "team-c" in python.Client(without.removeprefix("--redis=")).statuses()
    monkeypatch.delenv("ROMUL_REDIS_PASSWORD_FILE")
    # A password in the URL takes precedence.
    file.write_text("wrong")
    assert fleet.call("status", without, ROMUL_REDIS_PASSWORD_FILE=str(file)).returncode != 0
    known = fleet.call("status", f"--redis={url}", ROMUL_REDIS_PASSWORD_FILE=str(file))
    assert known.returncode == 0
    missing = fleet.call("status", without, ROMUL_REDIS_PASSWORD_FILE="/nowhere")
    assert "ROMUL_REDIS_PASSWORD_FILE" in " ".join(missing.stderr.split())


def test_a_killed_workers_trial_comes_back_behind_doors_too(guarded, fleet):
    fleet.submit(name="team-b", steps=1, budget=4, constants={"seconds": 1.0})
    fleet.start("actor", f"--redis={guarded['actor']}")
    doomed = fleet.start("worker", f"--redis={guarded['worker']}")
    wait_for(lambda: fleet.client.xpending("romul:{team-b}:trials", "workers")["pending"], 30)
    doomed.kill()
    fleet.start("worker", f"--redis={guarded['worker']}")
    fleet.wait_for_status("finished", "team-b", 90)
    assert "lost" in fleet.meta("team-b")["causes"]


def test_a_forged_report_leads_the_best_checkpoint_nowhere(guarded, fleet):
    fleet.submit(name="team-a", steps=1)
    actor = fleet.start("actor", f"--redis={guarded['actor']}")
    wait_for(lambda: fleet.client.xlen(key("team-a", "trials")) == 4)
    spy = redis.Redis.from_url(guarded["worker"], protocol=2)
    spy.xreadgroup("workers", "spy", {key("team-a", "trials"): ">"}, count=1)
    whose: dict[str, Any] = {"trial": "0-0", "slot": 0, "attempt": 1, "worker": "spy"}
    for checkpoint in ("../../../../tmp/loot", str(fleet.folder), "0-0-1-0badcafe/.."):
        forged = Result(**whose, value=-1.0, checkpoint=checkpoint, seconds=1.0)
        spy.xadd(key("team-a", "inbox"), {"m": encode(forged)})
    wait_for(lambda: fleet.client.xlen(key("team-a", "dead")) == 3)
    assert not fleet.client.hget(key("team-a"), "best")
    best = fleet.call("best", "team-a", f"--redis={guarded['reader']}")
    assert (best.returncode, "no trial has succeeded" in best.stderr) == (4, True)
    assert actor.poll() is None
    # As it may have been stored before such reports were refused.
    stored = {"loss": -1.0, "trial": "0-0", "checkpoint": "../loot", "metrics": {}}
    stored |= {"vector": [0.5], "hyperparameters": {"rate": 0.5}}
    fleet.client.hset(key("team-a"), "best", json.dumps(stored))
    best = fleet.call("best", "team-a", f"--redis={guarded['reader']}")
    assert best.returncode != 0
    assert "not a name of the form" in " ".join(best.stderr.split())
    assert "loot" not in best.stdout
    spy.close()


E = "romul:{team-a}"
FORBIDDEN: dict[str, list[tuple[str, ...]]] = {
    "stranger": [("PING",), ("SMEMBERS", "romul:experiments")],
    "worker": [
        # It cannot decide, nor rewrite what was decided.
        ("HSET", E, "status", "finished"),
        ("HSET", f"{E}:slot:0", "loss", "0"),
        ("XADD", f"{E}:history", "*", "json", "{}"),
        ("HGETALL", f"{E}:slot:0"),
        # It reads no events, logs or dead letters of others.
        ("XRANGE", f"{E}:inbox", "-", "+"),
        ("XREADGROUP", "GROUP", "actors", "x", "STREAMS", f"{E}:inbox", ">"),
        ("XCLAIM", f"{E}:inbox", "actors", "x", "0", "0-1", "FORCE"),
        ("XACK", f"{E}:inbox", "actors", "0-1"),
        ("XDEL", f"{E}:inbox", "0-1"),
        ("XDEL", f"{E}:dead", "0-1"),
        ("XDEL", f"{E}:logs", "0-1"),
        ("XGROUP", "DELCONSUMER", f"{E}:inbox", "actors", "a"),
        ("XRANGE", f"{E}:logs", "-", "+"),
        ("XRANGE", f"{E}:dead", "-", "+"),
        # Nor does it read anything of other experiments.
        ("HGET", "romul:{other}", "spec"),
        ("XADD", "romul:{other}:inbox", "*", "m", "x"),
        ("XREADGROUP", "GROUP", "workers", "x", "STREAMS", "romul:{other}:trials", ">"),
        ("SADD", "romul:experiments", "x"),
        ("DEL", f"{E}:trials"),
        ("PEXPIRE", f"{E}:trials", "1"),
        ("XGROUP", "CREATE", f"{E}:trials", "others", "0"),
    ],
    "reader": [
        ("HSET", E, "status", "finished"),
        ("XADD", f"{E}:inbox", "*", "m", "x"),
        ("XDEL", f"{E}:history", "0-1"),
        ("DEL", E),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", E),
        ("EVAL_RO", "return redis.call('DEL', KEYS[1])", "1", E),
        ("XREADGROUP", "GROUP", "actors", "x", "STREAMS", f"{E}:inbox", ">"),
        ("HGETALL", "romul:{other}"),
    ],
    "actor": [
        ("DEL", E),
        ("SET", E, "x"),
        ("SET", f"{E}:trials", "x"),
        ("SET", "romul:experiments", "x"),
        ("PEXPIRE", E, "1"),
        ("PEXPIRE", f"{E}:history", "1"),
        ("SADD", "romul:experiments", "x"),
        ("HSET", "romul:{other}", "status", "finished"),
        ("HGETALL", "romul:{other}"),
    ],
    "operator": [
        ("HGETALL", "romul:{other}"),
        ("DEL", "romul:{other}"),
        # The list of experiments is not the team's own.
        ("DEL", "romul:experiments"),
        ("SET", "romul:experiments", "x"),
        ("PEXPIRE", "romul:experiments", "1"),
        ("XADD", "romul:experiments", "*", "m", "x"),
    ],
}
DANGEROUS = [
    ("CONFIG", "SET", "dir", "/tmp"),
    ("ACL", "LIST"),
    ("FLUSHALL",),
    ("KEYS", "*"),
    ("SHUTDOWN",),
    ("MODULE", "LOAD", "x"),
    ("DEBUG", "SLEEP", "0"),
    ("GET", "secret"),
    ("SET", "secret", "x"),
    ("PUBLISH", "c", "x"),
    ("MONITOR",),
    ("REPLICAOF", "h", "1"),
]
TRIED = [
    (role, command)
    for role in ("stranger", "worker", "reader", "actor", "operator")
    for command in [*FORBIDDEN[role], *(DANGEROUS if role != "stranger" else [])]
]


@pytest.mark.parametrize(
    ("role", "command"), TRIED, ids=lambda x: x if isinstance(x, str) else " ".join(x[:2])
)
def test_what_a_role_may_not_do_is_refused(guarded, role, command):
    client = redis.Redis.from_url(guarded[role], protocol=2)
    with pytest.raises(
        (ResponseError, AuthenticationError),
        match=r"[Nn]o permissions|not allowed|[Aa]uthentication",
    ):
        client.execute_command(*command)
    client.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("king", "u", "p"), "role 'king'"),
        (("worker", "default", "p"), "not a valid user name"),
        (("worker", "a b", "p"), "not a valid user name"),
        (("worker", "u", "p", "a} ~*"), "not a valid pattern"),
    ],
)
def test_a_user_that_would_be_another_one_is_refused(fields, message):
    with pytest.raises(AclError, match=message):
        user(*fields)


# -- the broker -----------------------------------------------------------------------------------

STATUS, NOTICE, CONTROL, RECEIVED = (
    f"romul/workers/w/{part}" for part in ("status", "notice", "control", "received")
)
EVENTS = "romul/team-a/events"
TOPICS = {STATUS, NOTICE, CONTROL, RECEIVED, EVENTS, "other/topic"}
MAY = {
    "worker": {"publish": {STATUS, NOTICE, RECEIVED}, "receive": {CONTROL}},
    "actor": {"publish": {STATUS, EVENTS}, "receive": {STATUS}},
    "reader": {"publish": set(), "receive": {STATUS, EVENTS}},
    "operator": {"publish": {CONTROL}, "receive": {STATUS, NOTICE, CONTROL, RECEIVED, EVENTS}},
}


@pytest.fixture(scope="module")
def guarded_broker(tmp_path_factory):
    """A real broker with a user for each role, as the compose file has it; URLs by role."""
    if shutil.which("mosquitto") is None:
        pytest.skip("no mosquitto here")
    folder = tmp_path_factory.mktemp("broker")
    places = {"out": "users.acl", "secrets": "secrets", "broker": "broker"}
    made = romul("acl", *(f"--{option}={folder / name}" for option, name in places.items()))
    assert made.returncode == 0, made.stderr
    with (folder / "broker" / "passwords").open("a") as out:
        out.write(password_line("all", "seen") + "\n")
    with (folder / "broker" / "acl").open("a") as out:
        out.write("user all\ntopic readwrite #\n")
    port = free_port()
    ours = (DOCKER / "mosquitto.conf").read_text()
    ours = ours.replace("listener 1883", f"listener {port} 127.0.0.1")
    ours = ours.replace("/broker/", f"{folder}/broker/")
    assert str(port) in ours
    (folder / "mosquitto.conf").write_text(ours + "\nuser root\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["mosquitto", "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log
        )
    wait_for(lambda: listens(port))
    passwords = {file.parent.name: file.read_text() for file in folder.glob("secrets/*/password")}
    assert set(passwords) == set(MAY)
    found = (folder / "broker" / "passwords").read_text()
    assert not any(password in found for password in passwords.values())
    yield {
        role: f"mqtt://{role}:{password}@127.0.0.1:{port}"
        for role, password in {**passwords, "all": "seen", "stranger": "x"}.items()
    }
    process.terminate()
    process.wait()


def mqtt(url):
    at = Broker.parse(url)
    return aiomqtt.Client(
        at.host,
        at.port,
        username=at.user,
        password=at.password,
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=5,
    )


async def received(client, last):
    """Topics of all messages up to the one whose body is `last`."""
    topics = []
    async for message in client.messages:
        if message.payload == last:
            break
        topics.append(str(message.topic))
    return topics


@pytest.mark.parametrize("role", MAY)
async def test_what_a_role_says_to_the_broker_reaches_others_only_if_it_may(guarded_broker, role):
    async with mqtt(guarded_broker["all"]) as everybody, mqtt(guarded_broker[role]) as client:
        await everybody.subscribe("#", qos=1)
        for topic in TOPICS:
            # The broker answers each before the next one is sent.
            await client.publish(topic, b"x", qos=1)
        await everybody.publish("end", b"end", qos=1)
        assert set(await received(everybody, b"end")) == MAY[role]["publish"]


@pytest.mark.parametrize("role", MAY)
async def test_what_a_role_receives_from_the_broker_is_what_it_may(guarded_broker, role):
    async with mqtt(guarded_broker["all"]) as everybody, mqtt(guarded_broker[role]) as client:
        with contextlib.suppress(aiomqtt.MqttError):
            await client.subscribe("#", qos=1)
        for topic in TOPICS:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.subscribe(topic, qos=1)
            await everybody.publish(topic, b"x", qos=1)
        await everybody.publish(min(MAY[role]["receive"]), b"end", qos=1)
        assert set(await received(client, b"end")) == MAY[role]["receive"]


async def test_who_has_no_password_does_not_reach_the_broker(guarded_broker):
    for url in (guarded_broker["stranger"], guarded_broker["stranger"].replace("stranger:x@", "")):
        with pytest.raises(aiomqtt.MqttError):
            async with mqtt(url):
                pass


async def test_a_refusal_of_the_broker_is_one_warning_and_its_passwords_file_is_read_again(
    guarded_broker, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(connection, "RETRY_S", (0.01, 0.01))
    caplog.set_level("DEBUG", "romul.presence")
    password, place = guarded_broker["worker"].removeprefix("mqtt://worker:").split("@")
    file = tmp_path / "password"
    file.write_text("old")
    monkeypatch.setenv("ROMUL_MQTT_PASSWORD_FILE", str(file))
    there = asyncio.Event()

    async def ignore(_):
        return None

    def on_change(is_there):
        if is_there:
            there.set()

    at = Broker.parse(f"mqtt://worker@{place}")
    link = connection.MqttConnection(at, "rotated", [], ignore, on_change=on_change)
    running = asyncio.create_task(link.run())
    async with asyncio.timeout(30):
        # By both versions of MQTT.
        while len(caplog.records) < 4:
            await asyncio.sleep(0.01)
        file.unlink()
        while "No such file" not in caplog.text:
            await asyncio.sleep(0.01)
        file.write_text(password)
        await there.wait()
    levels = [record.levelname for record in caplog.records]
    assert levels[0] == "WARNING"
    assert set(levels[1:]) == {"DEBUG"}
    running.cancel()
    await asyncio.wait([running])


def test_the_doors_of_the_broker_let_a_search_through(system, guarded_broker):
    """A lost worker is noticed at once and an operator drains another; passwords are in files."""
    secrets = {}
    for role in ("worker", "actor", "operator"):
        user, _, rest = guarded_broker[role].removeprefix("mqtt://").partition(":")
        password, _, place = rest.rpartition("@")
        file = system.folder / role
        file.write_text(password)
        secrets[role] = {
            "ROMUL_MQTT_URL": f"mqtt://{user}@{place}",
            "ROMUL_MQTT_PASSWORD_FILE": str(file),
            "ROMUL_MQTT_KEEPALIVE_S": "1",
        }
    system.submit(
        steps=300,
        budget=4,
        constants={"seconds": 0.3},
        timeouts={"lease_s": 60.0},
        # No other worker does the lost trial before it is missed.
        elasticity={"second_copy": 0},
    )
    system.actor(**secrets["actor"])
    doomed = system.worker("--name=doomed", **secrets["worker"])
    stays = system.worker("--name=stays", **secrets["worker"])
    wait_for(lambda: system.presence("doomed").get("state") == "training")
    wait_for(lambda: len(system.history(event="result")) > 4)
    system.kill_in_training(doomed, "doomed")
    wait_for(lambda: system.history(event="failed"), 20)
    assert system.history(event="failed")[0]["reason"] == "lost"
    refused = system.call("control", "stays", "drain", **secrets["worker"])
    assert (refused.returncode, "may not send requests to it" in refused.stderr) == (3, True)
    assert stays.poll() is None
    unknown = system.call("control", "stay", "drain", **secrets["operator"])
    assert (unknown.returncode, "did you mean 'stays'?" in unknown.stderr) == (4, True)
    assert system.call("control", "stays", "drain", **secrets["operator"]).returncode == 0
    assert stays.wait(30) == 0
