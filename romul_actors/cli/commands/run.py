"""`romul run`: an experiment on this machine, with its own server, actor and workers."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.local_run.play import Servers, play
from romul_actors.cli.local_run.summary import finish
from romul_actors.cli.options.declaration import (
    Deadline,
    From,
    WithCheckpoints,
    with_deadline,
    with_origin,
)
from romul_actors.cli.options.shared import AsJson, RunsFolder, WithBroker
from romul_actors.cli.output.printing import Console
from romul_actors.errors import StoreError
from romul_actors.launch.local_workers import names_of_gpus
from romul_actors.local.origin import begun_from_run
from romul_actors.local.redis_server import has_data, server_of
from romul_actors.local.run_file import RunFile, resumption
from romul_actors.protocol.advice import advice
from romul_actors.protocol.checkpoint_folder import absolute
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.plan import load
from romul_workers.checkpoints.inheritance import copies

WORKERS = 2
"""Default number of workers of a new run."""


def run(
    file: Annotated[
        Path | None, typer.Argument(help="Experiment file (.toml or .py).", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of worker processes.",
            show_default="2; with --resume, as many as before",
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="GPUs that each worker has for itself.",
            show_default="0, all workers share those that they see; with --resume, as before",
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Continue the run NAME.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="With --resume: new total number of steps.", metavar="STEPS"),
    ] = None,
    runs: RunsFolder = Path("runs"),
    redis: Annotated[
        str | None, typer.Option(help="Use this server instead of an embedded one.")
    ] = None,
    deadline: Deadline = None,
    from_run: From = None,
    with_checkpoints: WithCheckpoints = False,
    broker: WithBroker = True,
    as_json: AsJson = False,
) -> None:
    """Run an experiment on this machine, with its own server, actor and workers.

    Ctrl-C ends the run cleanly, and --resume continues it. If bounds, steps, population or
    constants of the optimizer have changed in the file, the run uses the new values. Other
    hyperparameters are refused, since that would be another search.
    """
    if file is None and resume is None:
        raise typer.BadParameter("give an experiment file or --resume NAME")
    if steps is not None and resume is None:
        raise typer.BadParameter("--steps needs --resume; a new run takes its steps from its file")
    if resume is not None:
        _check_none_given(deadline, from_run, with_checkpoints)
        folder, new = runs / resume, []
        plan, changes = RunFile.read(folder).changes(file)
        if redis is None and not has_data(folder):
            raise StoreError(
                f"{folder}: the run has no server of its own: give the server that it was started "
                f"on: `{resumption(folder)}`"
            )
        plan = replace(plan, workers=workers or plan.workers)
        plan = replace(plan, gpus=plan.gpus if gpus is None else gpus)
        names_of_gpus(plan.workers * plan.gpus)
        if steps is not None:
            changes = replace(changes, steps=steps, asked=True)
    else:
        file, changes = Path(str(file)), Changes()
        declared = load(file)
        experiment = with_origin(with_deadline(declared, deadline), from_run, with_checkpoints)
        folder = runs / experiment.name
        place = experiment.checkpoints
        place = str((folder / "checkpoints").resolve()) if place is None else absolute(place)
        experiment = experiment.model_copy(update={"checkpoints": place})
        for text in advice(experiment):
            Console(stderr=True, quiet=as_json).print(f"warning: {text}", soft_wrap=True)
        # A file that is run here is trusted with its own task: no --allow is needed.
        paths = [str(file.parent.resolve())]
        plan = RunFile([experiment.name], workers or WORKERS, [experiment.module], paths)
        plan = replace(plan, gpus=gpus or 0)
        names_of_gpus(plan.workers * plan.gpus)
        new = [experiment]
        plan = replace(plan, file=str(file.resolve()), declared=declared.model_dump(mode="json"))
        plan.check_new(folder)
        if redis is None:
            experiment = asyncio.run(begun_from_run(experiment, runs, server_of, copies))
            new = [experiment]
    ended = play(folder, plan, new, Servers(redis, broker), quiet=as_json, changes=changes)
    finish(folder, ended, {}, as_json=as_json, server=redis)


def _check_none_given(deadline: str | None, from_run: str | None, with_checkpoints: bool) -> None:
    """Make sure that a continued run is given no options that only a new run takes.

    Raises:
        typer.BadParameter: there is such an option; the message is for people.
    """
    if deadline is not None:
        raise typer.BadParameter("--deadline is for a new run; `romul stop NAME` ends this one")
    if from_run is not None or with_checkpoints:
        raise typer.BadParameter("--from-run and --with-checkpoints are for a new run")
