"""The list of all commands is complete, and is shown without importing their libraries."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from romul_actors.cli import main
from romul_actors.cli.commands import ALIASES, COMMANDS, GROUPS
from romul_actors.cli.lazy import AllCommands, LazyCommand, LazyGroup
from romul_actors.cli.options.arguments import checked
from romul_actors.core.optimizers import OPTIMIZERS, make
from romul_sim.play import optimizer_spec

LISTED = {name: line for commands in COMMANDS.values() for name, line in commands.items()}
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


def test_a_listed_line_is_the_first_one_of_the_commands_own_help():
    for name, line in LISTED.items():
        found = command(name)
        assert isinstance(found, LazyGroup if name in GROUPS else LazyCommand)
        first, _, _ = found.load().help.partition("\n\n")
        assert (name, " ".join(first.split())) == (name, line) == (name, found.help)


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
    # Typer itself reads other options with it.
    assert arguments != ["--help"] or "pydantic" not in found


HUGE = "1" + "0" * 30


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("worker", "--grace", "nan"), "--grace"),
        (("worker", "--grace", "1e10"), "--grace: 1e+10 is above 1e+09"),
        (("worker", "--garbage-s", "inf"), "--garbage-s: inf is not finite"),
        (("worker", "--quota-gb", "nan"), "--quota-gb"),
        (("worker", "--notice-s", "inf"), "--notice-s: inf is not finite"),
        (("worker", "--affinity-s", "nan"), "--affinity-s"),
        (("worker", "--max-trials", HUGE), "--max-trials: a whole number of more than 64 bits"),
        (("worker", "--name", "a\udcff"), "--name: 'a\\udcff' is not UTF-8"),
        (("worker", "--allow", "a", "--allow", "\udcff"), "--allow: '\\udcff' is not UTF-8"),
        (("bounds", "e", "x", "--min", "nan", "--max", "1"), "--min: nan is not finite"),
        (("bounds", "e", "x", "--min", "0", "--max", "-inf"), "--max: -inf is not finite"),
        (("top", "e", "--every", "inf"), "--every: inf is not finite"),
        (("record", "e", "--to", "e.jsonl", "--every-s", "nan"), "--every-s"),
        (("collect", "e", "--older", "inf"), "--older: inf is not finite"),
        (("drill", "--every", "nan"), "--every"),
        (("launch", "--on", "local", "--grace", "inf"), "--grace: inf is not finite"),
        (("check", "e.toml", "--budget", "inf"), "--budget: inf is not finite"),
        (("sim", "--churn", "spot", "--trial-s", "inf"), "--trial-s: inf is not finite"),
        (("sim", "--churn", "spot", "--target", "nan"), "--target: nan is not finite"),
        (("show", "e", HUGE), "slot: a whole number of more than 64 bits"),
        (("show", "e\udcff"), "name: 'e\\udcff' is not UTF-8"),
        (("history", "e", "-n", HUGE), "-n: a whole number of more than 64 bits"),
        (("extend", "e", "--steps", HUGE), "--steps: a whole number of more than 64 bits"),
        (("dead", "list", "e", "--count", HUGE), "--count: a whole number of more than 64 bits"),
        (("schedule", "train", "s.json", "--seed", HUGE), "--seed: a whole number of more than"),
        (("run", "e.toml", "--deadline", "+1e300h"), "+1e300h' is not a time such as"),
    ],
)
def test_no_argument_is_taken_that_cannot_be_counted_on(
    arguments, said, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "e.toml").write_text(
        'name = "e"\ntask = "t"\nsteps = 1\n[space]\nx = { type = "boolean" }\n'
    )
    (tmp_path / "s.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["romul", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert (ended.value.code, "Traceback" in shown) == (2, False)
    assert said in shown.replace("for ", "").replace("'--", "--").replace("':", ":")
    assert list(tmp_path.glob("runs/*")) == []


def test_an_option_from_the_environment_is_looked_at_too(monkeypatch, capsys):
    monkeypatch.setenv("ROMUL_GRACE_S", "inf")
    monkeypatch.setattr(sys, "argv", ["romul", "worker"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--grace: inf is not finite" in capsys.readouterr().err


@pytest.mark.parametrize("group", GROUPS)
def test_commands_of_groups_look_at_their_arguments(group):
    found = getattr(importlib.import_module(command(group).module), group)
    functions = [info.callback for info in found.registered_commands]
    assert functions
    assert all(function.__code__ is CHECKED for function in functions)


CHECKED = checked(lambda: None).__code__
"""The code of a command that checks its arguments before it runs."""


ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
CALL = re.compile(r"(?:^|`|\$ |; )romul ([a-z]+(?: [^`\n;#]*)?)", re.MULTILINE)


def shown_calls():
    """(page, command with its arguments) of each call of `romul` that a page shows."""
    for page in PAGES:
        for text in CALL.findall(page.read_text()):
            yield str(page.relative_to(ROOT)), text.strip().rstrip("\\").split()


def test_pages_show_commands_and_options_that_there_are():
    unknown, looked_at = [], 0
    for page, (name, *arguments) in shown_calls():
        found = command(name)
        if name in GROUPS and arguments:
            found = found.commands[arguments[0]]
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        options = {
            part.split("=")[0].rstrip(",.)")
            for argument in own
            for part in argument.split("/")
            if part.startswith("--")
        }
        looked_at += len(options)
        known = {"--help", *(o for p in found.params for o in (*p.opts, *p.secondary_opts))}
        unknown += [(page, name, option) for option in sorted(options - known)]
    assert looked_at > 50
    assert unknown == []


def test_the_help_of_a_command_fits_a_narrow_terminal():
    for name in LISTED:
        found = command(name).load()
        lines = found.get_help(found.make_context(name, [], resilient_parsing=True)).splitlines()
        assert max(map(len, lines)) <= 80, name
        assert not set("│╭") & set("".join(lines)), name


OPTIONS = re.compile(rf"\b({'|'.join(OPTIMIZERS)})((?::\w+=(?:true|false|[\d.]*\d))+)")


def test_options_of_optimizers_in_help_and_pages_are_theirs():
    texts = [parameter.help for name in LISTED for parameter in command(name).params]
    texts = [text for text in texts if isinstance(text, str)]
    given = OPTIONS.findall("\n".join([*texts, *(page.read_text() for page in PAGES)]))
    assert len(given) > 5
    for name, options in given:
        spec = optimizer_spec(name + options)
        make(spec.pop("name"), spec)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a"), 2, "romul: a: No such file"),
        (FileExistsError(17, "File exists", "a", None, "b"), 2, "romul: a, b: File exists"),
        (FileNotFoundError("a defect"), 1, "Traceback"),
        (OSError(28, "No space left on device", "a"), 1, "Traceback"),
        (KeyError("a defect"), 1, "Traceback"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line_and_a_defect_a_traceback(
    error, code, said, monkeypatch, capsys
):
    def fails(**_):
        raise error

    monkeypatch.setattr("romul_actors.cli.app.app", fails)
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert (ended.value.code, shown.startswith(said)) == (code, True), shown
