"""`romul collect`: remove checkpoints that are no longer needed."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.options.shared import Name, SearchUrl
from romul_actors.cli.output.printing import echo
from romul_actors.cli.servers.connection import connected_to
from romul_actors.errors import StoreError
from romul_actors.observe.stored_population import needed_checkpoints
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.checkpoints.storage import Checkpoints


def collect(
    name: Name,
    older: Annotated[
        float, typer.Option(min=0, help="Seconds for which a checkpoint must have been unchanged.")
    ] = 3600.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    redis: SearchUrl = None,
) -> None:
    """Remove checkpoints that are no longer needed, such as those that dead workers left behind.

    Workers remove checkpoints that become garbage. This command finds those that workers missed,
    because no list names them.
    """

    async def run(scratch: Path) -> tuple[list[str], Checkpoints]:
        async with connected_to(name, redis) as client:
            experiment = await client.spec(name)
            if experiment.checkpoints is None:
                raise StoreError(f"{name}: it declares no place for checkpoints")
            place = Checkpoints(experiment.checkpoints, scratch)
            # The folder first: what is published meanwhile is not in the list.
            there = place.names(older)
            kept = await needed_checkpoints(client.store, name)
            return [checkpoint for checkpoint in there if checkpoint not in kept], place

    with scratch_folder() as scratch:
        found, place = asyncio.run(run(scratch))
        for checkpoint in found:
            echo(checkpoint)
            if not dry_run:
                place.delete(checkpoint)
        pieces = 0 if dry_run else place.tidy(older)
    echo(
        f"{name}: {len(found)} checkpoints{' would be removed' if dry_run else ' removed'}, "
        f"{pieces} unfinished ones"
    )
