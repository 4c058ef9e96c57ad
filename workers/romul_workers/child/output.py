"""The file with what tasks print: where a trial's output begins, and its text."""

import contextlib
import os
from pathlib import Path

from romul_actors.core.events import MAX_TEXT
from romul_workers.child.process import ChildProcess

LONGEST_LOG = 2**20
"""A temporary file of output that is longer, in bytes, is emptied before the next trial."""


def begin_output(log: Path, scratch: Path, child: ChildProcess | None) -> int:
    """Where the output of the next trial begins in a file, in bytes.

    Only the worker reads a file in `scratch`, which often lies in memory. So a long one is emptied;
    the child process appends, and continues at the new end.
    """
    with contextlib.suppress(OSError):
        size = log.stat().st_size
        if log.parent != scratch or size <= LONGEST_LOG:
            return size
        os.truncate(log, 0)
        if child is not None:
            child.log_start = 0
    return 0


def read_from(log: Path, start: int) -> str:
    """The text of a file from byte `start` on; only the end if it is long, "" if unreadable."""
    with contextlib.suppress(OSError):
        end = log.stat().st_size
        if end > start:
            with log.open("rb") as file:
                file.seek(max(start, end - MAX_TEXT))
                return file.read().decode(errors="replace")
    return ""
