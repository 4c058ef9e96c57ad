"""The local run that a new one begins from."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from romul_actors.client import Client
from romul_actors.local.run_file import check_run
from romul_actors.observe.former import Copies, begun_from
from romul_actors.protocol.experiment import Experiment

Server = Callable[[Path], AbstractAsyncContextManager[str]]
"""URL of the server of a run's folder, for the time of a `with` block."""


def check_origin(experiment: Experiment, runs: Path) -> None:
    """Make sure that there is the local run that a new one begins from, if it begins from one.

    Raises:
        UnknownExperimentError: there is none.
    """
    if experiment.from_run is not None:
        check_run(runs / experiment.from_run.name, begin="from_run: ")


async def begun_from_run(
    experiment: Experiment, runs: Path, server: Server, copies: Copies
) -> Experiment:
    """The experiment with what it takes from another local run.

    Args:
        experiment: a new one; without `from_run` it stays as it is.
        runs: the folder of both runs.
        server: gives the other run's server.
        copies: see `begun_from`.

    Raises:
        UnknownExperimentError: there is no run of that name.
        ExperimentError, CheckpointError: nothing can be taken from it.
    """
    if experiment.from_run is None:
        return experiment
    check_origin(experiment, runs)
    async with server(runs / experiment.from_run.name) as url, Client.connect(url) as client:
        return await begun_from(experiment, client.store, copies)
