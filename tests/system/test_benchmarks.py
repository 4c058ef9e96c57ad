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
        ("decisions --population 8 --seconds 0.1 --rounds 1", {"population": 8, "rounds": 1}),
        ("end_to_end --workers 4 --steps 12 --peer-steps 0", {"workers": 4}),
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


def test_too_few_workers_are_refused_in_words():
    done = bench("end_to_end", "--workers=2")
    assert done.returncode == 2
    assert "--workers: 4 at least" in done.stderr
