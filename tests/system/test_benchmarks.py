"""The benchmarks at their smallest size; their figures mean something only at full size."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import program

FOLDER = Path(__file__).parents[2] / "benchmarks"


def bench(name, *options):
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def bench_here(name, *options):
    """The same in this process, since a new interpreter would import torch again."""
    return program(FOLDER / f"{name}.py", *options)


def printed_by(name, *options, run=bench):
    """The one line that a benchmark prints."""
    done = run(name, *options)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    printed = json.loads(line)
    assert printed["benchmark"] == name
    return printed


# The simulator turns logging off for its whole interpreter, so it needs its own.
HERE = {"barrier", "screens"}


@pytest.mark.parametrize(
    ("command", "figures"),
    [
        ("barrier --population 8 --seeds 2 --problems luck", {"population": 8, "seeds": 2}),
        ("checkpoints --megabytes 1 --rounds 1", {"megabytes": 1, "rounds": 1}),
        (
            "latency --workers 4 --trials 2 --trial-s 0.05 --rounds 1 --processes 1",
            {"workers": 4, "slots": 4, "waits": 8},
        ),
        (
            "memory --slots 4 --steps 3 --metrics 1 --read-back 2",
            {"slots": 4, "trials": 12, "metrics": 1, "read_back": 2},
        ),
        ("memory --actor --slots 4 --steps 5", {"slots": 4, "trials": 20}),
        ("object_store --megabytes 1 --rounds 1", {"megabytes": 1, "store": "moto"}),
        (
            "overlap --slots 4 --workers 1 --steps 2 --seconds 0.05 --delay-s 0.01 --rounds 1",
            {"slots": 4, "workers": 1, "rounds": 1},
        ),
        (
            "scale --slots 8 --workers 4 --trial-s 0.05 --seconds 0.5",
            {"slots": 8, "workers": 4, "demanded_per_s": 80.0},
        ),
        ("screens --slots 8 --steps 3", {"slots": 8, "trials": 24}),
        ("startup --rounds 0", {"rounds": 0}),
        ("simulator --machines 8 --days 0.1 --only romul", {"machines": 8, "invariants_broken": 0}),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_benchmark_prints_one_json_line(command, figures):
    # What measures no interpreter of its own needs none.
    run = bench_here if command.split()[0] in HERE else bench
    printed = printed_by(*command.split(), run=run)
    assert {key: printed[key] for key in figures} == figures


def test_the_schedules_of_winners_become_a_picture(tmp_path):
    picture = tmp_path / "schedules.png"
    command = "replayed --problems regulator-pg --seeds 2 --slots 4 --picture"
    printed = printed_by(*command.split(), str(picture))
    assert (printed["seeds"], printed["slots"], [*printed["problems"]]) == (2, 4, ["regulator-pg"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_decisions_are_counted_by_the_clock_and_by_cpu_time():
    output = printed_by("decisions", "--slots=8", "--seconds=0.1", "--rounds=1")
    assert (output["slots"], output["rounds"]) == (8, 1)
    for figure, ratio in (
        ("decisions_per_s", "ratio_to_ceiling"),
        ("decisions_per_cpu_s", "cpu_ratio_to_ceiling"),
    ):
        assert output[figure] > 0
        share = output[figure] / output["ceiling_per_s"]
        assert output[ratio] == pytest.approx(share, rel=1e-3, abs=1e-4)


@pytest.mark.long(40)
def test_both_systems_are_measured_alike_with_their_start_up_apart():
    pytest.importorskip("ray")
    printed = printed_by("end_to_end", "--workers=4", "--steps=3", "--rounds=1")
    assert (printed["workers"], printed["warm_up"], printed["steps"]) == (4, 5, 3)
    for system in ("romul", "ray_tune"):
        assert list(printed[system]) == ["server_s", "first_trial_s", "trials_per_s"]
        assert all(figure > 0 for figure in printed[system].values())
    assert printed["ratios_to_ray_tune"] == [printed["ratio_to_ray_tune"]]


def test_asynchronous_runs_are_compared_with_synchronous_ones_of_the_same_optimizer(tmp_path):
    def lines(conditions, losses, optimizer="romul"):
        alike = {"problem": "p", "population": 8, "steps": 2, "makespan": 1.0}
        alike |= {"optimizer": optimizer, "conditions": conditions}
        for seed, loss in enumerate(losses):
            key = f"{conditions}{optimizer}{seed}"
            row = {"key": key, "seed": seed, "test": loss, "test_last": loss, "loss": loss}
            yield json.dumps({**alike, **row}) + "\n"

    synchronous, asynchronous = tmp_path / "s.jsonl", tmp_path / "a.jsonl"
    synchronous.write_text(
        "".join([*lines("synchronous", [2, 2]), *lines("synchronous", [0], "random")])
    )
    asynchronous.write_text("".join(lines("asynchronous", [1, 3])))
    printed = printed_by("conditions", str(synchronous), str(asynchronous))
    assert (printed["runs"], printed["all"]["share"]) == (4, 0.5)
    alone = bench_here("conditions", str(synchronous))
    assert alone.returncode == 1
    assert "no run of 'asynchronous'" in alone.stderr
    asynchronous.write_text(asynchronous.read_text().replace('"population": 8', '"population": 4'))
    unlike = bench_here("conditions", str(synchronous), str(asynchronous))
    assert "different slots and steps do not compare: [(4, 2), (8, 2)]" in unlike.stderr


def test_too_few_workers_are_refused_in_words():
    done = bench_here("end_to_end", "--workers=2")
    assert done.returncode == 2
    assert "--workers: 4 at least" in done.stderr


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A text of a hundred words in the format of the Penn Treebank files."""
    tmp_path = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    for part, lines in (("train", 900), ("valid", 700), ("test", 1200)):
        text = "".join(
            " ".join(f"w{min(int(draw.expovariate(0.05)), 98)}" for _ in range(9)) + " \n"
            for _ in range(lines)
        )
        (tmp_path / f"ptb.{part}.txt").write_text(
            " ".join(f"w{i}" for i in range(99)) + " \n" + text
        )
    return tmp_path


