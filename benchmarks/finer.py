"""Compare optimizers on runs with more and shorter steps.

    python benchmarks/finer.py --parts 8 --seeds 16

Each step of the suite is divided into `--parts` steps. A part has at least one update; a remainder
of the division is dropped. Prints one JSON line: by problem and over all, the share of pairs of
test losses that the first optimizer wins against each other one, with its 95 % interval. A tie
counts half. pursuit-es is left out, because its steps have only two updates.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from extended import play, shown

from romul_sim.bench.comparison import compare
from romul_sim.suite import DEVELOP, SUITE, training

FORMER = "romul:generations=1000:guarded_generations=1000"
"""As many generations as steps, and a guard for a share of them, both without a limit."""
PROBLEMS = [name for name in DEVELOP if name != "pursuit-es"]


def divide(parts: int) -> None:
    """Make all problems in this process train with 1 / `parts` of the updates per step."""
    whole = training.descend

    def part(trained: Any, rule: Any, n_updates: int, gradient: Callable[[Any], Any]) -> Any:
        return whole(trained, rule, max(1, n_updates // parts), gradient)

    for name, module in list(sys.modules.items()):
        if name.startswith("romul_sim.suite.") and hasattr(module, "descend"):
            module.descend = part  # type: ignore[attr-defined]


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--optimizers", default=f"romul,{FORMER},truncation")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=None)
    given = parser.parse_args()
    began = time.perf_counter()
    optimizers = given.optimizers.split(",")
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    losses: dict[str, dict[str, dict[int, float]]] = {}
    with ProcessPoolExecutor(given.processes, initializer=divide, initargs=(given.parts,)) as pool:
        for problem in given.problems.split(","):
            steps = (given.parts * SUITE[problem].steps,)
            waiting = {
                name: {
                    seed: pool.submit(play, problem, name, given.slots, seed, steps)
                    for seed in seeds
                }
                for name in optimizers
            }
            losses[problem] = {
                name: {seed: run.result() for seed, run in runs.items()}
                for name, runs in waiting.items()
            }
            print(problem, f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    compared = compare(losses, optimizers[0])
    line = {
        "benchmark": "finer",
        "optimizer": optimizers[0],
        "slots": given.slots,
        "parts": given.parts,
        "seeds": [seeds[0], seeds[-1]],
        "pairs_won": {name: shown(compared.over_all[name]) for name in optimizers[1:]},
        "problems": {
            problem: {name: shown(compared.pairs[problem, name]) for name in optimizers[1:]}
            for problem in losses
        },
        "wall_s": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
