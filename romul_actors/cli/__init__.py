"""The command line: `romul --help`."""

import logging
import sys

from rich.console import Console

from romul_actors.cli.exits import exit_code
from romul_actors.errors import RomulError

__all__ = ["main"]


def main() -> None:
    """Run the command line; this project's errors are one line and an exit code of their own."""
    # Imported here, so that a wrong installation is told in the same way.
    from romul_actors.cli.app import app  # noqa: PLC0415

    try:
        app(prog_name="romul")
    except RomulError as error:
        logging.getLogger("romul").debug("failed", exc_info=True)
        Console(stderr=True, highlight=False).print(f"romul: {error}", style="red", markup=False)
        sys.exit(exit_code(error))
