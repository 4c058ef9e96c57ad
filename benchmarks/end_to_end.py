"""How many trials a second the whole system does when training costs nothing.

    python benchmarks/end_to_end.py

A real server, one actor process, 8 worker processes with a child process each, and a task that
does nothing but write an empty file. With the extra `peers` installed, Ray Tune's PBT does the same
with 8 members in the same run. Prints one JSON line.
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
from pathlib import Path
from typing import Any

from romul_actors.cli.crew import crew
from romul_actors.cli.inspecting import create
from romul_actors.experiment import Experiment, FloatSpec
from romul_actors.optimizers.romul import MIN_POOL
from romul_actors.processes import running
from romul_actors.server import embedded_server
from romul_actors.store.redis import RedisStore

WARM_UP = 5
"""Steps of each slot that are not counted: processes start and import."""


def experiment(population: int, steps: int, folder: Path) -> Experiment:
    """Declare an experiment whose task does nothing."""
    return Experiment(
        name="bench",
        task="romul_workers.tasks.toys:nothing",
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        population=population,
        steps=steps,
        checkpoints=str(folder / "checkpoints"),
    )


async def romul(workers: int, steps: int) -> float:
    """Trials a second of this system."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with embedded_server(folder) as url:
            store = RedisStore(url)
            await create(store, experiment(workers, steps, folder))
            async with running(crew(url, folder, workers, [], [])):
                first = await trials(store, WARM_UP * workers)
                began = time.perf_counter()
                last = await trials(store, workers * steps)
                seconds = time.perf_counter() - began
            await store.close()
    return (last - first) / seconds


async def trials(store: RedisStore, at_least: int) -> int:
    """Wait until so many trials have been reported."""
    while True:
        reported = int((await store.load("bench")).meta.get("reported", 0))
        if reported >= at_least:
            return reported
        await asyncio.sleep(0.01)


def ray_tune(members: int, steps: int) -> float | None:
    """Trials a second of Ray Tune's PBT; None where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        return None
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # noqa: PLC0415
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

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # Members wait for nothing but the scheduler: none must queue for one of two cores.
        ray.init(address="local", num_cpus=members, include_dashboard=False, log_to_driver=False)
        scheduler = PopulationBasedTraining(
            perturbation_interval=1,
            hyperparam_mutations={"x": tune.uniform(0.0, 1.0)},
            metric="loss",
            mode="min",
        )
        tuner = tune.Tuner(
            Nothing,
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler, num_samples=members, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                stop={"training_iteration": steps},
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            ),
        )
        began = time.perf_counter()
        tuner.fit()
        seconds = time.perf_counter() - began
        ray.shutdown()
    return members * steps / seconds


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100, help="PBT steps of each slot")
    parser.add_argument(
        "--peer-steps", type=int, default=20, help="the same for Ray Tune; 0: without it"
    )
    chosen = parser.parse_args()
    if chosen.workers < MIN_POOL:
        parser.error(f"argument --workers: {MIN_POOL} at least, one for each slot")
    ours = asyncio.run(romul(chosen.workers, chosen.steps))
    print(f"romul: {ours:.1f} trials/s", file=sys.stderr)
    peer = ray_tune(chosen.workers, chosen.peer_steps) if chosen.peer_steps else None
    told = {
        "benchmark": "end_to_end",
        "workers": chosen.workers,
        "trials_per_s": round(ours, 1),
        "ray_tune_trials_per_s": None if peer is None else round(peer, 2),
        "ratio_to_ray_tune": None if peer is None else round(ours / peer, 1),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
