"""Measure how many trials per second the whole system does if training costs nothing.

    python benchmarks/end_to_end.py --rounds 5

The setup is a real server, one actor process, and 8 worker processes with a child process each. The
task returns the sum of its hyperparameters and writes an empty file. If the extra `peers` is
installed, Ray Tune's PBT does the same with 8 members. The two systems alternate, so that other
load on the machine affects both. Prints one JSON line with medians of the rounds.

Both systems have the same number of members, of warm-up steps, and of counted steps. The counted
time is from the last warm-up result to the last result, as they arrive at ROMUL's server or at
Ray's driver. Start-up is measured separately, from before the start of the server (for Ray:
`ray.init`) to the first result; imports of this program are not counted.

Both keep the checkpoint of each trial on the same disk. ROMUL's is the empty file and a manifest
with its hash, both flushed to the disk and renamed; Ray's is the empty file, not flushed. Both
write each result to files: ROMUL's server to a file that is flushed once a second, Ray to JSON and
CSV files (and TensorBoard's, if that is installed).
"""

import argparse
import asyncio
import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from romul_actors.client import Client
from romul_actors.core.history import TrialReported
from romul_actors.core.optimizers.romul import MIN_POOL
from romul_actors.launch.crew import crew
from romul_actors.local.processes import running
from romul_actors.local.redis_server import embedded_server
from romul_actors.observe.stored_history import read_history
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store.redis import RedisStore

WARM_UP = 5
"""Number of steps of each member that are not counted, in both systems."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one run of a system.

    Attributes:
        server_s: time until the server answers, in seconds; for Ray, duration of `ray.init`.
        first_trial_s: time from then to the first result, in seconds: processes start and import.
        trials_per_s: rate after the warm-up.
    """

    server_s: float
    first_trial_s: float
    trials_per_s: float


def experiment(population: int, steps: int, folder: Path) -> Experiment:
    """Declare an experiment whose task does nothing."""
    return Experiment(
        name="bench",
        task="romul_workers.tasks.toys:nothing",
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        population=population,
        steps=WARM_UP + steps,
        checkpoints=str(folder / "checkpoints"),
        # Ray removes no checkpoints either.
        keep_checkpoints="all",
    )


async def romul(workers: int, steps: int) -> Measured:
    """Run ROMUL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        async with embedded_server(folder) as url:
            served = time.perf_counter()
            store = RedisStore(url)
            await Client(store).submit(experiment(workers, steps, folder))
            async with running(crew(url, folder, workers, [], [])):
                await reported(store, 1)
                first = time.perf_counter()
                await reported(store, (WARM_UP + steps) * workers)
                lines = await read_history(store, "bench")
            await store.close()
    # The server stamps each report when it arrives.
    ended = [line.at_ms / 1000 for line in lines if isinstance(line, TrialReported)]
    return Measured(served - began, first - served, rate(ended, WARM_UP * workers))


async def reported(store: RedisStore, at_least: int) -> None:
    """Wait until `at_least` trials have been reported."""
    while True:
        if await store.reported("bench") >= at_least:
            return
        await asyncio.sleep(0.01)


def rate(ended: Sequence[float], warm_up: int) -> float:
    """Results per second after the first `warm_up` ones, from the time of each result."""
    counted = ended[warm_up - 1 :]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def ray_tune(members: int, steps: int) -> Measured:
    """Run Ray Tune's PBT."""
    import ray  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415

    ended: list[float] = []

    class Clock(tune.Callback):  # type: ignore[misc]
        """Records when each result arrives."""

        def on_trial_result(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        began = time.perf_counter()
        # One CPU per member, so that no member waits for a core of this machine.
        ray.init(address="local", num_cpus=members, include_dashboard=False, log_to_driver=False)
        try:
            served = time.perf_counter()
            _tuner(members, WARM_UP + steps, Path(folder), Clock()).fit()
        finally:
            ray.shutdown()
    # A member that continues another's checkpoint also takes over its count of steps, so the total
    # may be more or less than requested.
    return Measured(served - began, ended[0] - served, rate(ended, WARM_UP * members))


def _tuner(members: int, steps: int, folder: Path, clock: Any) -> Any:
    from ray import tune  # noqa: PLC0415
    from ray.tune.schedulers import PopulationBasedTraining  # noqa: PLC0415

    class Nothing(tune.Trainable):  # type: ignore[misc]
        """A member that does nothing."""

        def setup(self, config: dict[str, Any]) -> None:
            self.config = config

        def step(self) -> dict[str, float]:
            return {"loss": self.config["x"]}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "empty").touch()

        def load_checkpoint(self, checkpoint: Any) -> None:
            del checkpoint

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

    scheduler = PopulationBasedTraining(
        perturbation_interval=1,
        hyperparam_mutations={"x": tune.uniform(0.0, 1.0)},
        metric="loss",
        mode="min",
    )
    return tune.Tuner(
        Nothing,
        param_space={"x": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(scheduler=scheduler, num_samples=members, reuse_actors=True),
        run_config=tune.RunConfig(
            stop={"training_iteration": steps},
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            callbacks=[clock],
        ),
    )


def measure(workers: int, steps: int, rounds: int, *, peer: bool) -> dict[str, Any]:
    """Run both in turn, and return medians of the rounds."""
    ours: list[Measured] = []
    theirs: list[Measured] = []
    for number in range(rounds):
        ours.append(asyncio.run(romul(workers, steps)))
        if peer:
            theirs.append(ray_tune(workers, steps))
        rates = ", ".join(f"{row[-1].trials_per_s:.1f}" for row in (ours, theirs) if row)
        print(f"round {number + 1} of {rounds}: {rates} trials/s", file=sys.stderr)
    ratios = [a.trials_per_s / b.trials_per_s for a, b in zip(ours, theirs, strict=False)]
    return {
        "benchmark": "end_to_end",
        "workers": workers,
        "warm_up": WARM_UP,
        "steps": steps,
        "rounds": rounds,
        "romul": medians(ours),
        "ray_tune": medians(theirs) if theirs else None,
        "ratio_to_ray_tune": round(median(ratios), 2) if ratios else None,
        "ratios_to_ray_tune": [round(ratio, 2) for ratio in ratios],
    }


def medians(rows: Sequence[Measured]) -> dict[str, float]:
    """Medians of all runs of one system."""
    values = [asdict(row) for row in rows]
    return {key: round(median(row[key] for row in values), 2) for key in values[0]}


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workers", type=int, default=8, help="workers, and members of Ray's population"
    )
    parser.add_argument("--steps", type=int, default=40, help="counted PBT steps of each member")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each system")
    chosen = parser.parse_args()
    if chosen.workers < MIN_POOL:
        parser.error(f"argument --workers: {MIN_POOL} at least, one for each slot")
    peer = importlib.util.find_spec("ray") is not None
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    print(json.dumps(measure(chosen.workers, chosen.steps, chosen.rounds, peer=peer)))


if __name__ == "__main__":
    main()
