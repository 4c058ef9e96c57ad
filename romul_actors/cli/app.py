"""The command `romul`: its own options and all of its commands."""

import typer

from romul_actors import __version__
from romul_actors.cli.exits import HELP
from romul_actors.cli.lazy import AllCommands
from romul_actors.cli.output.printing import echo

app = typer.Typer(
    name="romul",
    cls=AllCommands,
    help="Population based training with ROMUL on machines that come and go.",
    epilog=HELP,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Print the version, or run the command."""
    if version:
        echo(f"romul {__version__}")
        raise typer.Exit
