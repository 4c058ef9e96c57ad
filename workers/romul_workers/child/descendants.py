"""Kills what a task has started, even in other process groups.

torchrun, for one, starts each of its processes in a session of its own. When they lose their
parent they train on, or wait for it, with the memory of a GPU. So the child process has a mark in
its environment, which all its descendants inherit.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

MARK = "ROMUL_CHILD"
"""Environment variable whose value is another one in each child process of a worker."""


def new_mark() -> str:
    """A value of `MARK` that no other process has."""
    return uuid4().hex


def kill_marked(mark: str) -> None:
    """Kill all processes of this machine whose environment has this mark, except for this process.

    Processes of other users, and those that were started with an environment of their own, are not
    found. Without a Linux `/proc`, none is.

    Args:
        mark: value of `MARK`.
    """
    entry = f"{MARK}={mark}".encode()
    killed = {os.getpid()}
    # Until none is new: a process may start another one while they are looked for.
    while found := set(_processes_with(entry)) - killed:
        for process in found:
            # It has ended, or runs as another user by now.
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        killed |= found


def _processes_with(entry: bytes) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile, or belong to another user.
        with contextlib.suppress(OSError):
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
