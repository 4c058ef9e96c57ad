"""`romul demo`: a population trained on handwritten digits, compared with random search."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors.cli.local_run.play import Servers, play
from romul_actors.cli.local_run.summary import finish
from romul_actors.cli.options.shared import AsJson, RunsFolder, WithBroker
from romul_actors.errors import ExperimentError
from romul_actors.local.redis_server import check_idle
from romul_actors.local.run_file import RunFile, holds_run
from romul_actors.protocol.experiment import OptimizerSpec, parse

DEMO = parse((files("romul_workers.tasks") / "digits.toml").read_text(), "digits.toml")
RANDOM_SEED = 2
"""Seed of the demo's random search: its result is the median of seeds 0 to 20.

By `benchmarks/digits.py --seeds 21 --steps 40 --optimizers random` of commit a91f3c9, on the
demo's task, slots and steps. One seed says little, and seed 0 is the worst of them.
"""


def demo(
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes.")] = 2,
    population: Annotated[int, typer.Option(min=4, help="Number of slots.")] = DEMO.population,
    steps: Annotated[int, typer.Option(min=1, help="PBT steps per slot.")] = DEMO.steps,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the search, but not of random search.")
    ] = DEMO.seed,
    runs: RunsFolder = Path("runs"),
    broker: WithBroker = True,
    as_json: AsJson = False,
) -> None:
    """Train a population on handwritten digits, and compare it with random search.

    Random search has a fixed seed: with 8 slots and 40 steps, its result is the median of 21 seeds.
    """
    folder = runs / "demo"
    changes: dict[str, Any] = {
        "population": population,
        "steps": steps,
        "seed": seed,
        "checkpoints": str((folder / "checkpoints").resolve()),
    }
    experiment = DEMO.model_copy(update={**changes, "name": "demo"})
    rival = experiment.model_copy(
        update={
            "name": "demo-random",
            "seed": RANDOM_SEED,
            "optimizer": OptimizerSpec(name="random"),
            "checkpoints": str((folder / "checkpoints-random").resolve()),
        }
    )
    if folder.exists():
        # Only what an earlier demo has left, and only if it is no longer running.
        check_idle(folder)
        if not holds_run(folder):
            raise ExperimentError(
                f"{folder} exists and is not an earlier demo: choose another --runs"
            )
        shutil.rmtree(folder)
    plan = RunFile([experiment.name, rival.name], workers, [], [])
    plan.write(folder)
    ended = play(folder, plan, [experiment, rival], Servers(None, broker), quiet=as_json)
    ours, random = (ended.summaries[name] for name in plan.experiments)
    extra = {
        "best_val_loss": ours["best"],
        "test_accuracy": (ours["best_metrics"] or {}).get("test_accuracy"),
        "random_best_val_loss": random["best"],
        "random_test_accuracy": (random["best_metrics"] or {}).get("test_accuracy"),
    }
    finish(folder, ended, extra, as_json=as_json)
