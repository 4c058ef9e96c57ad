"""All commands, in the order that a newcomer meets them."""

import typer

from romul_actors import __version__
from romul_actors.cli import (
    bench,
    care,
    chaotic,
    doors,
    drilling,
    inspecting,
    laboratory,
    launching,
    local,
    recording,
    services,
    showing,
    simulating,
    trying,
    watching,
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
            simulating.sim,
            laboratory.lab,
            bench.bench,
            chaotic.chaos,
            drilling.drill,
            trying.check,
        ),
    ),
    ("Each part alone", (services.actor, services.worker, launching.launch, services.serve)),
    (
        "Experiments",
        (
            inspecting.submit,
            inspecting.status,
            inspecting.show,
            inspecting.best,
            inspecting.pause,
            inspecting.resume,
            inspecting.stop,
            inspecting.pin,
            inspecting.bounds,
            inspecting.remove,
        ),
    ),
    (
        "Look",
        (
            watching.top,
            watching.workers,
            watching.history,
            watching.lineage,
            watching.explain,
            watching.logs,
            watching.waste,
            watching.doctor,
            showing.dashboard,
        ),
    ),
    ("Afterwards", (trying.report, trying.export, recording.record, recording.replay)),
    ("Care", (care.failures, care.collect, care.control, doors.acl)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for short, command in (("ls", inspecting.status), ("rm", inspecting.remove)):
    app.command(short, hidden=True)(command)
app.add_typer(trying.schedule, name="schedule", rich_help_panel="Afterwards")
app.add_typer(care.dead, name="dead", rich_help_panel="Care")
