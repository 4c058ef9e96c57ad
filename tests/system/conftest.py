"""Fixtures for tests that use the command line and real processes, as a user does."""

import contextlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import redis

from romul_actors.core.history import from_json, to_json
from romul_actors.protocol.experiment import Experiment
from tests import warm
from tests.conftest import wait_for
from tests.unit.test_plugins import install

TASKS = Path(__file__).parents[1] / "tasks"


class System:
    """One server's experiments, and the processes of one test."""

    def __init__(self, url, folder):
        self.url = url
        self.folder = folder
        self.client: Any = redis.Redis.from_url(url, decode_responses=True, protocol=2)
        self.processes: list[warm.Command] = []
        self.environment = {**os.environ, "ROMUL_REDIS_URL": url, "OMP_NUM_THREADS": "1"}

    def start(self, *arguments, **environment):
        """Start a command in the background."""
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        process = warm.Command(arguments, {**self.environment, **environment}, log, log)
        self.processes.append(process)
        return process

    def actor(self, *options, **environment):
        return self.start("actor", *options, **environment)

    def worker(self, *options, **environment):
        return self.start(
            "worker", "--allow=misbehaving", f"--path={TASKS}", *options, **environment
        )

    def call(self, *arguments, **environment):
        """Run a command and wait for its end."""
        return warm.call(arguments, {**self.environment, **environment}, seconds=100)

    def as_json(self, *arguments):
        """The JSON that a command prints."""
        done = self.call(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, **fields):
        """Submit an experiment with small defaults."""
        given = {
            "name": "e",
            "task": "romul_workers.tasks.toys:quadratic",
            "space": {"rate": {"type": "float", "min": 1e-3, "max": 1.0, "scale": "log"}},
            "population": 4,
            "steps": 3,
            "checkpoints": str(self.folder / "checkpoints"),
            "timeouts": {"lease_s": 2.0},
            **fields,
        }
        experiment = Experiment.model_validate(given)
        file = self.folder / f"{experiment.name}.py"
        file.write_text(
            "from romul_actors.protocol.experiment import from_json\n"
            f"experiment = from_json({experiment.model_dump_json()!r})\n"
        )
        called = self.call("submit", str(file))
        assert called.returncode == 0, called.stderr
        return experiment

    def meta(self, name="e"):
        return self.client.hgetall(f"romul:{{{name}}}")

    def slot(self, index, name="e"):
        return self.client.hgetall(f"romul:{{{name}}}:slot:{index}")

    def history(self, name="e", event=None):
        """Lines as `romul history --json` shows them."""
        stored = [json.loads(f["json"]) for _, f in self.client.xrange(f"romul:{{{name}}}:history")]
        lines = [to_json(from_json(line)) for line in stored]
        return [line for line in lines if event in (None, line["event"])]

    def leases(self, name="e"):
        """The worker of each leased trial."""
        rows = self.client.xpending_range(f"romul:{{{name}}}:trials", "workers", "-", "+", 100)
        return {row["message_id"]: row["consumer"] for row in rows}

    def presence(self, worker, name="e"):
        """What a worker last announced of itself."""
        return json.loads(self.client.hget(f"romul:{{{name}}}:workers", worker) or "{}")

    def kill_in_training(self, process, worker, name="e"):
        """Kill a worker while it trains, not between two trials."""

        def caught():
            # A stopped process ends no trial; what it has just sent arrives meanwhile.
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            if worker in self.leases(name).values():
                return True
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
            return False

        wait_for(caught)
        process.kill()

    def wait_for_status(self, status, name="e", seconds=150.0):
        def reached():
            meta = self.meta(name)
            # The reason of a failed search says more than the end of the wait.
            assert meta["status"] != "failed" or status == "failed", meta["reason"]
            return meta["status"] == status

        wait_for(reached, seconds)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.client.flushdb()
        self.client.close()


@pytest.fixture
def system(redis_url, tmp_path):
    made = System(redis_url, tmp_path)
    made.client.flushdb()
    yield made
    made.close()


@pytest.fixture(scope="module")
def toy(redis_url, tmp_path_factory):
    """A finished search on a toy problem, for tests that only read."""
    # A database of its own, which no other test of the module empties.
    made = System(f"{redis_url.removesuffix('/0')}/1", tmp_path_factory.mktemp("toy"))
    made.submit(name="toy", steps=6, constants={"seconds": 0.02}, budget=5)
    made.actor()
    made.worker()
    made.worker()
    made.wait_for_status("finished", "toy")
    yield made
    made.close()


def timeless(line):
    """A line of history without the time of its event."""
    return {key: value for key, value in line.items() if key != "at_ms"}


def processes_with(text):
    """Command lines of all processes with `text` in the command line or the working folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (
                (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            if text in command or text in str((process / "cwd").readlink()):
                found.append(command)
    return found


def program(file, *options):
    """Run a Python program in this process, which has already imported its modules."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(file), *options])
        patch.syspath_prepend(file.parent)
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with streams[0], streams[1], warnings.catch_warnings():
            # It may warn: its own interpreter would only print that.
            warnings.simplefilter("ignore")
            try:
                runpy.run_path(str(file), run_name="__main__")
            except SystemExit as ended:
                code = ended.code
    if isinstance(code, str):
        err.write(code)
        code = 1
    return subprocess.CompletedProcess([file, *options], code, out.getvalue(), err.getvalue())


class HangingStore:
    """An object store that accepts connections but never answers."""

    def __init__(self, listening):
        self._listening = listening
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def reached(self):
        """Whether a client waits for an answer."""
        return bool(select.select([self._listening], [], [], 0)[0])


@pytest.fixture
def hanging_store():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield HangingStore(listening)


def aws(address):
    """Environment variables that point a process at an object store."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }


OVERFLOWING = """
from typing import ClassVar

from romul_actors.core.optimizers.romul import Romul


class Overflowing(Romul):
    name: ClassVar[str] = "overflowing"
"""
"""An optimizer from an installed package; the ranges of its constants are unknown."""


def install_overflowing(folder, monkeypatch):
    """Install that optimizer for all processes of a test."""
    install(folder, "overflowing", OVERFLOWING, optimizers="overflowing = overflowing:Overflowing")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
