"""The options --from-run and --with-checkpoints: a search begins with what another has found."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.connection import connected
from romul_actors.client import Client
from romul_actors.local.redis_server import embedded_server, is_up
from romul_actors.local.run_file import check_run
from romul_actors.observe.former import begun_from
from romul_actors.protocol.declared_tables import FromRun
from romul_actors.protocol.experiment import Experiment
from romul_workers.inheritance import copies

From = Annotated[
    str | None,
    typer.Option(
        "--from-run",
        metavar="NAME",
        help="Begin with the best hyperparameters of another search.",
    ),
]

WithCheckpoints = Annotated[
    bool,
    typer.Option(
        "--with-checkpoints",
        help="With --from-run: and from copies of its checkpoints; trial.start counts from 0.",
    ),
]


def with_origin(
    experiment: Experiment,
    name: str | None,
    with_checkpoints: bool,
) -> Experiment:
    """The experiment, with the search that it begins from if one is named.

    Raises:
        typer.BadParameter: checkpoints, and no search to take them from.
    """
    if name is None and with_checkpoints:
        raise typer.BadParameter("--with-checkpoints goes with --from-run")
    if name is None:
        return experiment
    what = "checkpoints" if with_checkpoints else "hyperparameters"
    return experiment.model_copy(
        update={"from_run": FromRun.model_validate({"name": name, "what": what})}
    )


async def begun_from_run(experiment: Experiment, runs: Path) -> Experiment:
    """The experiment with what it takes from another local run.

    Raises:
        UnknownExperimentError: there is no run of that name.
        ExperimentError, CheckpointError: nothing can be taken from it.
    """
    if experiment.from_run is None:
        return experiment
    async with _server_of(runs / experiment.from_run.name) as client:
        return await begun_from(experiment, client.store, copies)


@contextlib.asynccontextmanager
async def _server_of(folder: Path) -> AsyncIterator[Client]:
    """A client of a local run's server, which is started if it is not up."""
    check_run(folder, begin="--from-run: ")
    async with contextlib.AsyncExitStack() as stack:
        url = str(folder)
        if not is_up(folder):
            url = await stack.enter_async_context(embedded_server(folder))
        yield await stack.enter_async_context(connected(url))
