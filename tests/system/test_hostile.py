"""Hostile text from tasks, workers and files controls no terminal and breaks no command."""

import asyncio
import csv
import io
import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from typer.main import get_command

import romul as python
from romul_actors.actor.loop import Actor
from romul_actors.cli import main
from romul_actors.cli.app import app
from romul_actors.core.events import Failed, Submitted
from romul_actors.local.mqtt_broker import embedded_broker
from romul_actors.mqtt.bridge import Bridge
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.connection import connected, publish_on
from romul_actors.mqtt.topics import status
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.messages import encode
from romul_actors.store.redis import RedisStore
from romul_workers.child.trainer import ChildTrainer
from romul_workers.worker.loop import Worker
from romul_workers.worker.settings import WorkerSettings
from tests.conftest import wait_for
from tests.system.conftest import TASKS
from tests.tasks.hostile import BAD

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
SEEN = r"\x1b]0;"
"""The beginning of every hostile text, as it is displayed."""
FIELDS = {
    "name": "hostile",
    "task": "hostile",
    "metric": f"{BAD}loss",
    "space": {
        f"{BAD}x": {"type": "float", "min": 0.0, "max": 1.0},
        "c": {"type": "categorical", "choices": [BAD, "[red]x[/red]", "$\\frac$"]},
    },
    "population": 4,
    "steps": 2,
    "max_attempts": 1,
}

# Command, and whether text of the experiment's must be seen in what it prints. {url}, {folder}.
INVOCATIONS = {
    "run": ("run {folder}/again.py --redis {url} --runs {folder}/runs --workers 1", True),
    "check": ("check {folder}/again.py --path {tasks} --grace 1", True),
    "submit": ("submit {folder}/other.py --redis {url}", False),
    "status": ("status --redis {url}", True),
    "ls": ("ls --redis {url}", True),
    "show": ("show hostile --redis {url}", True),
    "best": ("best hostile --redis {url}", True),
    "pause": ("pause other --redis {url}", False),
    "resume": ("resume other --redis {url}", False),
    "stop": ("stop other --redis {url}", False),
    "pin": ("pin other 0 --redis {url}", False),
    "bounds": ("bounds hostile {bad}x --min 0.1 --max 0.2 --redis {url}", True),
    "extend": ("extend other --steps 9 --redis {url}", False),
    "change": ("change other --population 6 --set factor=0.3 --redis {url}", False),
    "top": ("top hostile --once --redis {url}", True),
    "workers": ("workers hostile --redis {url}", True),
    "history": ("history hostile -n 1000 --redis {url}", True),
    "lineage": ("lineage hostile 0 --redis {url}", True),
    "explain": ("explain hostile 0-1 --redis {url}", True),
    "logs": ("logs hostile 0-0 --redis {url}", True),
    "waste": ("waste hostile --redis {url}", True),
    "doctor": ("doctor --redis {url}", True),
    "report": ("report hostile --to {folder}/report.html --redis {url}", False),
    "export": ("export hostile --to {folder}/out.csv --redis {url}", False),
    "record": ("record hostile --to {folder}/record.jsonl --redis {url}", False),
    "replay": ("replay {folder}/record.jsonl --set optimizer.name=random --seeds 1", True),
    "failures": ("failures hostile --redis {url}", True),
    "collect": ("collect hostile --older 0 --dry-run --redis {url}", False),
    "schedule export": ("schedule export hostile --to {folder}/s.json --redis {url}", True),
    "schedule train": ("schedule train {folder}/s.json --allow hostile --path {tasks}", True),
    "dead list": ("dead list hostile --redis {url}", True),
    "dead retry": ("dead retry hostile {bad} --redis {url}", True),
    "dead drop": ("dead drop hostile {bad} --redis {url}", True),
    "remove": ("remove other --yes --redis {url}", False),
    "rm": ("rm {bad} --yes --redis {url}", True),
}
EXCEPTIONS = {
    "demo": "trains its own experiment",
    "sim": "simulates experiments of its own",
    "lab": "simulates experiments of its own",
    "bench": "trains experiments of its own",
    "chaos": "simulates experiments of its own",
    "drill": "breaks an experiment of its own",
    "actor": "prints its log only: see the test of the log",
    "worker": "prints its log only: see the test of the log",
    "launch": "prints its log only: see the test of the log",
    "serve": "shows the server's address only",
    "dashboard": "shows its own address only; a browser shows the rest",
    "control": "shows what it was given as arguments only",
    "acl": "makes users; it knows no experiment",
}


class Terminal(io.StringIO):
    """A terminal: nothing is removed from its output, unlike that of a file."""

    def isatty(self):
        return True


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(get_command(app)))


def write(file, **fields):
    text = Experiment.model_validate({**FIELDS, **fields}).model_dump_json()
    file.write_text(
        "from romul_actors.protocol.experiment import from_json\n"
        f"experiment = from_json({text!r})\n"
    )


