"""Lines of descent: which trial continued from which, within a slot and across slots.

A slot continues from its own last checkpoint or from a copy of another slot's. Together, the trials
of all slots are a forest, whose roots trained from scratch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from romul_actors.errors import UnknownTrialError
from romul_actors.observe.trial_records import TrialRecord


def lineage(found: Mapping[str, TrialRecord], trial: str | None) -> list[str]:
    """Ids of a trial's ancestors and its own, oldest first, across copies between slots."""
    line: list[str] = []
    while trial is not None and trial in found:
        line.append(trial)
        trial = found[trial].parent
    return line[::-1]


@dataclass(slots=True)
class Branch:
    """Consecutive trials of one slot, with the branches that were copied from them.

    Attributes:
        slot: the slot.
        first, last: steps of its first and last trial.
        value: metric of the latest trial that has a result; None if none has.
        children: branches that began with a copy from this one, in the order they began.
    """

    slot: int
    first: int
    last: int
    value: float | None = None
    children: list["Branch"] = field(default_factory=list)


def branches(found: Mapping[str, TrialRecord]) -> tuple[list[Branch], dict[str, Branch]]:
    """The whole population as trees of copies.

    Args:
        found: all trials, in the order in which they were decided.

    Returns:
        The roots, which began from scratch, and the branch of every trial by its id.
    """
    of: dict[str, Branch] = {}
    roots: list[Branch] = []
    for trial, record in found.items():
        branch = of.get(record.parent or "")
        if branch is not None and (branch.slot, branch.last) == (record.slot, record.step - 1):
            branch.last = record.step
        else:
            siblings = roots if branch is None else branch.children
            branch = Branch(record.slot, record.step, record.step)
            siblings.append(branch)
        of[trial] = branch
        if record.value is not None:
            branch.value = record.value
    return roots, of


def root_of(found: Mapping[str, TrialRecord], slot: int) -> tuple[Branch, Branch]:
    """The tree that holds a slot's latest trial, and the slot's own branch in it.

    Raises:
        UnknownTrialError: the slot has no trial.
    """
    roots, of = branches(found)
    own = [of[trial] for trial, record in found.items() if record.slot == slot]
    if not own:
        raise UnknownTrialError(f"history holds no trial of slot {slot}")
    return next(root for root in roots if way_to(root, own[-1])), own[-1]


def size(root: Branch) -> tuple[int, int]:
    """The number of branches of a tree, and its depth."""
    n, deepest, stack = 0, 0, [(root, 1)]
    while stack:
        branch, depth = stack.pop()
        n, deepest = n + 1, max(deepest, depth)
        stack += [(child, depth + 1) for child in branch.children]
    return n, deepest


def way_to(root: Branch, wanted: Branch) -> list[Branch]:
    """The branches from a tree's root to `wanted`, both included; empty if it is not there."""
    stack = [[root]]
    while stack:
        way = stack.pop()
        if way[-1] is wanted:
            return way
        stack += [[*way, child] for child in way[-1].children]
    return []
