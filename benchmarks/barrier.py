"""Compare decisions at a quorum with decisions at a barrier, in the same wall-clock time.

    python benchmarks/barrier.py [--population 24] [--seeds 21] [--problems misspecified,mixed]

The toy problems run in virtual time on the laboratory's unequal workers: their speeds differ by up
to a factor of four, and a fifth of the trials is interrupted. A barrier needs more time for the
same number of steps. Here it has the quorum's time, and a run of as many steps as fit into it.

Prints one JSON line: for each problem the median final true losses (`barrier_unhurried`: with all
steps), the steps, the durations in trials of the fastest worker, and the bootstrap's probability
that the quorum's median is lower.
"""

import argparse
import json
import sys
from typing import Any

from romul_sim.lab import LabJob, compare, jobs, play_all
from romul_sim.play import ASYNCHRONOUS, Played
from romul_workers.tasks.toys import TOYS

SURE = 0.975
QUORUM, BARRIER = "romul", "romul:quorum_share=1.0"


def compared(problem: str, population: int, seeds: int) -> dict[str, Any]:
    """Compare both on one problem."""

    def played(optimizer: str, steps: int | None = None) -> dict[LabJob, Played]:
        todo = jobs([problem], [optimizer], [population], seeds, ASYNCHRONOUS, steps)
        return dict(play_all(todo))

    ours = played(QUORUM)
    [quorum], [unhurried] = compare(ours), compare(played(BARRIER))
    steps = TOYS[problem].steps
    fewer = max(1, round(steps * quorum.makespan / unhurried.makespan))
    rows = {row.optimizer: row for row in compare(ours | played(BARRIER, fewer))}
    quorum, barrier = rows[QUORUM], rows[BARRIER]
    return {
        "problem": problem,
        "quorum": quorum.median,
        "barrier": barrier.median,
        "barrier_unhurried": unhurried.median,
        "quorum_steps": steps,
        "barrier_steps": fewer,
        "quorum_trials": round(quorum.makespan, 1),
        "barrier_trials": round(barrier.makespan, 1),
        "quorum_lower": quorum.beats[BARRIER],
    }


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--population", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=21)
    parser.add_argument("--problems", default=",".join(TOYS))
    chosen = parser.parse_args()
    rows = []
    for problem in chosen.problems.split(","):
        rows.append(row := compared(problem, chosen.population, chosen.seeds))
        print(f"{problem}: {row['quorum']:.2g}, barrier {row['barrier']:.2g}", file=sys.stderr)
    print(
        json.dumps(
            {
                "benchmark": "barrier",
                "population": chosen.population,
                "seeds": chosen.seeds,
                "rows": rows,
                "problems_lower": sum(row["quorum"] < row["barrier"] for row in rows),
                "surely_lower": sum(row["quorum_lower"] >= SURE for row in rows),
                "surely_higher": sum(row["quorum_lower"] <= 1.0 - SURE for row in rows),
            }
        )
    )


if __name__ == "__main__":
    main()
