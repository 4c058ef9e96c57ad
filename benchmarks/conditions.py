"""Measure what unequal workers cost an optimizer: asynchronous against synchronous runs.

    python benchmarks/conditions.py docs/experiments/report-8.jsonl

This program trains nothing. The files must hold results of `romul bench`, with and without
`--asynchronous`. Prints one JSON line: the share of all pairs of runs in which the asynchronous run
has the lower test loss, with its 95 % interval, by problem and over all. A tie counts half. If both
kinds have the same seeds, these are resampled together.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from romul_actors.errors import RomulError
from romul_sim.bench.results import read_lines
from romul_sim.bench.runs import RunLine
from romul_sim.bench.standings import standings


def compared(lines: list[RunLine], optimizer: str) -> dict[str, Any]:
    """Compare the asynchronous runs of an optimizer with its synchronous ones.

    Raises:
        ValueError: a problem lacks runs of one kind or has two with the same seed, or runs differ
            in slots or steps.
    """
    # The kinds are compared like two optimizers.
    mine = [
        {**line, "optimizer": line["conditions"]}
        for line in lines
        if line["optimizer"] == optimizer
    ]
    if len(sizes := {(line["population"], line["steps"]) for line in mine}) > 1:
        raise ValueError(f"runs of different slots and steps do not compare: {sorted(sizes)}")
    problems = list(dict.fromkeys(line["problem"] for line in mine))
    found = standings(mine, problems, ["asynchronous", "synchronous"])
    wins = {row["problem"]: row["first_wins"] for row in found["problems"] if row["first_wins"]}
    return {
        "benchmark": "conditions",
        "optimizer": optimizer,
        "runs": len(mine),
        "problems": wins,
        "all": found["all"][1]["first_wins"],
    }


def main() -> None:
    """Compare two files, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="results of `romul bench`")
    parser.add_argument("--optimizer", default="romul", help="name of the optimizer in the files")
    given = parser.parse_args()
    try:
        lines = [line for file in given.files for line in read_lines(file)]
        print(json.dumps(compared(lines, given.optimizer)))
    except (RomulError, OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
