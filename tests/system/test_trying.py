"""`romul check`, `schedule` and `export`, as a user runs them."""

import csv
import json
import os
import re
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from romul_actors.core.history import TrialReleased
from romul_actors.observe.metrics import ActorMetrics, WorkerMetrics
from tests.conftest import romul, wait_for

TASKS = Path(__file__).parents[1] / "tasks"


def examine(folder, mistake):
    file = folder / "experiment.toml"
    file.write_text(
        f"""
name = "planted"
task = "planted"
steps = 5
budget = 10
[constants]
mistake = "{mistake}"
[space]
rate = {{ type = "float", min = 1e-3, max = 0.5, scale = "log" }}
"""
    )
    done = romul("check", str(file), f"--path={TASKS}", "--grace=1", "--json")
    return done, {check["name"]: check for check in json.loads(done.stdout)}


def test_a_task_that_is_fit_passes(tmp_path):
    done, checks = examine(tmp_path, "")
    assert done.returncode == 0
    assert {check["level"] for check in checks.values()} == {"ok"}
    assert "paused at" in checks["stops when asked"]["found"]


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        ("ignores its parent", "reads its parent"),
        ("restored rate wins", "hyperparameters take effect after a restore"),
        ("unseeded", "same seed, same result"),
        ("never stops", "stops when asked"),
    ],
)
def test_each_planted_mistake_is_found(tmp_path, mistake, check):
    done, checks = examine(tmp_path, mistake)
    assert done.returncode == 1
    assert [c["name"] for c in checks.values() if c["level"] == "fault"] == [check]


