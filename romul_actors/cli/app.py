"""All commands, in the order that a newcomer meets them."""

import typer

from romul_actors import __version__
from romul_actors.cli import (
    acl,
    bench,
    chaos,
    check,
    dashboard,
    drill,
    experiments,
    lab,
    launch,
    local,
    record,
    services,
    sim,
    upkeep,
    watch,
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
            local.demo,
            local.run,
            sim.sim,
            lab.lab,
            bench.bench,
            chaos.chaos,
            drill.drill,
            check.check,
        ),
    ),
    ("Each part alone", (services.actor, services.worker, launch.launch, services.serve)),
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
            watch.top,
            watch.workers,
            watch.history,
            watch.lineage,
            watch.explain,
            watch.logs,
            watch.waste,
            watch.doctor,
            dashboard.dashboard,
        ),
    ),
    ("Afterwards", (check.report, check.export, record.record, record.replay)),
    ("Care", (upkeep.failures, upkeep.collect, upkeep.control, acl.acl)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for short, command in (("ls", experiments.status), ("rm", experiments.remove)):
    app.command(short, hidden=True)(command)
app.add_typer(check.schedule, name="schedule", rich_help_panel="Afterwards")
app.add_typer(upkeep.dead, name="dead", rich_help_panel="Care")
