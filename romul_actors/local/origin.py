"""The local run that a new one starts from."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from romul_actors.client import Client
from romul_actors.local.run_file import check_run
from romul_actors.observe.former import Copies, begun_from
from romul_actors.protocol.experiment import Experiment

Server = Callable[[Path], AbstractAsyncContextManager[str]]
"""URL of the server in a run's folder, for the duration of a `with` block."""


def check_origin(experiment: Experiment, runs: Path) -> None:
    """Check that the local run that a new one starts from exists, if it starts from one.

    Raises:
        UnknownExperimentError: that run does not exist.
    """
    if experiment.from_run is not None:
        check_run(runs / experiment.from_run.name, begin="from_run: ")


async def begun_from_run(
    experiment: Experiment, runs: Path, server: Server, copies: Copies
) -> Experiment:
    """The experiment, with what it takes from another local run.

    Args:
        experiment: a new experiment; without `from_run` it is returned unchanged.
        runs: the folder of both runs.
        server: returns the other run's server.
        copies: see `begun_from`.

    Raises:
        UnknownExperimentError: there is no run of that name.
        ExperimentError, CheckpointError: that run cannot be used.
    """
    if experiment.from_run is None:
        return experiment
    check_origin(experiment, runs)
    async with server(runs / experiment.from_run.name) as url, Client.connect(url) as client:
        return await begun_from(experiment, client.store, copies)
