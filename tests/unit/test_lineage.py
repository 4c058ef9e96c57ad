"""Lines of descent, and the trees that they form."""

import json
from dataclasses import asdict
from itertools import pairwise

import pytest

from romul_actors.cli.commands import trials as command
from romul_actors.errors import UnknownTrialError
from romul_actors.observe.lineage import Branch, branches, lineage, root_of, size, way_to
from romul_actors.observe.trial_records import trials


def test_the_tree_of_descent_holds_every_trial_once(searched):
    found = trials(searched.history)
    roots, of = branches(found)
    assert of.keys() == found.keys()
    steps, stack = 0, list(roots)
    while stack:
        branch = stack.pop()
        steps += branch.last - branch.first + 1
        for child in branch.children:
            assert branch.first < child.first
        stack += branch.children
    assert steps == len(found)
    for slot in range(8):
        root, own = root_of(found, slot)
        assert own.slot == slot
        assert root.first == 0
        way = way_to(root, own)
        assert (way[0], way[-1]) == (root, own)
        assert all(after in before.children for before, after in pairwise(way))
        assert len(way) <= size(root)[1]
        json.dumps(asdict(root))
    assert sum(size(root)[0] for root in roots) == len({id(branch) for branch in of.values()})
    assert way_to(roots[0], Branch(0, 0, 0)) == []
    with pytest.raises(UnknownTrialError, match="slot 99"):
        root_of(found, 99)


def test_a_line_of_descent_leads_back_to_a_trial_from_scratch(searched):
    found = trials(searched.history)
    line = lineage(found, searched.best["trial"])
    assert line[-1] == searched.best["trial"]
    assert found[line[0]].parent is None
    for parent, child in pairwise(line):
        assert found[child].parent == parent
    assert lineage(found, None) == lineage(found, "9-99") == []


@pytest.mark.parametrize("width", [200, 60])
def test_a_tree_is_shown_whole_where_it_has_room_and_else_the_line_of_descent(
    searched, monkeypatch, capsys, width
):
    monkeypatch.setattr(command, "snapshot_of", lambda *_: searched)
    monkeypatch.setenv("COLUMNS", str(width))
    slot = int(searched.best["trial"].partition("-")[0])
    root, own = root_of(trials(searched.history), slot)
    n, depth = size(root)
    assert n > 10
    assert 60 < 4 * depth + 40 < 200
    command.lineage("e", slot)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum("<- here" in line for line in lines) == 1
    if width == 200:
        assert len(lines) == n
        return
    # Every branch has one line, and none is deeper than the next one.
    stems = [line for line in lines[:-1] if line.startswith("slot ")]
    way = way_to(root, own)
    assert len(stems) == len(way)
    for stem, branch, after in zip(stems, way, [*way[1:], None], strict=True):
        copied = "  <- here" if after is None else f", copied after step {after.first - 1}"
        assert f"slot {branch.slot}: steps {branch.first} to {branch.last}, loss" in stem
        assert stem.endswith((copied, "…"))
    assert all(line.startswith(("slot ", "├── ", "└── ")) for line in lines[:-1])
    assert lines[-1].startswith(f"{n} branches in total")
