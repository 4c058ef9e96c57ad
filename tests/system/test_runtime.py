"""Actors and workers as processes, and what happens to them."""

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections import Counter

import msgpack
import pytest

from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import embedded_server
from tests.conftest import wait_for
from tests.system.conftest import System, processes_with, timeless


def decisions(system, name="e"):
    """Every decision by its trial, without times and worker names."""
    return {line["trial"]: timeless(line) for line in system.history(name, "trial")}


def outcomes(system, name="e"):
    return {line["trial"]: line["value"] for line in system.history(name, "result")}


@pytest.mark.parametrize(
    ("options", "early"),
    [(["--allow=early"], True), (["--allow=ear*"], False), (["--allow=early", "--allow=x"], False)],
)
def test_a_worker_that_is_allowed_one_task_imports_it_before_there_is_a_trial(
    system, tmp_path, options, early
):
    marker = tmp_path / "imported"
    (tmp_path / "early.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "def train(trial):\n    (trial.checkpoint / 'x').touch()\n    return 0.0\n"
    )
    system.start("worker", f"--path={tmp_path}", *options)
    if early:
        wait_for(marker.exists)
    system.submit(task="early", steps=1)
    # Nothing is decided yet, so no trial is there: the worker has had the time to see the search.
    wait_for(lambda: system.client.hlen("romul:{e}:workers"))
    assert marker.exists() is early
    system.actor()
    system.wait_for_status("finished")
    assert marker.exists()