def test_a_task_that_raises_is_told_with_its_reason(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(
        "from romul_actors.protocol.experiment import Experiment\n"
        "experiment = Experiment(name='b', task='broken', steps=1,\n"
        "    space={'x': {'type': 'float', 'min': 0, 'max': 1}})\n"
        "def train(trial):\n    raise RuntimeError('no data')\n"
    )
    done = romul("check", str(file))
    assert done.returncode == 1
    assert "RuntimeError: no data" in done.stdout
    assert "Traceback" not in done.stderr


def test_figures_that_are_none_are_left_out_and_every_place_says_so(system):
    file = system.folder / "odd.toml"
    file.write_text(
        """
name = "odd"
task = "figures"
population = 4
steps = 2
constants = { beside = "odd" }
[space]
x = { type = "float", min = 0.0, max = 1.0 }
"""
    )
    given = (str(file), f"--runs={system.folder}", "--redis", system.url, "--workers=1")
    done = system.call("run", *given, PYTHONPATH=f"{TASKS}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stderr.split()).count("odd: left out of results: 'text' (str)") == 1
    assert system.meta("odd")["failed"] == "0"
    [line] = [line for line in system.history("odd", "result") if "left_out" in line]
    assert line["left_out"]["nan"] == "nan"
    assert "romul: warning: left out of" in system.call("logs", "odd", line["trial"]).stdout
    log = (system.folder / "odd" / "logs" / "worker-1.log").read_text()
    assert log.count("left out of results") == 1
    checked = system.call("check", str(file), f"--path={TASKS}", "--json")
    [said] = [c for c in json.loads(checked.stdout) if c["name"] == "returns figures"]
    assert said["level"] == "warning"
    assert "'text' (str), 'list' (list), 'none' (None), 'nan' (nan)" in said["found"]


@pytest.fixture
def toy(system):
    system.submit(name="toy", steps=6, constants={"seconds": 0.02}, budget=5)
    system.actor()
    system.worker()
    system.worker()
    system.wait_for_status("finished", "toy")
    return system


def test_the_winners_schedule_is_trained_again(toy, tmp_path):
    file = tmp_path / "schedule.json"
    done = toy.call("schedule", "export", "toy", "--best", f"--to={file}")
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    best = json.loads(toy.meta("toy")["best"])
    assert told["stretches"][-1]["trial"] == best["trial"]
    assert told["stretches"][-1]["hyperparameters"] == best["hyperparameters"]
    trained = toy.call("schedule", "train", str(file), "--json", f"--to={tmp_path / 'model'}")
    result = json.loads(trained.stdout)
    # The toy is deterministic: trained in one piece, the model is the winner to the last bit.
    assert (result["value"], result["apart"]) == (best["loss"], 0.0)
    assert (tmp_path / "model" / "state.json").exists()

    told["task"] = "os:system"
    file.write_text(json.dumps(told))
    refused = toy.call("schedule", "train", str(file))
    assert "'os' is not allowed" in refused.stderr
    file.write_text('{"version": 1, "stretches": 3}')
    wrong = toy.call("schedule", "train", str(file)).stderr
    assert "not a schedule" in " ".join(wrong.split())


def test_trials_are_exported_as_they_were(toy, tmp_path):
    for suffix in ("parquet", "csv", "jsonl"):
        done = toy.call("export", "toy", f"--to={tmp_path / f'out.{suffix}'}")
        assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    results = {line["trial"]: line["value"] for line in toy.history("toy", "result")}
    assert {row["trial"]: row["value"] for row in rows} == results
    assert len(rows) == 24
    with (tmp_path / "out.csv").open() as file:
        read = list(csv.DictReader(file))
    assert {row["trial"]: float(row["value"]) for row in read} == results
    assert float(read[0]["h.rate"]) == rows[0]["h.rate"]
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == toy.history("toy")
    assert toy.call("export", "toy", "--to=x.xls").returncode != 0


def test_a_report_is_one_page_that_needs_nothing_else(toy, tmp_path):
    page, pictures = tmp_path / "out" / "toy.html", tmp_path / "pictures"
    done = toy.call("report", "toy", f"--to={page}", f"--pictures={pictures}")
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert "toy: finished" in text
    assert json.loads(toy.meta("toy")["best"])["trial"] in text
    assert re.findall(r"""(?:src|href)="(?!data:)""", text) == []
    assert len(list(pictures.glob("*.png"))) == 3
    for file in pictures.glob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_trials_go_to_tensorboard_and_mlflow(toy, tmp_path):
    store = f"file://{tmp_path / 'mlruns'}"
    options = [f"--tensorboard={tmp_path / 'tb'}", f"--mlflow={store}"]
    done = toy.call("export", "toy", *options, MLFLOW_ALLOW_FILE_STORE="true")
    assert done.returncode == 0, done.stderr
    trials = {line["trial"]: line for line in toy.history("toy", "trial")}
    results = {line["trial"]: line["value"] for line in toy.history("toy", "result")}
    for slot in range(4):
        events = EventAccumulator(str(tmp_path / "tb" / f"slot-{slot}"))
        events.Reload()
        losses = [(e.step, e.value) for e in events.Scalars("loss")]
        assert losses == [
            (step, pytest.approx(results[f"{slot}-{step}"], rel=1e-6)) for step in range(6)
        ]
        rates = [e.value for e in events.Scalars("hyperparameters/rate")]
        wanted = [trials[f"{slot}-{step}"]["hyperparameters"]["rate"] for step in range(6)]
        assert rates == pytest.approx(wanted, rel=1e-6)
    logged = sorted((tmp_path / "mlruns").glob("*/*/metrics/hyperparameters/rate"))
    assert len(logged) == 4
    assert all(len(file.read_text().splitlines()) == 6 for file in logged)
    refused = toy.call("export", "toy", f"--mlflow={store}")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr


def test_prometheus_sees_actor_and_worker(system):
    system.submit(name="m", population=4, steps=400, budget=4, constants={"seconds": 0.3})
    asked = system.call("dashboard", "--help")
    assert "--token" in asked.stdout
    actor = system.actor("--metrics-port=0")
    worker = system.worker("--metrics-port=0")

    def scrape(process):
        found = re.search(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", process.log.read_text())
        if found is None:
            return ""
        with urllib.request.urlopen(found[1], timeout=10) as answer:
            return answer.read().decode()

    def value(process, name):
        found = re.search(
            rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", scrape(process), re.MULTILINE
        )
        return None if found is None else float(found[1])

    wait_for(lambda: (value(worker, "romul_worker_trials") or 0) >= 2, 30)
    # One worker trains, three trials wait: four would have something to do.
    wait_for(lambda: value(actor, "romul_workers_desired") == 4, 30)
    # Between two trials none is leased; the four stay four.
    wait_for(lambda: value(actor, "romul_trials_leased") == 1, 30)
    assert value(actor, "romul_workers_alive") == 1
    text = scrape(actor)
    assert re.search(r'romul_events_total{event="result",experiment="m"} [1-9]', text)
    port = re.search(r":(\d+)/metrics", actor.log.read_text())[1]
    taken = system.call("actor", f"--metrics-port={port}")
    assert taken.returncode != 0
    assert "Traceback" not in taken.stderr


def test_the_grafana_dashboard_asks_for_metrics_that_there_are(system):
    file = Path(__file__).parents[2] / "docker" / "grafana.json"
    asked = {
        name
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"romul_\w+", target["expr"])
    }
    metrics = ActorMetrics()
    lost = TrialReleased(at_ms=1, trial="0-0", attempt=1, worker="w", reason="preempted")
    metrics.count("e", [lost])
    worker = WorkerMetrics("w")
    there = {
        sample.name
        for registry in (metrics.registry, worker.registry)
        for family in registry.collect()
        for sample in [*family.samples, family]
    }
    assert asked <= there