async def fill(url, folder):
    """Run a search with a real actor, and a worker with a hostile name."""
    store = RedisStore(url)
    given = Experiment.model_validate({**FIELDS, "checkpoints": str(folder / "checkpoints")})
    await store.create("hostile", given.model_dump_json(), encode(Submitted()))
    settings = WorkerSettings(name=f"{BAD}worker", allow=("hostile",), pace_s=0.05)
    worker = Worker(store, ChildTrainer(folder / "scratch", [TASKS]), settings)
    stop = asyncio.Event()
    running = [asyncio.create_task(part.run(stop)) for part in (Actor(store, "a"), worker)]
    async with asyncio.timeout(60):
        while (await store.load("hostile")).meta["status"] != "finished":
            await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*running)
    presence = {"state": BAD, "trial": BAD, "host": BAD, "pid": 1}
    await store.present(["hostile"], f"{BAD}worker", presence)
    await store.create(f"{BAD}name", "no JSON", encode(Submitted()))
    await store.close()


@pytest.fixture(scope="module")
def place(redis_url, tmp_path_factory):
    """A server with a hostile experiment, and a folder with files for commands."""
    folder = tmp_path_factory.mktemp("hostile")
    client = redis.Redis.from_url(redis_url, protocol=2)
    client.flushdb()
    asyncio.run(fill(redis_url, folder))
    dead: dict[Any, Any] = {"origin": BAD, "reason": BAD, "body": BAD, "size": "1"}
    client.xadd("romul:{hostile}:dead", dead)
    client.hset("romul:{hostile}", "reason", BAD)
    (folder / "checkpoints" / BAD).mkdir()
    write(folder / "again.py", name="again")
    write(folder / "other.py", name="other", checkpoints=str(folder / "other"))
    yield {"url": redis_url, "folder": folder, "tasks": TASKS, "bad": BAD}
    client.flushdb()
    client.close()


@pytest.fixture
def call(monkeypatch):
    """Run a command in this process, on a terminal."""

    def run(line, place, columns=1000):
        arguments = [part.format(**place) for part in line.split(" ")]
        for name, value in {"COLUMNS": str(columns), "TERM": "dumb", "LINES": "100"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", f"{TASKS}:{':'.join(filter(None, sys.path))}")
        out, err = Terminal(), Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["romul", *arguments])
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit):
                main()
        return out.getvalue(), err.getvalue()

    return run


def test_every_command_is_tried_or_excepted():
    assert {*INVOCATIONS, *EXCEPTIONS} == {*COMMANDS}


def test_no_command_lets_control_characters_through(place, call):
    for name, (line, shows) in INVOCATIONS.items():
        out, err = call(line, place)
        assert (name, CONTROL.findall(out + err)) == (name, [])
        assert (name, "Traceback" in err, (out + err).strip() == "") == (name, False, False)
        # JSON inside text for people has JSON's own escapes.
        seen = SEEN in (out + err).replace(r"\u001b", r"\x1b")
        assert (name, seen or not shows) == (name, True)


