"""Commands whose modules are imported when they run, not when they are listed.

`romul --help` shows names and first lines only. A command's own libraries (numpy, pydantic, the
clients of the server and of the broker) are imported once that command is chosen.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from romul_actors.cli.commands import ALIASES, COMMANDS, GROUPS, module_of
from romul_actors.cli.options.arguments import checked
from romul_actors.cli.output.printing import Commands


class LazyCommand(TyperCommand):
    """A command of which only the name and the first line are known until it runs.

    Args:
        name: the command's name.
        function: the name of its function.
        line: the first line of its help.
        panel: the heading under which it is listed; None if it is not listed.
    """

    def __init__(self, name: str, function: str, line: str, panel: str | None) -> None:
        super().__init__(name, help=line, rich_help_panel=panel, hidden=panel is None)
        self.module = f"romul_actors.cli.commands.{module_of(function)}"
        self._function = function

    def load(self) -> Any:
        """The command itself. This imports its module."""
        found = getattr(import_module(self.module), self._function)
        if not isinstance(found, typer.Typer):
            # Boxes leave little room for text: in 80 columns, help would be twice as long.
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(self.name)(checked(found))
            found = alone
        return get_command(found)

    @property
    def params(self) -> list[Any]:
        """The command's own arguments and options. This imports its module."""
        params: list[Any] = self.load().params
        return params

    @params.setter
    def params(self, none: list[Any]) -> None:
        """Ignore what Typer's constructor sets: a listed command has no options of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """The context in which the command itself parses its arguments and runs."""
        return self.load().make_context(info_name, args, parent, **extra)


class LazyGroup(LazyCommand):
    """The same for a group of commands."""

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """The group's commands. This imports its module."""
        commands: MutableMapping[str, Any] = self.load().commands
        return commands


class AllCommands(Commands):
    """The group of all commands of `romul`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in _lazy_commands():
            self.add_command(command)


def _lazy_commands() -> Iterator[LazyCommand]:
    for panel, listed in COMMANDS.items():
        for name, line in listed.items():
            kind = LazyGroup if name in GROUPS else LazyCommand
            yield kind(name, name, line, panel)
    lines = {name: line for listed in COMMANDS.values() for name, line in listed.items()}
    for short, name in ALIASES.items():
        yield LazyCommand(short, name, lines[name], None)
