"""`romul export` and `report`, as a user runs them."""

import csv
import json
import re
import socket

import pyarrow.parquet as pq
import pytest
from mlflow import environment_variables
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from romul_actors.local.processes import free_port


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
    page, pictures = tmp_path / "toy.html", tmp_path / "pictures"
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
    # Older versions of MLflow write to such a store without being asked to.
    if hasattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE"):
        refused = toy.call("export", "toy", f"--mlflow={store}")
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("end", ["", "/"])
def test_no_password_of_an_mlflow_server_is_printed(toy, end):
    store = f"http://user:s3cret@127.0.0.1:{free_port()}{end}"
    refused = toy.call("export", "toy", f"--mlflow={store}", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert refused.returncode != 0
    assert "http://user:***@127.0.0.1" in refused.stderr
    assert "s3cret" not in refused.stdout + refused.stderr


def test_where_the_best_trial_comes_from_is_shown_and_exported(toy, tmp_path):
    output = toy.as_json("best", "toy")
    assert output["provenance"]["host"] == socket.gethostname()
    assert "numpy " in output["provenance"]["packages"]
    file = tmp_path / "trials.csv"
    assert toy.call("export", "toy", f"--to={file}").returncode == 0
    rows = csv.DictReader(file.read_text().splitlines())
    assert {row["p.host"] for row in rows} == {socket.gethostname()}
    page = tmp_path / "page.html"
    assert toy.call("report", "toy", f"--to={page}").returncode == 0
    assert "Where results come from" in page.read_text()
    # Each worker reports it once.
    assert len([line for line in toy.history("toy", "result") if "provenance" in line]) == 2