def probed(process, path):
    """The HTTP status of a process, as soon as it answers."""
    pattern = r"metrics: (http://127\.0\.0\.1:\d+)/metrics"
    found = wait_for(lambda: re.search(pattern, process.log.read_text()))
    try:
        with urllib.request.urlopen(f"{found[1]}/{path}", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_actor_and_worker_wait_for_a_server_that_is_not_there_yet(background, tmp_path):
    port = free_port()
    waiting = System(f"redis://:secret@127.0.0.1:{port}/0", tmp_path)
    actor = waiting.actor("--metrics-port=0")
    worker = waiting.worker("--metrics-port=0")
    said = f"127.0.0.1:{port}/0: no Redis or Valkey server answers .*; waiting up to 15 minutes"
    for process in (actor, worker):
        wait_for(lambda process=process: re.search(said, process.log.read_text()))
        answers = {path: probed(process, path) for path in ("healthz", "readyz", "metrics")}
        assert answers == {"healthz": 200, "readyz": 503, "metrics": 200}
        assert "secret" not in process.log.read_text()
    server = embedded_server(tmp_path / "server", port=port, password="secret", durable=False)
    _, end = background.enter(server)
    try:
        for process in (actor, worker):
            wait_for(lambda process=process: probed(process, "readyz") == 200)
            assert "the server answers" in process.log.read_text()
        waiting.submit(steps=1)
        waiting.wait_for_status("finished")
    finally:
        waiting.close()
        end()


@pytest.mark.parametrize("command", ["actor", "worker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_server(system, command, number):
    process = system.start(command, "--redis=redis://127.0.0.1:1/0")
    wait_for(lambda: "waiting up to" in process.log.read_text())
    process.send_signal(number)
    assert process.wait(30) == 0
    assert "Traceback" not in process.log.read_text()


def test_a_notice_ends_a_workers_wait_for_a_server(system):
    process = system.start("worker", "--redis=redis://127.0.0.1:1/0", "--notice-s=120")
    wait_for(lambda: "waiting up to" in process.log.read_text())
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 0
    assert "this machine ends in 120 s; no server has answered yet" in process.log.read_text()
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://default:wrong@{place}", "access refused"),
        ("http://{place}", "http://"),
    ],
)
def test_a_server_that_cannot_be_used_is_not_waited_for(system, url, said):
    place = system.url.rpartition("@")[2]
    for command in ("actor", "worker"):
        called = system.call(command, "--redis", url.format(place=place))
        assert called.returncode == 3
        assert said in called.stderr
        assert "waiting up to" not in called.stderr


def test_two_actors_on_one_experiment_decide_every_result_once(system):
    system.submit(population=16, steps=10)
    actors = [system.actor(), system.actor()]
    for _ in range(2):
        system.worker()
    system.wait_for_status("finished")
    assert set(Counter(line["trial"] for line in system.history(event="trial")).values()) == {1}
    results = Counter(line["trial"] for line in system.history(event="result"))
    assert set(results.values()) == {1}
    assert len(results) == 160
    meta = system.meta()
    assert (meta["created"], meta["reported"], meta["retried"]) == ("160", "160", "0")
    assert all(actor.poll() is None for actor in actors)


def test_a_worker_that_must_go_gives_its_trial_back_and_takes_its_children_along(system):
    system.submit(task="misbehaving:deaf", constants={"marked": 3600.125}, steps=1)
    system.actor()
    worker = system.worker("--grace=0.5")
    wait_for(lambda: len(processes_with("sleep 3600.125")) == 2)
    worker.terminate()
    assert worker.wait(30) == 0
    [line] = wait_for(lambda: system.history(event="released"))
    assert line["reason"] == "preempted"
    assert system.slot(0)["failures"] == "0"
    wait_for(lambda: not processes_with("sleep 3600.125"))


def test_what_a_task_started_ends_with_the_tasks_process(system):
    constants = {"marked": 3600.75, "dies": True}
    system.submit(task="misbehaving:deaf", constants=constants, steps=1, max_attempts=1)
    system.actor()
    worker = system.worker()
    system.wait_for_status("failed")
    assert {line["reason"] for line in system.history(event="failed")} == {"killed"}
    assert worker.poll() is None
    wait_for(lambda: not processes_with("sleep 3600.75"))


def test_a_worker_warns_of_another_one_with_its_name(system):
    system.submit(task="misbehaving:slow", steps=1, timeouts={"lease_s": 3})
    system.actor()
    workers = [system.worker("--name=w", "--grace=0") for _ in range(2)]
    for worker, other in (workers, workers[::-1]):
        said = f"process {other.pid} on {socket.gethostname()} is a worker named w, too"
        wait_for(lambda worker=worker, said=said: said in worker.log.read_text())
    alone = system.worker("--name=v", "--grace=0")
    wait_for(lambda: system.presence("v").get("state") == "training")
    for worker in (*workers, alone):
        worker.terminate()
        worker.wait(30)
    assert "is a worker named" not in alone.log.read_text()


def test_a_task_that_listens_ends_early_and_what_it_returns_does_not_count(system):
    system.submit(task="misbehaving:slow", steps=1)
    system.actor()
    worker = system.worker("--grace=30")
    wait_for(lambda: any("training" in v for v in system.client.hvals("romul:{e}:workers")))
    worker.terminate()
    assert worker.wait(30) == 0
    wait_for(lambda: system.history(event="released"))
    assert system.meta()["reported"] == "0"


HOW = {
    "raises": ("exception", "ValueError: the task's own words"),
    "kills itself": ("killed", "signal SIGKILL; its last words:\nlast words"),
    "exits": ("exception", "SystemExit: 3"),
    "out of memory": ("out_of_memory", "MemoryError: no more"),
    "writes nothing": ("no_checkpoint", "wrote nothing"),
    "is not a number": ("not_finite", "loss is nan"),
    "is infinite": ("not_finite", "loss is inf"),
    "is text": ("bad_result", "loss = '0.5', which is not a number"),
    "is nothing": ("bad_result", "loss = None, which is not a number"),
    "lacks the metric": ("bad_result", "no 'loss', which the experiment goes by, but accuracy"),
}


def test_every_way_to_fail_has_its_reason_and_the_run_goes_on(system):
    space = {
        "how": {"type": "categorical", "choices": ["is fine", "is many", *HOW]},
        "x": {"type": "float", "min": 0.0, "max": 1.0},
    }
    # One slot for each way at the first step.
    initial = [{"how": how, "x": 0.5} for how in ("is fine", "is many", *HOW)]
    system.submit(
        task="misbehaving",
        space=space,
        initial=initial,
        population=len(initial),
        steps=2,
        max_attempts=1,
        timeouts={"lease_s": 5.0},
    )
    system.actor()
    for _ in range(2):
        system.worker()
    system.wait_for_status("finished")
    first = {
        line["trial"]: line["hyperparameters"]["how"] for line in system.history(event="trial")
    }
    failures = {
        first[line["trial"]]: line for line in system.history(event="failed") if line["step"] == 0
    }
    for how, (reason, words) in HOW.items():
        assert failures[how]["reason"] == reason
        assert words in failures[how]["message"]
    results = {
        first[line["trial"]]: line for line in system.history(event="result") if line["step"] == 0
    }
    assert results["is fine"]["value"] == results["is many"]["value"] == 0.5
    assert results["is many"]["metrics"] == {"accuracy": 0.5}
    # A slot that failed went on from one that had not.
    parents = {
        line["slot"]: line["parent"] for line in system.history(event="trial") if line["step"] == 1
    }
    assert set(parents.values()) == {"0-0", "1-0"}


def test_a_trial_that_hangs_is_ended(system):
    space = {
        "how": {"type": "categorical", "choices": ["is fine", "hangs"]},
        "x": {"type": "float", "min": 0.0, "max": 1.0},
    }
    system.submit(
        task="misbehaving",
        space=space,
        initial=[{"how": how, "x": 0.5} for how in ("hangs", *3 * ("is fine",))],
        population=4,
        steps=1,
        max_attempts=1,
        timeouts={"trial_s": 1.0, "lease_s": 5.0},
    )
    system.actor()
    system.worker()
    # On a busy machine, a trial that does nothing may take longer than a second, too.
    lines = wait_for(lambda: system.history(event="failed"))
    [line] = [line for line in lines if line["trial"] == "0-0"]
    assert line["reason"] == "timed_out"
    assert "the trial took longer than timeouts.trial_s = 1 s" in line["message"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("romul_workers.tasks.missing", "No module named 'romul_workers.tasks.missing'"),
        ("romul_workers.tasks.toys:missing", "has no function 'missing'"),
    ],
)
def test_an_unknown_task_ends_the_experiment_with_its_reason(system, task, message):
    system.submit(task=task, max_attempts=1)
    system.actor()
    system.worker()
    system.wait_for_status("failed")
    assert message in system.meta()["reason"]


