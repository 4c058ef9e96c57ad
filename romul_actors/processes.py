"""`romul` commands as processes of this machine, for whoever looks after several of them."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from romul_actors.server import die_with_parent


async def spawn(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start `romul ARGUMENTS`, with all it says appended to `log`; it ends with this process."""
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "romul_actors.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            # Ctrl-C reaches the parent only, which ends the others in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
