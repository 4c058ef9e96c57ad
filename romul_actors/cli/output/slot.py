"""One slot in detail, as labelled rows: `romul show NAME SLOT`."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from romul_actors.cli.output.printing import Table, labelled
from romul_actors.cli.output.rows import figure
from romul_actors.observe.explain import (
    attempt_in_words,
    change_in_words,
    explain,
    reasons_in_words,
)
from romul_actors.observe.lineage import lineage
from romul_actors.observe.snapshot import SlotSnapshot, Snapshot, age
from romul_actors.observe.trial_records import TrialRecord, trials

MOST_STRETCHES = 8
"""Maximum number of stretches of a line of descent to show: the latest ones."""


def slot_in_full(seen: Snapshot, index: int, fields: Mapping[str, Any]) -> Table:
    """A slot's trial, result, worker, ancestors and hyperparameters, and the reasons for them.

    Args:
        seen: the experiment, with the lines of history about the trial and its ancestors.
        index: the slot.
        fields: the slot's fields, as `romul_actors.cli.output.rows.readable` returns them.
    """
    return labelled(_rows(seen, seen.slots[index], trials(seen.history), fields))


def _rows(
    seen: Snapshot, slot: SlotSnapshot, found: Mapping[str, TrialRecord], fields: Mapping[str, Any]
) -> list[tuple[str, Sequence[str]]]:
    experiment, metric = seen.experiment, seen.experiment.metric
    latest = fields["latest"] or {}
    rows: list[tuple[str, Sequence[str]]] = [
        ("status", [_status(seen, slot)]),
        ("trial", [f"{slot.trial}: step {slot.step} of 0 to {experiment.steps - 1}"]),
        ("worker", _workers(seen, slot)),
    ]
    if latest:
        value = latest.get(metric)
        text = "failed" if value is None else f"{value:.6g}"
        rows.append((metric, [f"{text} (trial {slot.index}-{latest['step']})"]))
    if fields["failures"] or fields["losses"]:
        lost = f"{fields['failures']} failed, {fields['losses']} lost with their workers"
        rows.append(("attempts", [lost]))
    if slot.parent is not None:
        rows.append(("parent", [f"{slot.parent}, checkpoint {slot.checkpoint}"]))
    if fields["partial"]:
        rows.append(("continues", [f"at {fields['position']:g}, checkpoint {fields['partial']}"]))
    rows.append(("ancestors", [_stretches(lineage(found, slot.parent))]))
    if slot.trial not in found:
        # The trial's lines are no longer in the history.
        values = slot.hyperparameters.items()
        return [*rows, ("hyperparameters", [f"{name} = {figure(value)}" for name, value in values])]
    why = explain(experiment, seen.history, slot.trial)
    changes = [change_in_words(name, change) for name, change in why.changes.items()]
    rows += [("hyperparameters", changes), ("why", reasons_in_words(why.record))]
    return [*rows, ("reports", [attempt_in_words(line) for line in why.attempts])]


def _status(seen: Snapshot, slot: SlotSnapshot) -> str:
    status, since = seen.in_hand.get(slot.trial), age(slot.since_s)
    text = f"{slot.status} for {since}" if status is None else f"{status}, queued {since} ago"
    text += f", tier {slot.tier!r}"
    return text + (", pinned by an operator" if slot.pinned else "")


def _workers(seen: Snapshot, slot: SlotSnapshot) -> list[str]:
    """Workers that hold the slot's trial; empty if it is not queued."""
    holders = [w for w in seen.workers if slot.trial in (w.trial, *w.storing.split())]
    if slot.status != "queued":
        return []
    if not holders:
        return ["none: the trial waits for a worker"]
    return [
        f"{w.name}, {seen.state_of(w)}"
        + ("" if w.at is None else f" at {w.at:g}")
        + ("" if w.age_s is None else f", last heartbeat {age(w.age_s)} ago")
        for w in holders
    ]


def _stretches(line: Sequence[str]) -> str:
    """A line of descent, oldest first, with consecutive trials of one slot joined."""
    if not line:
        return "none"
    stretches = [list(trials) for _, trials in groupby(line, lambda t: t.partition("-")[0])]
    shown = [s[0] if len(s) == 1 else f"{s[0]} to {s[-1]}" for s in stretches]
    left_out = len(shown) - MOST_STRETCHES
    return ", ".join((["..."] if left_out > 0 else []) + shown[-MOST_STRETCHES:])
