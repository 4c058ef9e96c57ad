"""Golden records: which changes affect them, and whether any decision has changed."""

import math
import shutil
import subprocess
from typing import Any

import pytest

from romul_actors.core.history import from_json
from romul_sim.churn.scenario import Scenario
from romul_sim.churn.simulation import simulate
from romul_sim.golden import HistoryHash, canonical
from romul_sim.lab import LabJob, play
from tests.golden import compare

LINE: dict[str, Any] = {
    "event": "trial",
    "at_ms": 1_700_000_000_000,
    "trial": "3-1",
    "vector": (0.1, 1 / 3),
    "why": {"rule": "kept", "pinned": False, "known": 4},
}


@pytest.fixture
def content():
    """The entries of the file; skips if this machine cannot be compared with it."""
    found = compare.recorded()
    if why := compare.other_machine(found["machine"], compare.machine()):
        pytest.skip(f"written on another machine: {why}")
    return found


def test_no_decision_has_moved(content):
    commands = compare.sets(quick=True)
    expected = compare.part_of(content["entries"], commands)
    assert {entry.partition("/")[0] for entry in expected} == commands.keys()
    lines = compare.moved(expected, compare.hashes(compare.ROOT, commands))
    assert not lines, "these entries moved; see docs/simulation.md:\n" + "\n".join(lines)


def test_the_file_holds_what_the_whole_set_plays():
    commands, entries = compare.sets(quick=False), compare.recorded()["entries"]
    assert compare.part_of(entries, commands) == entries
    assert {entry.partition("/")[0] for entry in entries} == commands.keys()
    assert len(set(entries.values())) == len(entries)


def test_entries_that_moved_are_named():
    entries = compare.recorded()["entries"]
    chosen = ["chaos/7", "lab-8/cliff/romul/1"]
    changed = {**entries, **dict.fromkeys(chosen, "0" * 64)}
    assert [line.partition(":")[0] for line in compare.moved(entries, changed)] == chosen
    fewer = {entry: sha256 for entry, sha256 in entries.items() if entry != "chaos/7"}
    assert compare.moved(entries, fewer) == [f"chaos/7: {entries['chaos/7'][:12]} -> none"]
    assert compare.moved(fewer, entries) == [f"chaos/7: none -> {entries['chaos/7'][:12]}"]
    assert compare.moved(entries, entries) == []


def test_another_machine_is_named_in_words():
    here = compare.machine()
    assert compare.other_machine(here, here) == ""
    assert "numpy is 0.1, not" in compare.other_machine(here, {**here, "numpy": "0.1"})
    without = {name: value for name, value in here.items() if name != "blas"}
    assert "blas is None" in compare.other_machine(here, without)


def test_one_constant_of_an_optimizer_moves_the_hash():
    def of(optimizer):
        return play(LabJob("cliff", optimizer, 8, 0, steps=12, golden=True)).golden_sha256

    assert of("romul") == of("romul")
    assert len({of("romul"), of("romul:factor=0.55"), of("truncation")}) == 3


def test_a_hash_costs_nothing_where_none_is_requested():
    assert play(LabJob("cliff", "romul", 8, 0, steps=3)).golden_sha256 is None
    assert "golden_sha256" not in simulate(Scenario([])).figures


def test_the_clock_and_the_last_digits_do_not_move_a_line():
    same = [
        {**LINE, "at_ms": 5, "seconds": 0.2},
        {**LINE, "vector": [0.1, 1 / 3 + 1e-12]},
        dict(reversed(LINE.items())),
    ]
    assert {canonical(line) for line in same} == {canonical(LINE)}
    assert canonical({"event": "x", "x": -0.0}) == canonical({"event": "x", "x": 0.0})


@pytest.mark.parametrize(
    "change",
    [
        {"vector": (0.1, 1 / 3 + 1e-8)},
        {"vector": (1 / 3, 0.1)},
        {"why": {**LINE["why"], "known": 4.0}},
        {"why": {**LINE["why"], "pinned": 0}},
        # Inside a line, it may be a metric of that name.
        {"why": {**LINE["why"], "seconds": 1.0}},
        {"value": math.nan},
    ],
)
def test_anything_else_moves_it(change):
    assert canonical({**LINE, **change}) != canonical(LINE)


def test_what_is_not_json_is_refused():
    with pytest.raises(TypeError):
        canonical({"event": "x", "x": object()})


def test_the_order_of_lines_and_the_search_count():
    other = {**LINE, "trial": "4-1"}

    def of(*lines):
        made = HistoryHash()
        for line, *search in lines:
            made.add(from_json(line), *search)
        return made.hexdigest()

    assert of((LINE,), (other,)) != of((other,), (LINE,))
    assert of((LINE, "a")) != of((LINE, "b"))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of two commits: one whose commands give no hashes, and this tree's."""
    tree = tmp_path / "repository"
    known = ["ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        ["git", "-C", str(compare.ROOT), *known], check=True, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if name.endswith((".py", ".lua", ".toml")) and (compare.ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(compare.ROOT / name, tree / name)
    modules = {path: path.read_text() for path in tree.rglob("*.py")}
    naming = {path: text for path, text in modules.items() if f'"{compare.HASH}"' in text}
    assert naming
    for path, text in naming.items():
        path.write_text(text.replace(f'"{compare.HASH}"', '"another"'))

    def git(*arguments):
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example")
        called = ["git", "-C", str(tree), *identity, *arguments]
        return subprocess.run(called, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "without hashes")
    git("tag", "without")
    for path, text in naming.items():
        path.write_text(text)
    git("commit", "-q", "-a", "-m", "with hashes")
    git("tag", "with")
    lab = ["lab", "--population=4", "--seeds=1", "--optimizers=romul", "--problems=cliff"]
    monkeypatch.setattr(compare, "ROOT", tree)
    monkeypatch.setattr(compare, "sets", lambda quick: {"lab-4": lab})
    return git


def answered(capsys, monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["compare", *options])
    return compare.main(), capsys.readouterr().out


def test_a_commit_is_compared_with(repository, capsys, monkeypatch):
    code, said = answered(capsys, monkeypatch, "--base=with")
    assert (code, said) == (0, "0 of 1 entries moved against with\n")
    assert len(repository("worktree", "list").splitlines()) == 1

    code, said = answered(capsys, monkeypatch, "--base=without")
    assert code == 2
    assert "not compared with without: `romul lab --json` gives no golden_sha256" in said
    code, said = answered(capsys, monkeypatch, "--base=nowhere")
    assert code == 2
    assert "nowhere" in said

    (constant,) = compare.ROOT.rglob("optimizers/romul.py")
    text = constant.read_text()
    assert "factor: float = 1.0" in text
    constant.write_text(text.replace("factor: float = 1.0", "factor: float = 0.4"))
    code, said = answered(capsys, monkeypatch, "--base=with")
    assert code == 1
    assert said.startswith("lab-4/cliff/romul/0: ")
    assert said.endswith("1 of 1 entries moved against with\n")