TWO = ("--task=ptb-twin", "--slots=4", "--steps=1", "--optimizers=truncation,random")


@pytest.fixture(scope="module")
def played(texts):
    """The results of two populations with one seed each, in separate processes."""
    results = texts / "runs.jsonl"
    options = (*TWO, f"--data={texts}", f"--results={results}", "--processes=2", "--seeds=1")
    done = bench("populations", *options)
    assert done.returncode == 0, done.stderr
    return results.read_text()


def test_populations_go_on_from_the_results_file(texts, played, tmp_path):
    results = tmp_path / "runs.jsonl"
    results.write_text(played)
    options = (*TWO, f"--data={texts}", f"--results={results}", "--processes=1")
    [one, other] = map(json.loads, results.read_text().splitlines())
    assert {one["optimizer"], other["optimizer"]} == {"truncation", "random"}
    before = results.read_text()
    # Two runs are there already: only those of the second seed are trained.
    second = bench_here("populations", *options, "--seeds=2")
    assert second.returncode == 0, second.stderr
    assert "2 of 2" in second.stderr
    lines = results.read_text().splitlines()
    assert len(lines) == 4
    assert set(before.splitlines()) < set(lines)
    printed = json.loads(second.stdout)
    rows = {row["optimizer"]: row for row in printed["optimizers"]}
    assert rows["truncation"]["runs"] == 2
    assert rows["random"]["first_wins"]["share"] in {0.0, 0.25, 0.5, 0.75, 1.0}
    assert rows["random"]["median"] < 5.0  # of a hundred words, no better than chance is 4.6


def test_populations_that_come_out_the_same_get_the_keys_of_todays_code(texts, played, tmp_path):
    results = tmp_path / "runs.jsonl"
    lines = [json.loads(line) for line in played.splitlines()]
    old = [{**line, "key": f"old-{place}"} for place, line in enumerate(lines)]
    results.write_text("".join(json.dumps(line) + "\n" for line in old))
    again = [str(results), f"--data={texts}", "--processes=1", "--commit=0123abc"]
    done = bench_here("rekey", *again)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sample"] == 2
    renewed = [json.loads(line) for line in results.read_text().splitlines()]
    assert renewed == [{**line, "rekeyed_from": "0123abc"} for line in lines]

    old[1]["test"] += 1e-12
    changed = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in old)
    results.write_text(changed)
    done = bench_here("rekey", *again)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"ptb-twin, {old[1]['optimizer']}, seed 0: test is {lines[1]['test']}" in done.stderr
    assert f"{old[0]['optimizer']}, seed 0" not in done.stderr
    assert results.read_text() == changed


def test_digits_bring_their_own_data(tmp_path):
    results = tmp_path / "digits.jsonl"
    options = ["--task=digits-wide", "--slots=4", "--seeds=1", "--steps=1", "--optimizers=romul"]
    first = bench_here("populations", *options, "--processes=1", f"--results={results}")
    assert first.returncode == 0, first.stderr
    [shown] = json.loads(first.stdout)["optimizers"]
    # An untrained network of ten classes has a cross-entropy of about log 10.
    assert 0.5 < shown["median"] < 3.0
    second = bench_here("populations", *options, f"--results={results}")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    line = json.loads(results.read_text())
    results.write_text(json.dumps({**line, "key": "old"}) + "\n")
    done = bench_here("rekey", str(results), "--processes=1", "--commit=0123abc")
    assert done.returncode == 0, done.stderr
    assert json.loads(results.read_text()) == {**line, "rekeyed_from": "0123abc"}
    # Last digits of another kind of processor: compared is what the former code plays here.
    elsewhere = {**line, "key": "old", "test": line["test"] + 1e-12}
    results.write_text(json.dumps(elsewhere) + "\n")
    again = [str(results), "--processes=1", "--commit=0123abc"]
    assert bench_here("rekey", *again).returncode == 1
    done = bench_here("rekey", *again, "--base=HEAD")
    assert done.returncode == 0, done.stderr
    expected = {**elsewhere, "key": line["key"], "rekeyed_from": "0123abc"}
    assert json.loads(results.read_text()) == expected


def test_data_that_is_not_there_is_said(tmp_path):
    done = bench_here("populations", "--task=cifar-twin", f"--data={tmp_path}", "--seeds=1")
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    done = bench_here("populations", "--task=cifar-twin", "--seeds=1")
    assert done.returncode == 2
    assert "cifar-twin needs --data" in done.stderr
