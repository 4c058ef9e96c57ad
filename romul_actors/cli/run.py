"""`romul run`: an experiment on this machine, server, actor and workers in one go."""

from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.deadline import Deadline, with_deadline
from romul_actors.cli.local_run import LocalRun, Servers, play
from romul_actors.cli.options import AsJson, RunsFolder, WithBroker
from romul_actors.cli.printing import Console
from romul_actors.cli.summary import finish
from romul_actors.protocol.advice import advice
from romul_actors.protocol.plan import load, settings


def run(
    file: Annotated[
        Path | None, typer.Argument(help="Experiment: a .toml or .py file.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with a run that was interrupted.")
    ] = None,
    runs: RunsFolder = Path("runs"),
    redis: Annotated[
        str | None, typer.Option(help="Use this server in place of an embedded one.")
    ] = None,
    deadline: Deadline = None,
    broker: WithBroker = True,
    as_json: AsJson = False,
) -> None:
    """Run an experiment on this machine: server, actor and workers in one go.

    Ctrl-C ends it cleanly; --resume goes on where it was.
    """
    if (file is None) == (resume is None):
        raise typer.BadParameter("give an experiment's file, or --resume NAME")
    if resume is not None:
        folder = runs / resume
        plan, new = LocalRun.read(folder), []
        plan = LocalRun(plan.experiments, workers, plan.allow, plan.paths)
    else:
        file = Path(str(file))
        experiment = with_deadline(load(file), deadline)
        folder = runs / experiment.name
        if experiment.checkpoints is None:
            place = str((folder / "checkpoints").resolve())
            experiment = experiment.model_copy(update={"checkpoints": place})
        settings(experiment)
        for text in advice(experiment):
            Console(stderr=True, quiet=as_json).print(f"warning: {text}", soft_wrap=True)
        # A file that is run here is trusted with its own task: no --allow is asked for.
        paths = [str(file.parent.resolve())]
        plan, new = LocalRun([experiment.name], workers, [experiment.module], paths), [experiment]
        plan.begin(folder)
    ended = play(folder, plan, new, Servers(redis, broker), quiet=as_json)
    finish(folder, ended, {}, as_json=as_json)
