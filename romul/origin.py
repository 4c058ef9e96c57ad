"""The search that a new one begins from: a local run, or one of the same server."""

import asyncio
import contextlib
from functools import partial
from pathlib import Path

from romul.client import opened
from romul.local_run import RUN
from romul.processes import supervised
from romul.supervisor import Plan
from romul_actors.client import Client
from romul_actors.errors import UnknownExperimentError
from romul_actors.local.redis_server import URL_FILE
from romul_actors.observe.former import read_former
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.first_trials import inherit
from romul_workers.inheritance import copies


def check_origin(experiment: Experiment, runs: Path) -> None:
    """Make sure that there is the local run that a new one begins from.

    Raises:
        UnknownExperimentError: there is none.
    """
    origin = experiment.from_run
    if origin is not None and not (runs / origin.name / RUN).exists():
        raise UnknownExperimentError(f"from_run: {runs / origin.name}: no run there")


async def begun_from(experiment: Experiment, runs: Path) -> Experiment:
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
        return await of_server(experiment, await stack.enter_async_context(opened(url)))


async def of_server(experiment: Experiment, client: Client) -> Experiment:
    """The experiment with what it takes from a search of the same server.

    Raises:
        UnknownExperimentError: there is no search of that name.
        ExperimentError, CheckpointError: nothing can be taken from it.
    """
    if experiment.from_run is None:
        return experiment
    former = await read_former(client.store, experiment.from_run.name)
    copying = partial(copies, former.experiment, experiment)
    return await asyncio.to_thread(inherit, experiment, former, copying)
