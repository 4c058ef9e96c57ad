"""`romul dead`: list, retry or drop messages that could not be used."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from romul_actors.cli.options.arguments import checked
from romul_actors.cli.options.shared import AsJson, Name, SearchUrl
from romul_actors.cli.output.printing import Console, Table, echo, echo_json
from romul_actors.cli.servers.connection import connected_to
from romul_actors.dead_letters import DeadLetters, Resubmitted
from romul_actors.store import DeadLetter

Ids = Annotated[
    list[str] | None,
    typer.Argument(help="Ids, as `romul dead list` shows them.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]

dead = typer.Typer(
    help="List, retry or drop dead letters: messages that could not be read.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@dead.command("list")
@checked
def list_(
    name: Name,
    count: Annotated[
        int, typer.Option(min=1, help="Maximum number of dead letters, oldest first.")
    ] = 100,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters with their reasons."""

    async def run() -> list[DeadLetter]:
        async with connected_to(name, redis) as client:
            return await DeadLetters(client.store).letters(name, limit=count)

    found = asyncio.run(run())
    if as_json:
        rows = [
            {
                "id": letter.id,
                "queue": letter.origin,
                "reason": letter.reason,
                "bytes": letter.size,
                "body": repr(letter.body),
            }
            for letter in found
        ]
        echo_json(rows)
        return
    table = Table("id", "queue", "bytes", "reason", "begins with")
    for letter in found:
        begin = repr(letter.body[:40])
        table.add_row(letter.id, letter.origin, str(letter.size), letter.reason, begin)
    Console().print(table if found else f"{name}: no dead letters")


def _chosen(ids: Sequence[str] | None, everything: bool) -> Sequence[str]:
    """Ids of the chosen dead letters; empty for all of them."""
    if bool(ids) == everything:
        raise typer.BadParameter("give ids or --all")
    return ids or ()


@dead.command()
@checked
def retry(name: Name, ids: Ids = None, everything: All = False, redis: SearchUrl = None) -> None:
    """Put dead letters back into their queues."""

    async def run() -> Resubmitted:
        async with connected_to(name, redis, changes=True) as client:
            return await DeadLetters(client.store).resubmit(name, _chosen(ids, everything))

    done = asyncio.run(run())
    cut = f", {done.cut} too long to have been kept" if done.cut else ""
    echo(f"{name}: {done.back} put back{cut}")


@dead.command()
@checked
def drop(name: Name, ids: Ids = None, everything: All = False, redis: SearchUrl = None) -> None:
    """Remove dead letters permanently."""

    async def run() -> int:
        async with connected_to(name, redis, changes=True) as client:
            return await DeadLetters(client.store).drop(name, _chosen(ids, everything))

    echo(f"{name}: {asyncio.run(run())} dropped")
