"""Processes in the images: their PID 1, their extras and their HOME."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import wait_for
from tests.system.conftest import TASKS, processes_with

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
IMAGES = ["actor", "worker"]


def last_stage(image):
    """The instructions of the last stage as pairs (word, rest), with continued lines joined."""
    text = (DOCKER / f"{image}.Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    starts = [i for i, line in enumerate(lines) if line.startswith("FROM ")]
    return [line.split(maxsplit=1) for line in lines[starts[-1] :]]


def entrypoint(image):
    [found] = [json.loads(rest) for word, rest in last_stage(image) if word == "ENTRYPOINT"]
    return found


def environment(image):
    found = [rest.split() for word, rest in last_stage(image) if word == "ENV"]
    return dict(pair.split("=", 1) for line in found for pair in line)


@pytest.mark.parametrize("image", IMAGES)
def test_the_program_before_romul_is_installed_where_it_is_named(image):
    """Kubernetes and `docker run` start no init process before that of the image."""
    first, *rest = entrypoint(image)
    assert (first, rest) == ("/usr/bin/tini", ["--", "romul"])
    [installed] = [rest for word, rest in last_stage(image) if "apt-get install" in rest]
    assert "tini" in installed.split()
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    # A second init process would not be PID 1.
    assert not any("init" in service for service in services.values())


def processes(parent):
    """(PID, program) of all descendants of a process."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    try:
        for child in map(int, children.read_text().split()):
            yield child, str(Path(f"/proc/{child}/exe").readlink())
            yield from processes(child)
    except (FileNotFoundError, ProcessLookupError):
        return


@pytest.fixture
def contained(tmp_path):
    """Start a command as PID 1, as an image does; returns (the unshare process, PID 1)."""
    started = []
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no PID namespace")

    def start(image, *arguments):
        before = [*entrypoint(image)]
        if before[0] != "romul" and shutil.which(before[0]) is None:
            pytest.skip(f"no {before[0]} here")
        program = [sys.executable, "-P", "-c", "import romul_actors.cli as c; c.main()"]
        at = before.index("romul")
        outer = subprocess.Popen(
            [*unshare, *before[:at], *program, *arguments],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(outer)
        python = os.path.realpath(sys.executable)
        wait_for(lambda: python in dict(processes(outer.pid)).values())
        return outer, next(processes(outer.pid))[0]

    yield start
    for outer in started:
        outer.kill()
        outer.wait()


@pytest.mark.parametrize("image", IMAGES)
def test_a_request_to_end_is_not_lost_before_python_listens(contained, system, image):
    """The kernel drops a signal to a PID 1 without a handler; scale-down stops young pods first."""
    outer, first = contained(image, image, f"--redis={system.url}")
    os.kill(first, signal.SIGTERM)
    # Ended by the signal itself, or by its handler.
    assert outer.wait(60) in (128 + signal.SIGTERM, 0)


def test_a_second_request_to_end_ends_a_worker_at_once(contained, system):
    """The kernel ignores the default action of a signal for PID 1."""
    system.submit(task="misbehaving:deaf", constants={"marked": 3600.7}, steps=1)
    system.actor()
    options = ("--name=w", "--grace=3600", "--allow=misbehaving", f"--path={TASKS}")
    outer, first = contained("worker", "worker", f"--redis={system.url}", *options)
    wait_for(lambda: processes_with("sleep 3600.7"))
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: system.presence("w").get("state") == "draining")
    os.kill(first, signal.SIGTERM)
    assert outer.wait(60) == 128 + signal.SIGTERM
    wait_for(lambda: not processes_with("sleep 3600.7"))


def test_what_a_tasks_processes_leave_behind_is_reaped(contained, system):
    outer, first = contained("worker", "worker", f"--redis={system.url}", "--allow=nothing")
    # A process whose parent has gone becomes a child of PID 1.
    orphan = "import os; os.fork() and os._exit(0)"
    nsenter = ["nsenter", f"--target={first}", "--pid", "--mount", sys.executable, "-c", orphan]
    # It holds the pipe's end until it has ended.
    subprocess.run(nsenter, check=True, capture_output=True)
    wait_for(lambda: "Z" not in states_of_children(first))
    assert outer.poll() is None


def states_of_children(parent):
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    states = []
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            states.append(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0])
    return states


@pytest.mark.parametrize("image", IMAGES)
def test_home_is_a_folder_that_may_be_written_to(image):
    """The root file system is read-only, and the user has no folder in it."""
    home = environment(image)["HOME"]
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert home in services[image]["tmpfs"]
    manifest = next(
        each
        for each in yaml.safe_load_all((DOCKER / f"kubernetes/base/{image}.yaml").read_text())
        if each["kind"] == "Deployment"
    )
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert home in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("image", IMAGES)
def test_extras_of_an_image_are_the_projects(image):
    text = (DOCKER / f"{image}.Dockerfile").read_text()
    extras = re.search(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)[1].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(known["optional-dependencies"])
    assert '".[${EXTRAS}]"' in text
    # The documentation leads there: checkpoints = "s3://...".
    assert ("s3" in extras) == (image == "worker")
