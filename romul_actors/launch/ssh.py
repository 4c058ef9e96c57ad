"""Workers on hosts by ssh: started, restarted if they end, and ended with this command.

The connection's standard input carries the environment, so that no password appears in a list of
processes, here or there. Afterwards it is the worker's lifeline: when it closes, the worker gets
SIGTERM.
"""

import asyncio
import contextlib
import logging
import shlex
import shutil
from collections.abc import Sequence

from romul_actors.launch import Fleet, FleetError, LaunchError
from romul_actors.local.processes import RETRY_S
from romul_actors.waiting import longer, pause

log = logging.getLogger("romul.launch")

CONNECT_S = 15
ALIVE_S = 15
"""How often ssh probes a silent host, which is lost after three probes without an answer."""

_REMOTE = """\
while IFS= read -r line && [ "$line" != . ]; do eval "export $line"; done
exec 3<&0
{command} </dev/null 2>&1 &
worker=$!
{{ cat <&3; kill -TERM "$worker"; }} >/dev/null 2>&1 &
lifeline=$!
wait "$worker"
status=$?
kill "$lifeline"
exit "$status"
"""


def remote_script(fleet: Fleet, number: int, program: str = "romul") -> str:
    """The shell script of worker `number` (from 0) on its host."""
    command = shlex.join([*shlex.split(program), "worker", *fleet.arguments])
    if fleet.gpus:
        ours = ",".join(map(str, fleet.gpus_of(number)))
        command = f"CUDA_VISIBLE_DEVICES={ours} {command}"
    return _REMOTE.format(command=command)


def settings(fleet: Fleet) -> bytes:
    """The environment in the form that the script reads; a line with a dot ends it.

    Raises:
        FleetError: a value has several lines.
    """
    for name, value in fleet.environment.items():
        if "\n" in value:
            raise FleetError(f"{name} has several lines")
    lines = [f"{name}={shlex.quote(value)}" for name, value in fleet.environment.items()]
    return "\n".join([*lines, ".", ""]).encode()


class Hosts:
    """Workers on several hosts, spread evenly.

    Args:
        fleet: the workers.
        hosts: HOST, USER@HOST, or an alias in the configuration of ssh.
        options: additional options for ssh, such as -p 2222.
        program: the command on the hosts.

    Raises:
        FleetError: there is no host, a host looks like an option, or a variable has several lines.
        LaunchError: ssh is not installed.
    """

    def __init__(
        self,
        fleet: Fleet,
        hosts: Sequence[str],
        options: Sequence[str] = (),
        program: str = "romul",
    ) -> None:
        if not hosts:
            raise FleetError("there is no host to start workers on: give --host HOST once for each")
        if wrong := next((host for host in hosts if not host or host.startswith("-")), None):
            raise FleetError(f"{wrong!r} is not a host: give HOST, USER@HOST or an ssh alias")
        if shutil.which("ssh") is None:
            raise LaunchError("no ssh on the PATH: install an OpenSSH client")
        self._fleet = fleet
        self._given = settings(fleet)
        self._hosts = hosts
        self._options = options
        self._program = program

    def _ssh(self, host: str, number: int) -> list[str]:
        # Never prompt for a password, and never hang.
        ours = ["BatchMode=yes", f"ConnectTimeout={CONNECT_S}"]
        ours += [f"ServerAliveInterval={ALIVE_S}", "ServerAliveCountMax=3"]
        script = remote_script(self._fleet, number, self._program)
        options = [*(f"-o{option}" for option in ours), *self._options]
        return ["ssh", *options, "--", host, f"/bin/sh -c {shlex.quote(script)}"]

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the workers running until `stop` is set, then end them in order."""
        n = len(self._hosts)
        places = [(self._hosts[i % n], i // n) for i in range(self._fleet.workers)]
        async with asyncio.TaskGroup() as group:
            for host, number in places:
                group.create_task(self._keep(host, number, stop))

    async def _keep(self, host: str, number: int, stop: asyncio.Event) -> None:
        pause_s = 0.0
        while not stop.is_set():
            began = asyncio.get_running_loop().time()
            try:
                how = str(await self._once(host, number, stop))
            except OSError as error:
                # For example, too many open files: the other workers continue.
                how = str(error)
            if stop.is_set():
                return
            lived_s = asyncio.get_running_loop().time() - began
            pause_s = longer(0.0 if lived_s > RETRY_S[1] else pause_s, RETRY_S)
            log.warning("%s: worker %d ended (%s); restart in %g s", host, number, how, pause_s)
            await pause(pause_s, stop)

    async def _once(self, host: str, number: int, stop: asyncio.Event) -> int:
        """Run a worker once; return its exit code, or 255 if ssh itself failed."""
        process = await asyncio.create_subprocess_exec(
            *self._ssh(host, number),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C must reach only this command, which ends the workers in order.
            start_new_session=True,
        )
        listening = asyncio.create_task(_log_output(process, f"{host}/{number}"))
        stopped = asyncio.create_task(stop.wait())
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await _write(process, self._given)
            await asyncio.wait({listening, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._fleet.grace_s + CONNECT_S):
                    return await process.wait()
        finally:
            stopped.cancel()
            listening.cancel()
            if process.returncode is None:
                process.kill()
        return await process.wait()


async def _write(process: asyncio.subprocess.Process, text: bytes) -> None:
    if process.stdin is not None:
        process.stdin.write(text)
        await process.stdin.drain()


async def _log_output(process: asyncio.subprocess.Process, name: str) -> None:
    """Log what the worker prints."""
    while process.stdout is not None and (line := await _read_line(process.stdout)):
        log.info("%s: %s", name, line.decode(errors="replace").rstrip("\r\n"))


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or part of a long one such as a progress bar; b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)
