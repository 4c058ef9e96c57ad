"""The command line: `romul --help`."""

import logging
import sys
import traceback
from typing import NoReturn

from romul_actors.cli.exits import DECLARATION, EXPERIMENT_FAILED, exit_code
from romul_actors.cli.output.printing import Console, echo
from romul_actors.errors import RomulError
from romul_actors.observe.visible import VisibleFormatter

__all__ = ["main"]

_UNUSABLE = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""Errors of a path that the user gave. A full or damaged disk is not among them."""


def main() -> None:
    """Run the command line. An error of this project ends it with one line and its exit code."""
    if logging.lastResort is not None:
        # For commands that start no log.
        logging.lastResort.setFormatter(VisibleFormatter())
    # Imported here, so that a wrong installation is reported in the same way.
    from romul_actors.cli.app import app  # noqa: PLC0415

    try:
        app(prog_name="romul")
    except RomulError as error:
        _end(error, str(error), exit_code(error))
    except _UNUSABLE as error:
        paths = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if not paths:
            _show_defect()
        _end(error, f"{', '.join(paths)}: {error.strerror}", DECLARATION)
    except Exception:  # noqa: BLE001  (a defect)
        _show_defect()


def _end(error: Exception, message: str, code: int) -> NoReturn:
    """Print in one line why the command ends, and exit."""
    logging.getLogger("romul").debug("failed", exc_info=error)
    # Not wrapped to the width of the terminal: programs search logs for whole lines.
    Console(stderr=True).print(f"romul: {message}", style="red", soft_wrap=True)
    sys.exit(code)


def _show_defect() -> NoReturn:
    """Print the traceback of the error that is being handled, and exit."""
    # Its text may quote what others wrote: `echo` makes control characters visible.
    echo(traceback.format_exc(), err=True, nl=False)
    sys.exit(EXPERIMENT_FAILED)
