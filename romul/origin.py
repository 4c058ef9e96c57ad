"""The local run that a new search begins from."""

import contextlib
from pathlib import Path

from romul.client import opened
from romul.processes import supervised
from romul.supervisor import Plan
from romul_actors.errors import UnknownExperimentError
from romul_actors.local.redis_server import URL_FILE
from romul_actors.local.run_file import holds_run
from romul_actors.observe.former import begun_from
from romul_actors.protocol.experiment import Experiment
from romul_workers.inheritance import copies


def check_origin(experiment: Experiment, runs: Path) -> None:
    """Make sure that there is the local run that a new one begins from.

    Raises:
        UnknownExperimentError: there is none.
    """
    origin = experiment.from_run
    if origin is not None and not holds_run(runs / origin.name):
        raise UnknownExperimentError(f"from_run: {runs / origin.name}: no run there")


async def begun_from_run(experiment: Experiment, runs: Path) -> Experiment:
    """The experiment with what it takes from another local run.

    Raises:
        UnknownExperimentError: there is no search of that name.
        ExperimentError, CheckpointError: nothing can be taken from it.
    """
    if experiment.from_run is None:
        return experiment
    check_origin(experiment, runs)
    folder = runs / experiment.from_run.name
    async with contextlib.AsyncExitStack() as stack:
        if (folder / URL_FILE).exists():
            url = str(folder)
        else:
            supervisor = await stack.enter_async_context(supervised(Plan(str(folder), workers=0)))
            url = await supervisor.server()
        client = await stack.enter_async_context(opened(url))
        return await begun_from(experiment, client.store, copies)
