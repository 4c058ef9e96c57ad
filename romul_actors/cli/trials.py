"""`romul lineage`, `explain`, `logs`: where a trial comes from, and what it printed."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.tree import Tree

from romul_actors.cli.connection import connected_to, snapshot_of
from romul_actors.cli.options import AsJson, Name, SearchUrl
from romul_actors.cli.printing import Console, echo, echo_json
from romul_actors.observe.explain import explain as explanation_of
from romul_actors.observe.explain import in_words, record_of
from romul_actors.observe.lineage import Branch, root_of
from romul_actors.observe.snapshot import read_history
from romul_actors.observe.trial_records import trials
from romul_actors.store import Output

TrialId = Annotated[str, typer.Argument(help="A trial: SLOT-STEP, as 3-12.")]


def lineage(
    name: Name,
    slot: Annotated[int, typer.Argument(min=0, help="A slot.")],
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the tree of copies that a slot belongs to."""
    seen = snapshot_of(name, redis)
    root, own = root_of(trials(seen.history), slot)
    if as_json:
        echo_json(asdict(root))
        return
    Console().print(_tree(root, own, seen.experiment.metric))


def _tree(root: Branch, own: Branch, metric: str) -> Tree:
    def label(branch: Branch) -> str:
        value = "" if branch.value is None else f", {metric} {branch.value:.5g}"
        text = f"slot {branch.slot}: steps {branch.first} to {branch.last}{value}"
        return text + ("  <- here" if branch is own else "")

    tree = Tree(label(root))
    stack = [(tree, root)]
    while stack:
        place, branch = stack.pop()
        stack += [(place.add(label(child)), child) for child in branch.children]
    return tree


def explain(
    name: Name,
    trial: TrialId,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say why a trial was decided as it was: what was copied, mutated, drawn, and from where."""
    seen = snapshot_of(name, redis)
    explained = explanation_of(seen.experiment, seen.history, trial)
    echo_json(explained.as_json()) if as_json else echo("\n".join(in_words(explained)))


def logs(
    name: Name,
    trial: TrialId,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what the task printed during a trial's attempts: the end of it, of the latest 2,000."""

    async def run() -> list[Output]:
        async with connected_to(name, redis) as client:
            await client.status(name)
            outputs = await client.store.outputs(name, trial)
            if not outputs:
                record_of(trials(await read_history(client.store, name)), trial)
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
        echo(f"{name}: trial {trial} printed nothing, or that is no longer kept", err=True)
