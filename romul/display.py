"""Shows the progress of a search: a bar in a terminal or a notebook, or nothing."""

import sys
from dataclasses import dataclass
from html import escape
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from romul_actors.observe.visible import visible


@dataclass(frozen=True, slots=True)
class Standing:
    """Progress of a search.

    Attributes:
        ended: number of trials that have ended.
        total: number of trials of the whole search.
        text: best value so far, failed attempts, the status unless it is running, and, on a
            server, the most serious problem, such as that no worker is alive.
    """

    ended: int
    total: int
    text: str


class Display:
    """Shows nothing. Base class of the other displays."""

    def show(self, standing: Standing) -> None:
        """Show the progress."""

    def say(self, text: str) -> None:
        """Show a message that remains visible."""

    def close(self) -> None:
        """Stop updating the display."""


class Terminal(Display):
    """A progress bar on standard error."""

    def __init__(self, name: str) -> None:
        from rich.console import Console  # noqa: PLC0415, TID251  (markup is off in every column)

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False, highlight=False),
        )
        self._task = self._bar.add_task(name, total=None, text="")
        self._bar.start()

    def show(self, standing: Standing) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            completed=standing.ended,
            total=standing.total,
            text=visible(standing.text),
        )

    def say(self, text: str) -> None:
        """Print a message above the bar."""
        self._bar.console.print(visible(text), soft_wrap=True)

    def close(self) -> None:
        """Stop the bar and leave it on the screen."""
        self._bar.stop()


class Notebook(Display):
    """A bar and a line of text below the cell, updated in place."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None
        self._shown: Standing | None = None

    def show(self, standing: Standing) -> None:
        """Update the bar and the line."""
        from IPython.display import display  # noqa: PLC0415

        if standing == self._shown:
            return
        self._shown = standing
        line = f"{self._name} {standing.ended}/{standing.total} trials  {standing.text}"
        data = {
            "text/plain": visible(line),
            "text/html": f'<progress max="{standing.total}" value="{standing.ended}"></progress> '
            f"{escape(visible(line))}",
        }
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)

    def say(self, text: str) -> None:
        """Print a message below the cell."""
        sys.stderr.write(f"{visible(text)}\n")


def display(name: str, progress: bool | None) -> Display:  # noqa: FBT001
    """Choose a display.

    Args:
        name: name of the search.
        progress: True always shows a bar, False never does; None shows one in a terminal or a
            notebook only.
    """
    if progress is False:
        return Display()
    if _in_a_notebook():
        return Notebook(name)
    return Terminal(name) if progress or sys.stderr.isatty() else Display()


def _in_a_notebook() -> bool:
    """Whether an IPython kernel runs the program."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None
