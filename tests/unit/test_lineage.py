"""Lines of descent, and the trees that they form."""

import json
from dataclasses import asdict
from itertools import pairwise

import pytest

from romul_actors.errors import UnknownTrialError
from romul_actors.observe.lineage import branches, lineage, root_of
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
        json.dumps(asdict(root))
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
