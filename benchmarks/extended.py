"""Compare searches that were extended with searches that had all their steps from the beginning.

    python benchmarks/extended.py --steps 30 --to 60 --seeds 40

On each of the suite's problems, half of the searches end after `--steps` and are then extended; the
others have `--to` steps from the beginning. Prints one JSON line: by problem and over all, the
share of pairs of test losses that the extended searches win, with its 95 % interval. A tie counts
half.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from romul_actors.core.events import Control
from romul_sim.bench.comparison import Share, compare
from romul_sim.play import Run, Training
from romul_sim.suite import DEVELOP, SUITE

AT_ONCE, EXTENDED = "at once", "extended"


class ExtendedRun(Run):
    """A run that can be extended after its end."""

    def extend(self, steps: int) -> None:
        """Extend the run to a total of `steps` steps, and run it to its end."""
        # `Run` itself sends no `Control`, so its type does not name it.
        self._decide(Control(action="extend", steps=steps))  # type: ignore[arg-type]
        self.to_the_end()


def play(problem: str, optimizer: str, slots: int, seed: int, lengths: tuple[int, ...]) -> float:
    """Test loss of the checkpoint with the lowest validation loss of a run.

    Args:
        problem: name of a problem in the suite.
        optimizer: name of the optimizer, optionally with options.
        slots: number of slots.
        seed: seed of everything random.
        lengths: the number of steps at first, then the numbers that the search is extended to.
    """
    judged = SUITE[problem]
    training = Training(judged.space, lengths[0], judged.step, judged.test)
    run = ExtendedRun(training, optimizer, slots, seed)
    run.to_the_end()
    for steps in lengths[1:]:
        run.extend(steps)
    best, ended = run.population.best, run.population.counts.reported
    if best is None or ended + run.population.counts.failed != slots * lengths[-1]:
        raise RuntimeError(f"{problem}, seed {seed}: {ended} trials, not {slots * lengths[-1]}")
    return float(judged.test(run.states[best.checkpoint]))


def shown(share: Share) -> dict[str, float]:
    """A share as JSON values."""
    values = {"share": share.share, "low": share.low, "high": share.high}
    return {name: round(value, 4) for name, value in values.items()}


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default=",".join(DEVELOP))
    parser.add_argument("--optimizer", default="romul")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=40, help="seeds of each kind on each problem")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--to", type=int, default=60)
    parser.add_argument("--processes", type=int, default=None)
    chosen = parser.parse_args()
    began = time.perf_counter()
    lengths = {EXTENDED: (chosen.steps, chosen.to), AT_ONCE: (chosen.to,)}
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    losses: dict[str, dict[str, dict[int, float]]] = {}
    with ProcessPoolExecutor(chosen.processes) as pool:
        for problem in chosen.problems.split(","):
            # The kinds have different seeds, so that the runs of a pair are independent.
            waiting = {
                (kind, 2 * seed + place): pool.submit(
                    play, problem, chosen.optimizer, chosen.slots, 2 * seed + place, lengths[kind]
                )
                for (place, kind), seed in product(enumerate(lengths), seeds)
            }
            losses[problem] = {kind: {} for kind in lengths}
            for (kind, seed), run in waiting.items():
                losses[problem][kind][seed] = run.result()
            print(problem, f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    compared = compare(losses, EXTENDED)
    line = {
        "benchmark": "extended",
        "optimizer": chosen.optimizer,
        "slots": chosen.slots,
        "steps": [chosen.steps, chosen.to],
        "seeds": chosen.seeds,
        "pairs_won": shown(compared.over_all[AT_ONCE]),
        "problems": {name: shown(compared.pairs[name, AT_ONCE]) for name in losses},
        "wall_s": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
