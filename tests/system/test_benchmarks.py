"""The benchmarks, as small as they go: their figures are for whoever runs them at full size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def bench(name, *options):
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("barrier --population 8 --seeds 2 --problems luck", {"population": 8, "seeds": 2}),
        (
            "digits --device cpu --seeds 2 --steps 1 --optimizers romul",
            {"seeds_won": {}, "steps": 1},
        ),
        ("decisions --slots 8 --seconds 0.1 --rounds 2", {"slots": 8, "rounds": 2}),
        (
            "end_to_end --workers 4 --steps 3 --rounds 1 --no-peer",
            {"workers": 4, "warm_up": 5, "steps": 3, "ray_tune": None, "ratio_to_ray_tune": None},
        ),
        ("screens --slots 8 --steps 2", {"slots": 8}),
        ("simulator --machines 8 --days 0.1 --only romul", {"machines": 8, "invariants_broken": 0}),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_benchmark_prints_one_json_line(command, told):
    done = bench(*command.split())
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    printed = json.loads(line)
    assert printed["benchmark"] == command.split()[0]
    assert {key: printed[key] for key in told} == told


def test_decisions_are_told_by_the_clock_and_by_cpu_time():
    done = bench("decisions", "--slots=8", "--seconds=0.1", "--rounds=1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for figure, ratio in (
        ("decisions_per_s", "ratio_to_ceiling"),
        ("decisions_per_cpu_s", "cpu_ratio_to_ceiling"),
    ):
        assert told[figure] > 0
        share = told[figure] / told["ceiling_per_s"]
        assert told[ratio] == pytest.approx(share, rel=1e-3, abs=1e-4)


def test_both_systems_are_measured_alike_with_their_start_up_apart():
    pytest.importorskip("ray")
    done = bench("end_to_end", "--workers=4", "--steps=3", "--rounds=1")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    for system in ("romul", "ray_tune"):
        assert list(printed[system]) == ["server_s", "first_trial_s", "trials_per_s"]
        assert all(figure > 0 for figure in printed[system].values())
    assert printed["ratios_to_ray_tune"] == [printed["ratio_to_ray_tune"]]


def test_too_few_workers_are_refused_in_words():
    done = bench("end_to_end", "--workers=2")
    assert done.returncode == 2
    assert "--workers: 4 at least" in done.stderr
