"""Is it the schedule or the checkpoint's luck? Winners' schedules, trained again from scratch.

    python benchmarks/replayed.py --seeds 20

For each seed a population is run on a problem of the bench's suite. The hyperparameters along its
winner's line of descent are then trained again, from scratch and with other random numbers; beside
it, the last ones of them, held from the first step to the last. Prints one JSON line: by problem,
medians of the test losses, and the share of pairs in which the schedule trained again is better
than the winner itself, and better than its last hyperparameters held; ties count half.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.random import default_rng

from romul_sim.comparison import pairs_won
from romul_sim.play import Run, Training, Values
from romul_sim.suite import DEVELOP, SUITE


def train(problem: str, schedule: Sequence[Values], seed: Sequence[int]) -> float:
    """Test loss after training along a schedule from scratch."""
    state: Any = None
    rng = default_rng(seed)
    for number, values in enumerate(schedule):
        state, _ = SUITE[problem].step(state, values, number, rng)
    return SUITE[problem].test(state)


def play(problem: str, optimizer: str, slots: int, seed: int) -> tuple[float, float, float]:
    """Test loss of the last step's winner, of its schedule trained again, of its end held.

    Raises:
        RuntimeError: no trial of the last step succeeded.
    """
    judged = SUITE[problem]
    training = Training(judged.space, judged.steps, judged.step, judged.test)
    run = Run(training, optimizer, slots, seed).to_the_end()
    winner = run.winner(judged.steps - 1)
    if winner is None:
        raise RuntimeError(f"{problem}, seed {seed}: no trial of the last step succeeded")
    line = run.line(winner)
    again = train(problem, line, (seed, 1))
    held = train(problem, [line[-1]] * len(line), (seed, 2))
    return float(judged.test(run.state(winner))), again, held


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default=",".join(DEVELOP))
    parser.add_argument("--optimizer", default="romul")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=20)
    chosen = parser.parse_args()
    rows = {}
    with ProcessPoolExecutor() as pool:
        for problem in chosen.problems.split(","):
            waiting = [
                pool.submit(play, problem, chosen.optimizer, chosen.slots, seed)
                for seed in range(chosen.seeds)
            ]
            winners, again, held = np.array([done.result() for done in waiting]).T
            rows[problem] = {
                "winner": median(winners),
                "schedule_again": median(again),
                "end_held": median(held),
                "again_beats_winner": pairs_won(again, winners),
                "again_beats_held": pairs_won(again, held),
            }
            print(problem, rows[problem], file=sys.stderr)
    print(
        json.dumps(
            {
                "benchmark": "replayed",
                "optimizer": chosen.optimizer,
                "slots": chosen.slots,
                "seeds": chosen.seeds,
                "problems": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
