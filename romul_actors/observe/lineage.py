"""Lines of descent: which trial continued from which, within a slot and across slots.

A slot continues from its own last checkpoint or from a copy of another slot's; all slots together
are a forest, whose roots trained from scratch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from romul_actors.errors import UnknownTrialError
from romul_actors.observe.trial_records import TrialRecord


def lineage(found: Mapping[str, TrialRecord], trial: str | None) -> list[str]:
    """Ids of a trial's ancestors and its own, oldest first; across slots, where one copied."""
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
        value: metric of the latest trial that has a result; None: none has.
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
    return next(root for root in roots if _holds(root, own[-1])), own[-1]


def _holds(branch: Branch, wanted: Branch) -> bool:
    stack = [branch]
    while stack:
        here = stack.pop()
        if here is wanted:
            return True
        stack += here.children
    return False
