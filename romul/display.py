"""How a program shows a search that goes on: a bar in a terminal or a notebook, or nothing."""

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
    """How far a search has come.

    Attributes:
        ended, total: trials.
        failed: those that were given up.
        text: the best so far, and attempts that failed.
    """

    ended: int
    total: int
    text: str


class Display:
    """Shows nothing; the others are made of it."""

    def show(self, standing: Standing) -> None:
        """Show how far the search has come."""

    def say(self, text: str) -> None:
        """Show a sentence that stays."""

    def close(self) -> None:
        """Leave the screen as it should stay."""


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
        """Print it above the bar."""
        self._bar.console.print(visible(text), soft_wrap=True)

    def close(self) -> None:
        """Leave the bar where it is."""
        self._bar.stop()


class Notebook(Display):
    """A bar and a line below the cell, which replace themselves."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None
        self._shown: Standing | None = None

    def show(self, standing: Standing) -> None:
        """Replace what the cell shows."""
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
        """Print it below the cell."""
        sys.stderr.write(f"{visible(text)}\n")


def display(name: str, progress: bool | None) -> Display:  # noqa: FBT001
    """What fits the program.

    Args:
        name: the search's.
        progress: None: a bar in a terminal or a notebook, nothing elsewhere; True: a bar, wherever
            it goes; False: nothing.
    """
    if progress is False:
        return Display()
    if _in_a_notebook():
        return Notebook(name)
    return Terminal(name) if progress or sys.stderr.isatty() else Display()


def _in_a_notebook() -> bool:
    """Whether the program is a cell of a notebook: IPython's own kernel runs it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None
