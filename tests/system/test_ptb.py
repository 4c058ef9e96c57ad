"""The Penn Treebank benchmark as a program, on small files made in the real ones' format."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import program

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = [
    "hidden=8",
    "embedding=6",
    "batch=4",
    "bptt=8",
    "learning_rate=10",
    "ar=0",
    "input_dropout=0.1",
]


@pytest.fixture
def data(tmp_path):
    for part, lines in (("train", 40), ("valid", 10), ("test", 10)):
        (tmp_path / f"ptb.{part}.txt").write_text(
            " the bank buys N \n the board sells N \n" * lines
        )
    return tmp_path


def tiny(data):
    settings = [part for value in TINY for part in ("--set", value)]
    return [f"--data={data}", "--device=cpu", *settings]


def bench(*options):
    return program(FOLDER / "ptb_lstm.py", *options)


def test_it_prints_one_json_line_and_each_epoch_on_stderr(data):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", FOLDER / "ptb_lstm.py", *tiny(data), "--epochs=10"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    printed = json.loads(line)
    assert printed["benchmark"] == "ptb_lstm"
    assert printed["epochs"] == 10
    assert [found.split(":")[0] for found in done.stderr.splitlines()] == [
        f"epoch {i}" for i in range(1, 11)
    ]
    chosen = printed[printed["weights"]]
    assert {name: printed[name] for name in chosen} == chosen
    assert chosen["val_perplexity"] == min(
        printed[kind]["val_perplexity"] for kind in ("last", "mean")
    )
    assert printed["last"] != printed["mean"]
    assert 1.0 < printed["test_perplexity"] < 7.0
    assert printed["words"] == {"train": 400, "valid": 100, "test": 100}
    assert printed["settings"]["hidden"] == 8


def test_a_limit_lets_one_epoch_through_and_ends_it(data):
    done = bench(*tiny(data), "--limit=0.001")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 1


def test_training_that_diverges_is_an_error_in_words(data):
    wild = ("--set", "learning_rate=1e38", "--set", "clip=1e30")
    done = bench(*tiny(data), "--epochs=3", *wild)
    assert done.returncode == 1
    assert "training diverged in epoch 1: lower learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data=/never"], "/never, named by the constant `data`, is no folder"),
        (["--set", "widht=3"], "--set widht=3: there is no number of that name"),
        (["--set", "layers=0"], "layers: 0 is below 1"),
        (["--epochs=0"], "--epochs: must be at least 1"),
    ],
)
def test_wrong_usage_is_an_error_in_words(options, message):
    done = bench(*options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schedule_is_laid_over_epochs_or_time(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("ptb_lstm")
    now = 100.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    by_time = module.Plan(math.inf, 50.0, 80.0)
    assert by_time.progress(3, reserve_s=10.0) == 0.5
    assert by_time.has_room(epoch_s=20.0, reserve_s=10.0)
    assert not by_time.has_room(epoch_s=20.5, reserve_s=10.0)
    assert module.Plan(4, 50.0, 80.0).progress(3, reserve_s=10.0) == 0.75
    assert module.Plan(4, None, 80.0).progress(3, reserve_s=10.0) == 0.75
    rates = [module.rate_at(i / 10) for i in range(11)]
    assert rates[:5] == [1.0] * 5
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.02)
