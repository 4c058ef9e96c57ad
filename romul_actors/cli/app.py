"""All commands, in the order that a newcomer meets them."""

import typer

from romul_actors import __version__
from romul_actors.cli import (
    acl,
    actor,
    attempts,
    bench,
    chaos,
    check,
    checkpoints,
    dashboard,
    dead_letters,
    demo,
    doctor,
    drill,
    experiments,
    export,
    history,
    lab,
    launch,
    record,
    report,
    run,
    schedule,
    serve,
    sim,
    top,
    trials,
    worker,
    workers,
)
from romul_actors.cli.exits import HELP
from romul_actors.cli.printing import Commands, echo

app = typer.Typer(
    name="romul",
    cls=Commands,
    help="Population based training with ROMUL on machines that come and go.",
    epilog=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Print the version, or go on to the command."""
    if version:
        echo(f"romul {__version__}")
        raise typer.Exit


for panel, commands in (
    (
        "On one machine",
        (
            demo.demo,
            run.run,
            sim.sim,
            lab.lab,
            bench.bench,
            chaos.chaos,
            drill.drill,
            check.check,
        ),
    ),
    ("Each part alone", (actor.actor, worker.worker, launch.launch, serve.serve)),
    (
        "Experiments",
        (
            experiments.submit,
            experiments.status,
            experiments.show,
            experiments.best,
            experiments.pause,
            experiments.resume,
            experiments.stop,
            experiments.pin,
            experiments.bounds,
            experiments.remove,
        ),
    ),
    (
        "Look",
        (
            top.top,
            workers.workers,
            history.history,
            trials.lineage,
            trials.explain,
            trials.logs,
            attempts.waste,
            doctor.doctor,
            dashboard.dashboard,
        ),
    ),
    ("Afterwards", (report.report, export.export, record.record, record.replay)),
    ("Care", (attempts.failures, checkpoints.collect, workers.control, acl.acl)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for short, command in (("ls", experiments.status), ("rm", experiments.remove)):
    app.command(short, hidden=True)(command)
app.add_typer(schedule.schedule, name="schedule", rich_help_panel="Afterwards")
app.add_typer(dead_letters.dead, name="dead", rich_help_panel="Care")