def test_a_worker_without_the_declared_device_gives_its_trial_back_at_no_cost(system):
    # No machine has so many GPUs.
    system.submit(
        task="with_torch", resources={"device": "cuda:99"}, steps=1, timeouts={"lease_s": 60.0}
    )
    system.actor()
    system.worker("--name=lacking", "--allow=with_torch")
    wait_for(lambda: system.presence("lacking").get("state") == "refuses")
    assert "there is no device 'cuda:99' here" in system.presence("lacking")["why"]
    assert system.meta()["status"] == "running"
    system.worker("--name=able", "--allow=with_torch", "--device=cpu")
    system.wait_for_status("finished")
    assert {line["worker"] for line in system.history(event="result")} == {"able"}
    assert system.history(event="failed") == system.history(event="released") == []


def test_a_worker_imports_only_what_it_allows(system):
    system.submit(task="os:system")
    system.actor()
    worker = system.worker("--name=picky")
    wait_for(lambda: "task module 'os' is not allowed" in worker.log.read_text())
    why = "task module 'os' is not allowed here (--allow os)"
    listed = wait_for(lambda: system.presence("picky"))
    assert (listed["state"], listed["why"]) == ("refuses", why)
    for look in (("show", "e"), ("top", "e", "--once"), ("workers", "e"), ("doctor",)):
        # `top` folds its lines at the terminal's width.
        assert f"picky: {why}" in " ".join(system.call(*look).stdout.split())
    # It does not count as a worker.
    assert system.as_json("status")[0]["workers"] == 0
    alarms = system.as_json("top", "e")["alarms"]
    assert alarms[:2] == ["no worker is alive", f"workers that do not serve it: picky: {why}"]
    system.submit(name="allowed", steps=1)
    system.wait_for_status("finished", "allowed")
    assert system.meta()["reported"] == "0"
    assert system.client.xlen("romul:{e}:trials") == 4
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    assert not system.presence("picky")