def test_what_is_for_programs_keeps_every_character_and_is_harmless_too(place, call):
    with_json = [n for n, c in COMMANDS.items() if any("--json" in p.opts for p in c.params)]
    printed = {}
    for name in with_json:
        # A run of that name is there already, if the other test was first.
        if name in INVOCATIONS and name not in ("run", "replay", "schedule train"):
            out, _ = call(INVOCATIONS[name][0] + " --json", place)
            assert (name, CONTROL.findall(out)) == (name, [])
            printed[name] = [json.loads(line) for line in out.splitlines()]
    assert printed["status"][0][0]["metric"] in (f"{BAD}loss", "")
    assert printed["show"][0]["metric"] == f"{BAD}loss"
    assert printed["workers"][0][0]["worker"] == f"{BAD}worker"
    assert printed["logs"][0][0]["text"].startswith(BAD)
    assert any(f"{BAD}seen" in line.get("metrics", {}) for line in printed["history"])

    folder = place["folder"]
    for suffix in ("csv", "jsonl", "parquet"):
        call(f"export hostile --to {{folder}}/out.{suffix} --redis {{url}}", place)
    with (folder / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    for exported in (rows, pq.read_table(folder / "out.parquet").to_pylist()):
        assert {row["worker"] for row in exported} >= {f"{BAD}worker"}
        assert f"h.{BAD}x" in exported[0]
        assert BAD in {row["h.c"] for row in exported}
    assert f"{BAD}worker" in {line.get("worker") for line in lines}


def test_what_python_shows_of_a_search_is_harmless(place):
    with pytest.warns(python.AdviceWarning) as warned:
        result = python.wait("hostile", redis=place["url"], progress=False)
    assert result.reason == BAD
    for shown in (repr(result), result._repr_html_(), *(str(each.message) for each in warned)):
        assert CONTROL.findall(shown) == []
        assert SEEN in shown


async def test_the_error_of_a_search_whose_failures_are_forged_is_harmless(place):
    store = RedisStore(place["url"])
    given = Experiment.model_validate({**FIELDS, "name": "forged", "max_attempts": 100})
    await store.create("forged", given.model_dump_json(), encode(Submitted()))
    actor = Actor(store, "a", ["forged"], pace_s=0.01)
    waiting = asyncio.create_task(python.wait_async("forged", redis=place["url"], progress=False))
    whose: dict[str, Any] = {"worker": BAD, "seconds": 1.0, "reason": "exception", "message": BAD}
    for attempt in itertools.count(1):
        for slot in range(4):
            report = Failed(trial=f"{slot}-0", slot=slot, attempt=attempt, **whose)
            await store.send("forged", encode(report))
        while int((await store.load("forged")).meta.get("retried") or 0) < 4 * attempt:
            await actor.turn()
        # It follows from when it began to wait.
        if (await asyncio.wait([waiting], timeout=0.5))[0]:
            break
    with pytest.raises(python.SearchFailedError) as raised:
        await waiting
    assert CONTROL.findall(str(raised.value)) == []
    assert SEEN in str(raised.value)
    await store.remove("forged")
    await store.close()


def test_the_report_is_harmless(place, call):
    call("report hostile --to {folder}/page.html --redis {url}", place)
    page = (place["folder"] / "page.html").read_text(encoding="utf-8")
    assert CONTROL.findall(page) == []
    assert f"{SEEN}owned" in page


# Key, field and value: what this project writes into no hash.
DAMAGE = [
    ("", "best", "{"),
    ("", "best", '{"trial": 3}'),
    ("", "causes", "[1]"),
    ("", "created", "many"),
    (":slot:0", "step", "first"),
    (":slot:0", "live", "{}"),
    (":slot:0", "vector", "[0.5"),
    (":slot:0", "latest", "7"),
    (":slot:0", "hyperparameters", "[]"),
    (":slot:0", "outcomes", '{"0": 1}'),
    (":slot:0", "since_ms", ""),
]
READS_NO_STORE = {"run", "check", "submit", "replay", "schedule train", "remove", "rm", "doctor"}


@pytest.mark.parametrize(("part", "field", "value"), DAMAGE, ids=str)
def test_garbage_in_a_hash_is_named_and_hides_no_other_experiment(
    place, call, damaged, part, field, value
):
    damaged.hset(f"romul:{{hostile}}{part}", field, value)
    named = set()
    for name, (line, _) in INVOCATIONS.items():
        if name not in READS_NO_STORE:
            out, err = call(line, place)
            assert (name, "Traceback" in err, (out + err).strip() == "") == (name, False, False)
            words = " ".join((out + err).split())
            if f"field '{field}' holds" in words:
                assert (name, "experiment 'hostile'" in words) == (name, True)
                assert (name, "docs/redis.md" in words) == (name, True)
                named.add(name)
    assert named
    rows = json.loads(call("status --json --redis {url}", place)[0])
    assert {"hostile", f"{BAD}name"} <= {row["name"] for row in rows}
    found = " ".join(call("doctor --redis {url}", place)[0].split())
    # Of a server that answers late, as on a busy machine, it says so.
    assert "the server answers" in found or "the server took" in found
    assert f"field '{field}' holds" in found or field in ("vector", "outcomes")


@pytest.fixture
def damaged(place):
    """A client for changes of hashes, which are restored at the end."""
    client = redis.Redis.from_url(place["url"], protocol=2)
    keys = ["romul:{hostile}", "romul:{hostile}:slot:0"]
    before: dict[str, Any] = {key: client.hgetall(key) for key in keys}
    yield client
    for key, fields in before.items():
        client.hset(key, mapping=fields)
    client.close()


@pytest.mark.parametrize("command", ["actor", "worker"])
def test_the_log_is_harmless(place, tmp_path, command):
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "romul_actors.cli",
                command,
                f"--name={BAD}",
                f"--redis={place['url']}",
            ],
            stderr=output,
        )
    try:
        # Both refuse the experiment with an invalid declaration, and name it.
        wait_for(lambda: "not JSON" in log.read_text(encoding="utf-8"))
    finally:
        process.terminate()
        process.wait()
    printed = log.read_text(encoding="utf-8")
    assert CONTROL.findall(printed) == []
    assert f"{SEEN}owned" in printed


@pytest.mark.parametrize("hostile", [b"[" * 100_000, b"\xff", b"{", b"[]", b'{"session": NaN}'])
async def test_whatever_one_worker_says_to_the_broker_the_next_lost_one_is_noticed(
    tmp_path, hostile
):
    class Sweeping:
        swept = asyncio.Event()

        async def lost(self, worker):
            assert worker == "w"
            self.swept.set()
            return 0

    actor: Any = Sweeping()
    async with embedded_broker(tmp_path) as url:
        broker = Broker.parse(url)
        bridge = asyncio.create_task(Bridge(broker, "actor").run(actor))
        async with connected(broker) as client:
            await client.publish(status("x", "lost", 1.0).topic, hostile, qos=1, retain=True)
            await publish_on(client, status("w", "lost", 1.0))
            async with asyncio.timeout(30):
                await actor.swept.wait()
        assert not bridge.done()
        bridge.cancel()
        await asyncio.wait([bridge])
