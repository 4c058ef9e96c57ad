"""All that commands print goes through here: nothing that others wrote reaches a terminal raw.

Names, choices, figures, errors and logs come from tasks, workers and files. Control characters are
written out before anything is laid out, and no markup is read in any text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.console
import rich.table
import typer
from rich import box
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from romul_actors.observe.visible import ascii_json, visible

LONGEST = 32
"""Longest name in a table, in characters."""
UNFOLDED = 10_000
"""Width of what is no terminal, in characters."""
NARROW = 16
"""Widest column of figures: a longer heading is folded."""
MARKS = {"ok": "ok ", "warning": "!  ", "fault": "!! "}
"""What a line begins with that says what was examined, by level."""


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text for people, on standard output or, with `err`, on standard error."""
    typer.echo(visible(text), err=err, nl=nl)


def echo_json(value: Any) -> None:
    """Print a value as a line of JSON, for programs; it is the same value when it is read."""
    typer.echo(ascii_json(json.dumps(value)))


def echo_figures(values: Mapping[str, Any]) -> None:
    """Print figures for people, a line each."""
    for name, value in values.items():
        echo(f"{name:18} {json.dumps(value) if isinstance(value, dict | list) else value}")


class Console(rich.console.Console):
    """Rich's console for text that others wrote: no markup, no emoji codes, no control characters.

    Where it prints into a pipe or a file, a line is as long as it need be, unless COLUMNS says how
    wide the lines are: programs read lines.

    Args:
        stderr: whether it prints on standard error.
        quiet: whether it prints nothing.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False, **more: Any) -> None:
        super().__init__(
            stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False, **more
        )
        if self._width is None and not self.is_terminal:
            self._width = UNFOLDED

    def render_str(self, text: str, **more: Any) -> Text:
        """A string as it is laid out: never read as markup, whatever the caller requests."""
        return super().render_str(visible(text), **{**more, "markup": False, "emoji": False})

    def render(
        self,
        renderable: rich.console.RenderableType,
        options: rich.console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """What is drawn; text that came in another shape than a string is made visible here."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


class Table(rich.table.Table):
    """A table without lines. Where it is too wide, its widest columns are folded first.

    So a long name takes lines, and no other column's room.

    Args:
        columns: headings of columns that are aligned to the left.
        right: headings of those after them, of figures, which are aligned to the right.
    """

    def __init__(self, *columns: str, right: Sequence[str] = ()) -> None:
        super().__init__(*columns, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for heading in right:
            self.add_column(heading, justify="right")

    def add_column(self, header: Any = "", footer: Any = "", **more: Any) -> None:
        """Add a column; a heading that is too long for one is shortened."""
        heading = header if isinstance(header, Text) else shortened(header)
        super().add_column(heading, footer, overflow="fold", **more)


def labelled(rows: Iterable[tuple[str, Sequence[str]]]) -> Table:
    """Lines under labels, which stand to their left; a label without lines is left out."""
    table = Table("", "")
    table.show_header, table.box, table.collapse_padding = False, None, False
    table.columns[0].no_wrap = True
    for label, lines in rows:
        for n, line in enumerate(lines):
            table.add_row("" if n else label, line)
    return table


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name of at most so many characters: the middle of a longer one is left out."""
    name = visible(name)
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[head + 1 - longest :]}"


class Commands(TyperGroup):
    """Commands whose complaints about their arguments are visible text, too."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            typer.BadParameter: it cannot do with its arguments; for people to read.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = visible(error.message)
            raise