def test_garbage_on_the_queues_is_put_aside_with_a_reason(system):
    system.submit()
    bad = {
        b"\xc1": "not MessagePack",
        b"x" * 300_000: "oversized",
        msgpack.packb({"v": 9}): "version 9: this program speaks 1",
        msgpack.packb({"v": 1, "type": "surprise"}): "unknown type 'surprise'",
    }
    for queue in ("inbox", "trials"):
        for body in bad:
            system.client.xadd(f"romul:{{e}}:{queue}", {"m": body})
    system.client.xadd("romul:{e}:inbox", {"unknown": "field"})
    system.actor()
    system.worker()
    system.wait_for_status("finished")
    wait_for(lambda: system.client.xlen("romul:{e}:dead") == 2 * len(bad) + 1)
    binary = type(system.client).from_url(system.url, protocol=2)
    dead = [fields for _, fields in binary.xrange("romul:{e}:dead")]
    binary.close()
    for origin in (b"inbox", b"trials"):
        reasons = {d[b"body"]: d[b"reason"].decode() for d in dead if d[b"origin"] == origin}
        for sent, reason in bad.items():
            assert reason in reasons[sent[:1_024]]


def test_the_population_is_readable_in_redis(system):
    system.submit(metric="distance", direction="maximize", steps=2)
    system.actor()
    system.worker()
    system.wait_for_status("finished")
    slot = system.slot(0)
    assert (slot["status"], slot["step"], slot["attempt"]) == ("done", "1", "1")
    assert set(json.loads(slot["hyperparameters"])) == {"rate"}
    assert json.loads(slot["latest"]) == {
        "step": 1,
        "distance": outcomes(system)[slot["trial"]],
    }
    best = json.loads(system.meta()["best"])
    assert best["distance"] == max(outcomes(system).values())


def test_pause_resume_and_stop(system):
    system.submit(steps=200, constants={"seconds": 0.02})
    system.actor()
    system.worker()
    wait_for(lambda: len(outcomes(system)) > 4)
    assert system.call("pause", "e").returncode == 0
    system.wait_for_status("paused")
    # Running trials end, and those leased before the pause was known; then nothing changes.
    wait_for(
        lambda: (
            not any("training" in v for v in system.client.hvals("romul:{e}:workers"))
            and system.client.xpending("romul:{e}:trials", "workers")["pending"] == 0
        )
    )
    before = len(outcomes(system))
    system.call("resume", "e")
    wait_for(lambda: len(outcomes(system)) > before + 8)
    system.call("stop", "e")
    system.wait_for_status("stopped")
    meta = system.meta()
    assert int(meta["created"]) == int(meta["reported"]) + int(meta["discarded"])


def test_a_restored_learning_rate_never_wins_over_the_one_asked_for(system):
    space = {
        "learning_rate": {"type": "float", "min": 1e-3, "max": 1e-1, "scale": "log"},
        "momentum": {"type": "float", "min": 0.0, "max": 0.9},
    }
    constants = {
        "weight_decay": 0.0,
        "dropout": 0.0,
        "label_smoothing": 0.0,
        "input_noise": 0.1,
        "noise_kind": "gaussian",
        "shift": 0,
    }
    system.submit(
        task="romul_workers.tasks.digits",
        metric="val_loss",
        space=space,
        constants=constants,
        timeouts={"lease_s": 30.0},
    )
    system.actor()
    system.worker("--device=cpu")
    system.wait_for_status("finished")
    asked = decisions(system)
    results = system.history(event="result")
    assert any(asked[line["trial"]]["parent"] for line in results)
    for line in results:
        assert line["in_effect"] == asked[line["trial"]]["hyperparameters"]
        assert line["metrics"]["test_accuracy"] > 0
