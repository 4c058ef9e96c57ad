"""`romul serve`: the embedded server of a local run that has ended."""

import asyncio
from typing import Annotated

import typer

from romul_actors.cli.output.printing import echo
from romul_actors.cli.processes.services import stopping
from romul_actors.cli.servers.connection import named_run
from romul_actors.local.redis_server import embedded_server


def serve(
    name: Annotated[str, typer.Argument(help="The local run: its name or its folder.")],
) -> None:
    """Start the embedded server of a local run that has ended, to inspect the run."""
    folder = named_run(name)

    async def run() -> None:
        async with stopping() as stop, embedded_server(folder) as url:
            echo(f"{url}\n(try `romul status --redis {folder}`; Ctrl-C stops the server)")
            await stop.wait()

    asyncio.run(run())
