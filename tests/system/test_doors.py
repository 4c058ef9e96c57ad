"""Users of the server: each line of SECURITY.md's table is tried."""

import contextlib
import socket
import subprocess
import sys
import time

import pytest
import redis
from redis.exceptions import AuthenticationError, ResponseError

from romul_actors.server import find_server, free_port
from romul_actors.store.acl import AclError, user
from tests.conftest import wait_for
from tests.system.conftest import System


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a user for each role, for experiments called team-*; URLs by role."""
    folder = tmp_path_factory.mktemp("acl")
    file = folder / "users.acl"
    made = subprocess.run(
        [
            *(sys.executable, "-m", "romul_actors.cli", "acl", f"--out={file}"),
            *(f"--secrets={folder / 'secrets'}", "--experiment=team-*"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
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
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.05)
    roles = {}
    for secret in (folder / "secrets").glob("*/password"):
        role = secret.parent.name
        roles[role] = f"redis://{role}:{secret.read_text()}@127.0.0.1:{port}/0"
        assert secret.stat().st_mode & 0o077 == 0
        assert secret.read_text() not in file.read_text()
    roles["root"] = f"redis://root:x@127.0.0.1:{port}/0"
    roles["nobody"] = f"redis://127.0.0.1:{port}/0"
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
    fleet.start("actor", f"--redis={guarded['actor']}")
    # What another team has on the server keeps nobody from working.
    fleet.client.sadd("romul:experiments", "other")
    fleet.client.hset("romul:{other}", mapping={"status": "running", "slots": 0})
    worker = fleet.start("worker", f"--redis={guarded['worker']}")
    fleet.wait_for_status("finished", "team-a")
    assert "refuses" not in worker.log.read_text()
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


def test_a_password_may_come_from_a_file(guarded, fleet):
    fleet.submit(name="team-c")
    url = guarded["reader"]
    password, place = url.removeprefix("redis://reader:").split("@")
    file = fleet.folder / "password"
    file.write_text(password + "\n")
    without = f"--redis=redis://reader@{place}"
    done = fleet.call("status", without, "--json", ROMUL_REDIS_PASSWORD_FILE=str(file))
    assert '"team-c"' in done.stdout
    # A password in the URL goes before.
    file.write_text("wrong")
    assert fleet.call("status", without, ROMUL_REDIS_PASSWORD_FILE=str(file)).returncode != 0
    known = fleet.call("status", f"--redis={url}", ROMUL_REDIS_PASSWORD_FILE=str(file))
    assert known.returncode == 0
    missing = fleet.call("status", without, ROMUL_REDIS_PASSWORD_FILE="/nowhere")
    assert "ROMUL_REDIS_PASSWORD_FILE" in " ".join(missing.stderr.split())


def test_a_killed_workers_trial_comes_back_behind_doors_too(guarded, fleet):
    fleet.submit(name="team-b", steps=3, budget=4, constants={"seconds": 1.0})
    fleet.start("actor", f"--redis={guarded['actor']}")
    doomed = fleet.start("worker", f"--redis={guarded['worker']}")
    wait_for(lambda: fleet.client.xpending("romul:{team-b}:trials", "workers")["pending"], 30)
    doomed.kill()
    fleet.start("worker", f"--redis={guarded['worker']}")
    fleet.wait_for_status("finished", "team-b", 90)
    assert "lost" in fleet.meta("team-b")["causes"]


E = "romul:{team-a}"
FORBIDDEN = {
    "nobody": [("PING",), ("SMEMBERS", "romul:experiments")],
    "worker": [
        # It cannot decide, nor rewrite what was decided.
        ("HSET", E, "status", "finished"),
        ("HSET", f"{E}:slot:0", "loss", "0"),
        ("XADD", f"{E}:history", "*", "json", "{}"),
        ("HGETALL", f"{E}:slot:0"),
        # It reads no events, logs or dead messages of others.
        ("XRANGE", f"{E}:inbox", "-", "+"),
        ("XREADGROUP", "GROUP", "actors", "x", "STREAMS", f"{E}:inbox", ">"),
        ("XRANGE", f"{E}:logs", "-", "+"),
        ("XRANGE", f"{E}:dead", "-", "+"),
        # Nor anything of other experiments.
        ("HGET", "romul:{other}", "spec"),
        ("XADD", "romul:{other}:inbox", "*", "m", "x"),
        ("XREADGROUP", "GROUP", "workers", "x", "STREAMS", "romul:{other}:trials", ">"),
        ("SADD", "romul:experiments", "x"),
        ("DEL", f"{E}:trials"),
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
        ("SADD", "romul:experiments", "x"),
        ("HSET", "romul:{other}", "status", "finished"),
        ("HGETALL", "romul:{other}"),
    ],
    "operator": [("HGETALL", "romul:{other}"), ("DEL", "romul:{other}")],
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
    for role in ("nobody", "worker", "reader", "actor", "operator")
    for command in [*FORBIDDEN[role], *(DANGEROUS if role != "nobody" else [])]
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
    ("fields", "told"),
    [
        (("king", "u", "p"), "role 'king'"),
        (("worker", "default", "p"), "no name"),
        (("worker", "a b", "p"), "no name"),
        (("worker", "u", "p", "a} ~*"), "no pattern"),
    ],
)
def test_a_user_that_would_be_another_one_is_refused(fields, told):
    with pytest.raises(AclError, match=told):
        user(*fields)
