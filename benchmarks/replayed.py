"""Train winners' schedules again from scratch: was it the schedule, or a lucky checkpoint?

    python benchmarks/replayed.py --seeds 20 --picture schedules.png

For each seed a population runs on a problem of the bench's suite. Three trainings from scratch
follow, with other random numbers: with the schedule along the winner's line of descent, with the
schedule's last values for all steps, and with its mean values for all steps (means in the declared
scale; for choices the last value).

Prints one JSON line: for each problem, the medians of the test losses, and the share of pairs in
which the schedule that was trained again is better than each of the others and than the winner
itself, with its 95 % interval. A tie counts half. The picture shows the winners' schedules: for
each problem and numeric hyperparameter, the median and the quartiles of its position in the
declared range (0: low end, 1: high end, in the hyperparameter's scale).
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.random import default_rng

from romul_sim.bench.comparison import Share, draws, pairs_won, sampled_pairs_won
from romul_sim.play import Run, Training, Values
from romul_sim.suite import DEVELOP, SUITE


def train(problem: str, schedule: Sequence[Values], seed: Sequence[int]) -> float:
    """Test loss after training along a schedule from scratch."""
    state: Any = None
    rng = default_rng(seed)
    for number, values in enumerate(schedule):
        state, _ = SUITE[problem].step(state, values, number, rng)
    return SUITE[problem].test(state)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The test losses of a winner and of trainings with its schedule.

    Attributes:
        winner: test loss of the last step's winner.
        again: test loss after training with its schedule from scratch.
        end: the same with the schedule's last values for all steps.
        mean: the same with the schedule's mean values for all steps.
        places: positions of each numeric or ordered hyperparameter in [0, 1], by step.
    """

    winner: float
    again: float
    end: float
    mean: float
    places: Mapping[str, Sequence[float]]


def play(problem: str, optimizer: str, slots: int, seed: int) -> Replayed:
    """Run a population, and train its winner's schedule again.

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
    end = train(problem, [line[-1]] * len(line), (seed, 2))
    space = run.population.settings.space
    rows = np.array([space.encode(values) for values in line])
    center = np.where(np.array(space.n_choices) > 0, rows[-1], rows.mean(axis=0))
    mean = train(problem, [space.decode(tuple(center.tolist()))] * len(line), (seed, 3))
    places = {axis.name: rows[:, c].tolist() for c, axis in enumerate(space) if not axis.n_choices}
    return Replayed(float(judged.test(run.state(winner))), again, end, mean, places)


def compared(problem: str, runs: Sequence[Replayed]) -> dict[str, Any]:
    """Medians, and the shares of pairs that the schedule trained again wins."""
    losses = {
        "again": np.array([run.again for run in runs]),
        "winner": np.array([run.winner for run in runs]),
        "end": np.array([run.end for run in runs]),
        "mean": np.array([run.mean for run in runs]),
    }
    drawn = draws(problem, len(runs))
    row: dict[str, Any] = {f"{name}_median": median(found) for name, found in losses.items()}
    for name in ("winner", "end", "mean"):
        samples = sampled_pairs_won(losses["again"], losses[name], drawn, drawn)
        won = Share.of(pairs_won(losses["again"], losses[name]), samples)
        row[f"again_beats_{name}"] = [won.share, won.low, won.high]
    return row


def draw(file: Path, played: Mapping[str, Sequence[Replayed]]) -> None:
    """Write the picture of the winners' schedules, with a panel for each problem."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = min(3, len(played))
    lines = -(-len(played) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
    for (problem, runs), panel in zip(played.items(), panels, strict=False):
        for name in runs[0].places:
            rows = np.array([run.places[name] for run in runs])
            low, middle, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
            steps = np.arange(1, len(middle) + 1)
            (curve,) = panel.plot(steps, middle, lw=1.6, label=name)
            panel.fill_between(steps, low, high, color=curve.get_color(), alpha=0.1, lw=0)
        panel.set(title=problem, xlabel="step", ylim=(0, 1))
        panel.legend(fontsize=6, ncols=2, loc="best")
    for panel in panels:
        panel.set_axis_off()
    figure.supylabel("place in the declared range")
    figure.savefig(file, dpi=110)


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default=",".join(DEVELOP))
    parser.add_argument("--optimizer", default="romul")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--picture", type=Path, help="file for a picture of the schedules")
    chosen = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    played: dict[str, list[Replayed]] = {}
    with ProcessPoolExecutor() as pool:
        for problem in chosen.problems.split(","):
            waiting = [
                pool.submit(play, problem, chosen.optimizer, chosen.slots, seed)
                for seed in range(chosen.seeds)
            ]
            played[problem] = [done.result() for done in waiting]
            rows[problem] = compared(problem, played[problem])
            print(problem, rows[problem], file=sys.stderr)
    if chosen.picture is not None:
        draw(chosen.picture, played)
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
