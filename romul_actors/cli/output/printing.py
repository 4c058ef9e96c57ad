"""Everything that commands print goes through here: no foreign text reaches a terminal raw.

Names, choices, figures, errors and logs come from tasks, workers and files. Control characters are
escaped before the layout, and no text is read as markup.
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
"""Maximum length of a name in a table, in characters."""
UNFOLDED = 10_000
"""Width of output that is not a terminal, in characters."""
NARROW = 16
"""Maximum width of a column of figures; a longer heading is folded."""
MARKS = {"ok": "ok ", "warning": "!  ", "fault": "!! "}
"""Beginning of a line about a check, by its level."""


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text for people, on standard output or, with `err`, on standard error."""
    typer.echo(visible(text), err=err, nl=nl)


def echo_json(value: Any) -> None:
    """Print a value as a line of JSON, for programs; reading it gives the same value."""
    typer.echo(ascii_json(json.dumps(value)))


def echo_figures(values: Mapping[str, Any]) -> None:
    """Print figures for people, one per line."""
    for name, value in values.items():
        echo(f"{name:18} {json.dumps(value) if isinstance(value, dict | list) else value}")


class Console(rich.console.Console):
    """Rich's console for text that others wrote: no markup, no emoji codes, no control characters.

    Lines printed to a pipe or a file are not wrapped, unless COLUMNS sets a width: programs read
    whole lines.

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
        """A string for the layout: never read as markup, whatever the caller requests."""
        return super().render_str(visible(text), **{**more, "markup": False, "emoji": False})

    def render(
        self,
        renderable: rich.console.RenderableType,
        options: rich.console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """What is drawn. Text that did not come as a string is made visible here."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


class Table(rich.table.Table):
    """A table without lines. If it is too wide, its widest columns are folded first.

    A long name then takes several lines, but no space of the other columns.

    Args:
        columns: headings of the left-aligned columns.
        right: headings of the right-aligned columns of figures, which come last.
    """

    def __init__(self, *columns: str, right: Sequence[str] = ()) -> None:
        super().__init__(*columns, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for heading in right:
            self.add_column(heading, justify="right")

    def add_column(self, header: Any = "", footer: Any = "", **more: Any) -> None:
        """Add a column; a heading that is too long is shortened."""
        heading = header if isinstance(header, Text) else shortened(header)
        super().add_column(heading, footer, overflow="fold", **more)


def labelled(rows: Iterable[tuple[str, Sequence[str]]]) -> Table:
    """Lines with labels to their left; a label without lines is left out."""
    table = Table("", "")
    table.show_header, table.box, table.collapse_padding = False, None, False
    table.columns[0].no_wrap = True
    for label, lines in rows:
        for n, line in enumerate(lines):
            table.add_row("" if n else label, line)
    return table


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name of at most `longest` characters; the middle of a longer one is left out."""
    name = visible(name)
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[head + 1 - longest :]}"


class Commands(TyperGroup):
    """Commands whose errors about arguments are visible text, too."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            typer.BadParameter: an argument is invalid; the message is visible text.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = visible(error.message)
            raise
