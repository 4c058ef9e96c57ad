"""The list of all commands: true, and shown without their libraries."""

import json
import subprocess
import sys

import pytest

from romul_actors.cli.commands import ALIASES, COMMANDS, GROUPS
from romul_actors.cli.lazy import AllCommands, LazyCommand, LazyGroup
from tests.conftest import romul_anew

LISTED = {name: line for commands in COMMANDS.values() for name, (_, line) in commands.items()}
HEAVY = {
    "aiomqtt",
    "fsspec",
    "msgpack",
    "numpy",
    "redis",
    "romul_sim",
    "romul_workers",
    "torch",
}
PROBE = """
import json, sys
from romul_actors.cli import main
sys.argv = ["romul", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print(json.dumps(sorted(name for name in sys.modules if "." not in name)), file=sys.stderr)
"""


def command(name):
    return AllCommands(name="romul").commands[name]


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_line_is_the_first_one_of_the_commands_own_help(name):
    found = command(name)
    assert isinstance(found, LazyGroup if name in GROUPS else LazyCommand)
    first, _, _ = found.load().help.partition("\n\n")
    assert " ".join(first.split()) == LISTED[name] == found.help


@pytest.mark.parametrize("short", ALIASES)
def test_a_short_name_is_the_same_command_and_is_not_listed(short):
    assert command(short).hidden
    assert command(short).load().callback.__wrapped__ is (
        command(ALIASES[short]).load().callback.__wrapped__
    )


def test_a_group_has_its_commands():
    assert set(command("schedule").commands) == {"export", "train"}
    assert set(command("dead").commands) == {"list", "retry", "drop"}


def imported(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-command"], []])
def test_what_names_no_command_imports_no_library_of_one(arguments):
    found = imported(*arguments)
    assert "typer" in found
    assert found.isdisjoint(HEAVY)


def test_the_list_of_commands_needs_no_pydantic():
    # Typer itself reads other options with it.
    assert "pydantic" not in imported("--help")


def test_a_shell_completes_commands():
    asked = {"_ROMUL_COMPLETE": "complete_bash", "COMP_WORDS": "romul ext", "COMP_CWORD": "1"}
    assert romul_anew(**asked).stdout.split() == ["extend"]
