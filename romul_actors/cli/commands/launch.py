"""`romul launch`: workers on this machine, on hosts by ssh, in Slurm or on a Ray cluster."""

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors import plugins, secret_file
from romul_actors.cli.options.shared import (
    DEFAULT_URL,
    LogLevel,
    MqttCa,
    MqttUrl,
    RedisUrl,
    start_log,
)
from romul_actors.cli.output.printing import echo
from romul_actors.cli.processes.services import stopping
from romul_actors.cli.servers.connection import connected
from romul_actors.launch import Fleet, local_workers, slurm
from romul_actors.launch.ray import RayWorkers
from romul_actors.launch.ssh import Hosts
from romul_actors.local.address import resolve
from romul_actors.local.processes import Crew, running
from romul_actors.secret_file import with_password, with_passwords
from romul_actors.waiting import pause

LOOK_S = 1.0
LAUNCHER = "async def launch(fleet, stop)"
"""What an installed package adds to the launchers."""

Launcher = Callable[[Fleet, asyncio.Event], Coroutine[Any, Any, None]]
"""Starts a fleet, and keeps it running until the event is set."""


class Engine(StrEnum):
    """Where workers run."""

    LOCAL = "local"
    SSH = "ssh"
    SLURM = "slurm"
    RAY = "ray"


def launch(
    context: typer.Context,
    on: Annotated[
        str,
        typer.Option(
            metavar="[local|ssh|slurm|ray]",
            help="Where workers run: local (this machine), ssh, slurm, ray, or a launcher that an "
            "installed package adds.",
        ),
    ],
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 1,
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs per worker (Slurm, Ray).")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per worker.")] = 0,
    grace: Annotated[
        float,
        typer.Option(envvar="ROMUL_GRACE_S", min=0, help="Seconds that a worker may take to end."),
    ] = 10.0,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="ssh: HOST, USER@HOST or an alias (repeatable). Workers are spread evenly."
        ),
    ] = None,
    ssh_option: Annotated[
        list[str] | None, typer.Option(help="ssh: option for ssh (repeatable).")
    ] = None,
    program: Annotated[
        str, typer.Option(help="ssh, Slurm: the `romul` command there, if it is not on the PATH.")
    ] = "romul",
    time: Annotated[
        str | None, typer.Option(help="Slurm: time limit of a job, such as 4:00:00.")
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            help="Slurm: option for sbatch, such as --sbatch=--partition=spot (repeatable)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Slurm: print the script without submitting it.")
    ] = False,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS", help="Ray: the cluster: auto, HOST:PORT or ray://HOST:PORT."
        ),
    ] = "auto",
    logs: Annotated[
        Path, typer.Option(file_okay=False, help="local: folder for the workers' logs.")
    ] = Path("romul-logs"),
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Options for `romul worker`, after --."),
    ] = None,
    log_level: LogLevel = "info",
) -> None:
    """Start workers and keep them running until Ctrl-C, or submit them to Slurm.

    romul launch --on ray --workers 8 --gpus 1 -- --allow mytasks --path /shared/tasks

    Workers that end are started again. Passwords are passed only in the environment.
    """
    start_log(log_level)
    _check_options(context, options or [])
    start = None if on in tuple(Engine) else _installed(on)
    if dry_run and on != Engine.SLURM:
        raise typer.BadParameter("--dry-run works only with --on slurm")
    environment = _servers(on, resolve(redis), mqtt, mqtt_ca)
    environment["ROMUL_GRACE_S"] = f"{grace:g}"
    fleet = Fleet(
        workers=workers,
        arguments=options or [],
        environment=environment,
        cpus=cpus,
        gpus=gpus,
        grace_s=grace,
    )
    if start is not None:
        _until_stopped(lambda stop: start(fleet, stop))
        return
    match on:
        case Engine.LOCAL:
            asyncio.run(_check_server(redis))
            _until_stopped(lambda stop: _local(fleet, logs, stop))
        case Engine.SSH:
            hosts = Hosts(fleet, host or [], ssh_option or [], program)
            _until_stopped(hosts.run)
        case Engine.RAY:
            _until_stopped(RayWorkers(fleet, address).run)
        case Engine.SLURM:
            text = slurm.script(fleet, time=time, options=sbatch or [], program=program)
            if dry_run:
                echo(text, nl=False)
                return
            number = slurm.submit(text, fleet)
            echo(f"job {number}: {workers} workers (`scancel {number}` ends them)")


def _check_options(context: typer.Context, options: Sequence[str]) -> None:
    """Refuse a wrong option here: workers would begin and end with it again and again.

    Values are not looked at: a path, for instance, need not exist on this machine.
    """
    root: Any = context.find_root()
    worker = root.command.get_command(root, "worker").load()
    parser = worker.make_parser(worker.context_class(worker, info_name="worker", parent=root))
    _, rest, _ = parser.parse_args([*options])
    if rest:
        raise typer.BadParameter(f"a worker takes options only, not {rest[0]!r}")


def _servers(on: str, redis: str, mqtt: str | None, mqtt_ca: Path | None) -> dict[str, str]:
    """Environment variables that give workers the server, the broker and trusted certificates.

    A password file exists only on this machine, so workers elsewhere get the password itself.
    """
    if on != Engine.LOCAL:
        redis = with_passwords(redis)
        mqtt = mqtt and with_password(mqtt, secret_file.MQTT)
    given = {"ROMUL_REDIS_URL": redis, "ROMUL_MQTT_URL": mqtt, "ROMUL_MQTT_CA": mqtt_ca}
    given["SSL_CERT_FILE"] = os.environ.get("SSL_CERT_FILE")
    return {name: str(value) for name, value in given.items() if value is not None}


def _installed(name: str) -> Launcher:
    """A launcher that an installed package adds.

    Raises:
        typer.BadParameter: none does.
        PluginError: it cannot be loaded, or is no launcher.
    """
    found: Launcher | None = plugins.find("launchers", name)
    if found is None:
        there = ", ".join(f"{known!s}" for known in [*Engine, *plugins.names("launchers")])
        raise typer.BadParameter(f"{name!r} is not one of {there}", param_hint="--on")
    either = (found, type(found).__call__) if callable(found) else ()
    if not any(map(inspect.iscoroutinefunction, either)):
        raise plugins.unusable("launchers", name, f"is not {LAUNCHER}")
    try:
        inspect.signature(found).bind("fleet", "stop")
    except TypeError as error:
        raise plugins.unusable("launchers", name, f"is not {LAUNCHER}: {error}") from None
    return found


def _until_stopped(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        async with stopping() as stop:
            await run(stop)

    asyncio.run(all_of_it())


async def _check_server(url: str) -> None:
    """Make sure that workers of this machine can begin; elsewhere the server may look different.

    Raises:
        StoreError: the server cannot be used.
    """
    async with connected(url):
        pass


async def _local(fleet: Fleet, logs: Path, stop: asyncio.Event) -> None:
    members = local_workers.members(fleet, logs)
    crew = Crew(members, logs, fleet.grace_s + 20, all_needed=False)
    async with running(crew):
        echo(f"{fleet.workers} workers; logs in {logs}", err=True)
        while not stop.is_set():
            await crew.start()
            await pause(LOOK_S, stop)
