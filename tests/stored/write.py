"""Write what this commit stores, as fixtures for later ones: python -m tests.stored.write FOLDER.

Three searches of the shipped bowl, run as a user runs them: one that finished, one that was paused
and whose `romul run` was then interrupted, and one whose actor and workers were killed while they
held trials. The folder must not be there yet: what an older commit wrote is never written again.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import redis

from tests.conftest import wait_for
from tests.stored.listing import dump, read_folder, to_text

ROMUL = [sys.executable, "-m", "romul_actors.cli"]
SPACE = """
[space]
rate = { type = "float", min = 1e-3, max = 1.0, scale = "log" }
momentum = { type = "float", min = 0.0, max = 0.9 }
shift = { type = "int", min = 0, max = 3 }
kind = { type = "categorical", choices = ["gaussian", "uniform"] }
nesterov = { type = "boolean" }
width = { type = "int", min = 16, max = 256, scale = "log", mutable = false }
"""
DECLARATION = """
name = "{name}"
task = "romul_workers.tasks.toys:quadratic"
metric = "loss"
population = 8
steps = {steps}
budget = 4
budget_unit = "update"
seed = 7
constants = {{ seconds = {seconds} }}
timeouts = {{ lease_s = 3.0 }}
"""
PLACE = "/stored"
"""Placeholder in a listing for the folder in which the search ran."""


def call(*arguments):
    return subprocess.run([*ROMUL, *arguments], check=True, capture_output=True, text=True).stdout


def declared(folder, name, steps, seconds):
    file = folder / f"{name}.toml"
    file.write_text(DECLARATION.format(name=name, steps=steps, seconds=seconds) + SPACE)
    return file


@contextlib.contextmanager
def running(*arguments):
    """A command in its own process group, which is killed at the end."""
    process = subprocess.Popen([*ROMUL, *arguments], start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def client_of(run):
    file = run / "redis.url"
    url = wait_for(lambda: file.exists() and file.read_text())
    client = redis.Redis.from_url(url, protocol=2)

    def answers():
        with contextlib.suppress(redis.ConnectionError):
            return client.ping()
        return False

    wait_for(answers)
    return client


def count(client, name, field):
    return int(client.hget(f"romul:{{{name}}}", field) or 0)


def training(client, name):
    """Process ids of the workers that are training, according to their presence."""
    workers = [json.loads(text) for text in client.hvals(f"romul:{{{name}}}:workers")]
    return [presence["pid"] for presence in workers if presence["state"] == "training"]


def write_listing(client, runs, name, to):
    """The keys, the checkpoints and the run file."""
    keys = dump(client)
    place = runs / name
    files = {
        **read_folder(place, "run.json"),
        **read_folder(place, "checkpoints/**/*"),
    }
    (to / f"{name}.json").write_text(to_text({"keys": keys, "files": files}))


def finished(folder, runs, to):
    call("run", str(declared(folder, "finished", 4, 0.02)), f"--runs={runs}")
    place = runs / "finished"
    with running("serve", str(place)):
        client = client_of(place)
        write_listing(client, runs, "finished", to)
        call("record", "finished", f"--redis={place}", f"--to={to / 'finished.record.jsonl'}")
        call("export", "finished", f"--redis={place}", f"--to={to / 'finished.history.jsonl'}")


def paused(folder, runs, to):
    file = declared(folder, "paused", 4, 2.5)
    place = runs / "paused"
    with running("run", str(file), f"--runs={runs}", "--no-broker") as process:
        client = client_of(place)
        wait_for(lambda: count(client, "paused", "reported") >= 20)
        wait_for(lambda: len(training(client, "paused")) == 2)
        call("pause", "paused", f"--redis={place}")
        wait_for(lambda: client.hget("romul:{paused}", "status") == b"paused")
        # A worker that is terminated during a trial releases it with the training so far.
        for pid in training(client, "paused"):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: client.xpending("romul:{paused}:trials", "workers")["pending"] == 0)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    with running("serve", str(place)):
        client = client_of(place)
        write_listing(client, runs, "paused", to)
        slots = [client.hgetall(f"romul:{{paused}}:slot:{i}") for i in range(8)]
    if not any(slot[b"partial"] for slot in slots):
        raise SystemExit("no trial was cut short by the interruption: try again")


def killed(folder, runs, to):
    file = declared(folder, "killed", 4, 0.5)
    place = runs / "killed"
    with running("run", str(file), f"--runs={runs}", "--no-broker") as process:
        client = client_of(place)
        wait_for(lambda: count(client, "killed", "reported") >= 20)
        # First the parents are stopped, so that nothing is restarted; then all but the server die.
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: len(training(client, "killed")) == 2)
        server = int((place / "redis" / "server.pid").read_text())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in map(int, children):
            if child != server:
                os.kill(child, signal.SIGKILL)
        write_listing(client, runs, "killed", to)
        client.shutdown(nosave=True)


def main(folder):
    to = Path(folder)
    to.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for write in (finished, paused, killed):
            write(place, place / "runs", to)
        for path in to.iterdir():
            text = path.read_text()
            for name in ("finished", "paused", "killed"):
                text = text.replace(str(place / "runs" / name), PLACE)
            path.write_text(text.replace(str(place), PLACE))
    sizes = {path.name: path.stat().st_size for path in sorted(to.iterdir())}
    print(json.dumps(sizes))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
