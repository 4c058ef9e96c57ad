"""Compare the simulator with real processes under the same schedule of faults, step by step.

    python benchmarks/sim_vs_real.py --picture docs/pictures/sim-vs-real.png

The real side is like `romul drill --schedule`: server, broker, actor and workers are processes, and
faults strike at the schedule's times. The simulation has the same machines and the same search, and
takes two figures from the real side: the start-up time of a worker, and the overhead of a trial.
Prints one JSON line: for both sides, when half of the slots had ended each step.
"""

import argparse
import asyncio
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from numpy.random import default_rng

from romul_actors.core.history import Line, TrialReported
from romul_actors.observe.stored_history import read_history
from romul_actors.protocol.experiment import Experiment
from romul_actors.store.redis import RedisStore
from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.simulation import simulate
from romul_sim.churn.trace import Change
from romul_sim.cluster.training import Durations
from romul_sim.drill.audit import Verdict
from romul_sim.drill.processes import GRACE_S, RESTART_S
from romul_sim.drill.run import Drill
from romul_sim.drill.schedule import LEASE_S
from romul_sim.faults import Fault
from romul_workers.tasks.toys import TOYS

WORKERS, SLOTS, STEPS, TRIAL_S = 4, 8, 15, 1.0
PROBLEM = "misspecified"
BROKER_S = 1.5
"""A connection is lost after a silence of 1.5 keepalives; a keepalive is one second here."""
KINDS = ("kill worker", "freeze worker", "terminate worker")


def draw(n: int, span_s: float, seed: int) -> list[Fault]:
    """Draw faults of workers, at even distances."""
    rng = default_rng(seed)
    return [
        Fault(
            round(5.0 + span_s * i / n, 2),
            KINDS[i % len(KINDS)],
            (i % WORKERS + 0.5) / WORKERS,
            round(float(rng.uniform(0.5, 2 * LEASE_S)), 2),
        )
        for i in range(n)
    ]


class Compared(Drill):
    """A drill of one search that keeps its history."""

    lines: Sequence[Line] = ()

    def _experiment(self, number: int) -> Experiment:
        return Experiment.model_validate(
            {
                "name": f"compared-{number}",
                "task": "romul_workers.tasks.toys",
                "space": TOYS[PROBLEM].space,
                "population": SLOTS,
                "steps": STEPS,
                "seed": self._seed,
                "constants": {"problem": PROBLEM, "seconds": TRIAL_S},
                "timeouts": {"lease_s": LEASE_S, "trial_s": 30, "quorum_s": 60},
                "max_losses": 100,
                "checkpoints": str((self._folder / "checkpoints").resolve()) + f"/{number}",
            }
        )

    async def _judge(self, store: RedisStore, experiment: Experiment) -> Verdict:
        if experiment.name == "compared-0":
            self.lines = await read_history(store, experiment.name)
        # The drill's own audit reads the checkpoints of another task.
        status = (await store.experiments())[experiment.name]
        return Verdict(completed=status == "finished")


def machines(faults: Sequence[Fault], start_s: float) -> list[Change]:
    """The changes of machines that correspond to the faults."""
    changes = [Change(start_s, f"w{place}-0", "arrives", speed=1.0) for place in range(WORKERS)]
    lives = dict.fromkeys(range(WORKERS), 0)
    for fault in faults:
        place = int(fault.pick * WORKERS)
        name = f"w{place}-{lives[place]}"
        what = fault.kind.partition(" ")[0]
        if what == "freeze":
            changes.append(Change(fault.at_s, name, "freezes", seconds=fault.for_s))
            continue
        gone_s = fault.at_s
        if what == "terminate":
            # A trial takes one second, and so ends within the grace period of two.
            changes.append(Change(fault.at_s, name, "notice", seconds=GRACE_S))
            gone_s += min(GRACE_S, TRIAL_S)
        changes.append(Change(gone_s, name, "leaves"))
        lives[place] += 1
        back_s = gone_s + RESTART_S + start_s
        changes.append(Change(back_s, f"w{place}-{lives[place]}", "arrives", speed=1.0))
    return sorted(changes, key=lambda change: change.at_s)


def by_step(lines: Sequence[TrialReported], began_ms: float) -> list[float]:
    """When half of the slots had ended each step, in seconds."""
    ended: dict[int, list[float]] = {}
    for line in lines:
        ended.setdefault(line.step, []).append((line.at_ms - began_ms) / 1000)
    return [round(sorted(times)[(SLOTS - 1) // 2], 3) for _, times in sorted(ended.items())]


def times(lines: Sequence[TrialReported], began_ms: float) -> list[float]:
    """Times of all results, in seconds."""
    return [(line.at_ms - began_ms) / 1000 for line in lines]


def results(lines: Sequence[Line]) -> list[TrialReported]:
    """The lines that are results."""
    return [line for line in lines if isinstance(line, TrialReported)]


def draw_picture(
    file: Path, faults: Sequence[Fault], real: Sequence[float], simulated: Sequence[float]
) -> None:
    """Draw the number of results over time in both, and the faults."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    for label, ended_s in (("real processes", real), ("simulated", simulated)):
        ax.step(ended_s, range(1, len(ended_s) + 1), where="post", label=label)
    for fault in faults:
        ax.axvline(fault.at_s, color="0.8", lw=0.8, zorder=0)
        ax.text(fault.at_s, 0, fault.kind.partition(" ")[0], rotation=90, size=7, color="0.4")
    ax.set_xlabel("seconds")
    ax.set_ylabel("results accepted")
    ax.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)


def main() -> None:
    """Run both, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=9)
    parser.add_argument(
        "--span", type=float, default=22.0, help="seconds over which the faults are spread"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    given = parser.parse_args()
    logging.disable(logging.ERROR)
    faults = draw(given.faults, given.span, given.seed)
    with tempfile.TemporaryDirectory() as folder:
        drill = Compared(Path(folder), faults, WORKERS, 1, given.seed)
        verdict = asyncio.run(drill.run())
    began_ms, ended = drill.lines[0].at_ms, results(drill.lines)
    around_s = median(line.seconds for line in ended) - TRIAL_S
    start_s = median((line.at_ms - began_ms) / 1000 - line.seconds for line in ended[:WORKERS])
    played = simulate(
        Scenario(
            machines(faults, start_s),
            problem=PROBLEM,
            population=SLOTS,
            steps=STEPS,
            # On the drill's slow disk a checkpoint is stored while the next trial trains.
            durations=Durations(TRIAL_S, 0.0, save_s=max(0.0, around_s), beside=True),
            policy=Policy(lease_s=LEASE_S, grace_s=GRACE_S, broker_s=BROKER_S),
            history=True,
            seed=given.seed,
        )
    )
    ended_too = results(played.history["search-0"])
    real, simulated = by_step(ended, began_ms), by_step(ended_too, 0.0)
    pairs = list(zip(real, simulated, strict=True))
    if given.picture is not None:
        draw_picture(given.picture, faults, times(ended, began_ms), times(ended_too, 0.0))
    measured = {
        "benchmark": "sim_vs_real",
        "faults": len(faults),
        "real_completed": verdict["completed"],
        "simulated_completed": played.figures["status"] == "finished",
        "start_s": round(start_s, 2),
        "around_a_trial_s": round(around_s, 3),
        "real_s": real,
        "simulated_s": simulated,
        "largest_gap_s": round(max(abs(a - b) for a, b in pairs), 2),
        "end_ratio": round(simulated[-1] / real[-1], 3),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
