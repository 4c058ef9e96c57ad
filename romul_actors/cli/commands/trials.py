"""`romul lineage`, `explain`, `logs`: the origin of a trial, and its output."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from romul_actors.cli.options.shared import AsJson, Name, SearchUrl
from romul_actors.cli.output.printing import Console, echo, echo_json, shortened
from romul_actors.cli.servers.connection import connected_to, snapshot_of
from romul_actors.core.history import Line
from romul_actors.observe.explain import explain as explanation_of
from romul_actors.observe.explain import in_words, record_of
from romul_actors.observe.lineage import Branch, root_of, size, way_to
from romul_actors.observe.snapshot import Snapshot, snapshot
from romul_actors.observe.stored_history import read_descent
from romul_actors.observe.trial_records import trials
from romul_actors.store import Output

MOST_BRANCHES = 200
"""A tree with more branches is not shown in full."""
MOST_COPIES = 5
"""Copies that are shown for each branch of such a tree."""
INDENT = 4
"""Indentation of each level of a tree, in characters."""
LABEL = 40
"""Least width for the label of the deepest branch, in characters."""
HERE = "  <- here"

TrialId = Annotated[str, typer.Argument(help="Id of the trial: SLOT-STEP, such as 3-12.")]


def lineage(
    name: Name,
    slot: Annotated[int, typer.Argument(min=0, help="Number of the slot.")],
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the tree of copies that a slot belongs to.

    If the tree has more than 200 branches or is wider than the terminal, the command shows only the
    slot's line of descent, with the longest-lived copies of each branch.
    """
    seen = snapshot_of(name, redis)
    root, own = root_of(trials(seen.history), slot)
    if as_json:
        echo_json(asdict(root))
        return
    console, metric = Console(), seen.experiment.metric
    n, depth = size(root)
    if n <= MOST_BRANCHES and INDENT * depth + LABEL <= console.width:
        console.print(_tree(root, own, metric))
        return
    for part in _line(way_to(root, own), metric):
        console.print(part)
    console.print(f"{n} branches in total: see `romul lineage {name} {slot} --json`")


def _label(branch: Branch, metric: str, note: str = "") -> Text:
    """A branch in one line, however narrow the terminal is."""
    value = "" if branch.value is None else f", {shortened(metric)} {branch.value:.5g}"
    text = f"slot {branch.slot}: steps {branch.first} to {branch.last}{value}{note}"
    return Text(text, no_wrap=True, overflow="ellipsis")


def _tree(root: Branch, own: Branch, metric: str) -> Tree:
    def label(branch: Branch) -> Text:
        return _label(branch, metric, HERE if branch is own else "")

    tree = Tree(label(root))
    stack = [(tree, root)]
    while stack:
        place, branch = stack.pop()
        stack += [(place.add(label(child)), child) for child in branch.children]
    return tree


def _line(way: Sequence[Branch], metric: str) -> Iterator[Tree]:
    """A line of descent, oldest first: each branch with its longest-lived copies."""
    for branch, after in zip_longest(way, way[1:]):
        note = HERE if after is None else f", copied after step {after.first - 1}"
        tree = Tree(_label(branch, metric, note))
        others = [child for child in branch.children if child is not after]
        longest = sorted(others, key=lambda child: child.first - child.last)[:MOST_COPIES]
        for child in sorted(longest, key=lambda child: (child.first, child.slot)):
            tree.add(_label(child, metric))
        if more := len(others) - len(longest):
            tree.add(f"and {more} more")
        yield tree


def explain(
    name: Name,
    trial: TrialId,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a trial was decided as it was: what was copied, mutated and drawn."""

    async def run() -> tuple[Snapshot, list[Line]]:
        async with connected_to(name, redis) as client:
            seen = await snapshot(client.store, name)
            # What changed is told by comparison with the parent.
            return seen, await read_descent(client.store, name, trial, generations=1)

    seen, lines = asyncio.run(run())
    explained = explanation_of(seen.experiment, lines, trial)
    echo_json(explained.as_json()) if as_json else echo("\n".join(in_words(explained)))


def logs(
    name: Name,
    trial: TrialId,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the end of what the task printed in each attempt of a trial.

    The output of an experiment's latest 2,000 attempts is kept.
    """

    async def run() -> list[Output]:
        async with connected_to(name, redis) as client:
            await client.status(name)
            outputs = await client.store.outputs(name, trial)
            if not outputs:
                lines = await read_descent(client.store, name, trial, generations=0)
                record_of(trials(lines), trial)
            return outputs

    found = asyncio.run(run())
    if as_json:
        echo_json([asdict(output) for output in found])
        return
    for output in found:
        echo(f"--- attempt {output.attempt} on {output.worker}")
        # A progress bar begins its line again and again: here each state has a line.
        text = output.text.replace("\r\n", "\n").replace("\r", "\n")
        echo(text, nl=not text.endswith("\n"))
    if not found:
        echo(f"{name}: trial {trial} printed nothing, or its output is no longer kept", err=True)
