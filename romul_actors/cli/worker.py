"""`romul worker`: a worker.

This module imports little: the child process is to start before all that a worker needs is imported
(`worker_process.py`).
"""

from pathlib import Path
from typing import Annotated

import typer

from romul_actors import waiting
from romul_actors.cli.options import (
    DEFAULT_URL,
    Keepalive,
    LogLevel,
    MetricsHost,
    MetricsPort,
    MqttCa,
    MqttUrl,
    RedisUrl,
    TaskPath,
    start_log,
)
from romul_actors.mqtt.broker import KEEPALIVE_S
from romul_workers.child_process import ChildProcess
from romul_workers.defaults import GARBAGE_MS, SHIPPED_TASKS
from romul_workers.scratch import scratch_folder


def worker(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    keepalive: Keepalive = KEEPALIVE_S,
    experiment: Annotated[
        list[str] | None,
        typer.Option(help="Serve experiments whose name fits this pattern only (repeatable)."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ROMUL_ALLOW",
            help="Task modules that may be imported, besides the shipped ones "
            "(repeatable; * fits all names). The only one is imported at once.",
        ),
    ] = None,
    path: TaskPath = None,
    device: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_DEVICE", help="cpu, cuda, cuda:1 ...; else the experiment's own."
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_GRACE_S", min=0, help="Seconds a trial may go on after SIGTERM or Ctrl-C."
        ),
    ] = 10.0,
    notice: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ROMUL_NOTICE",
            help="Source of notices that the machine ends: aws, gcp, azure, a URL that answers "
            "200, or a file that appears (repeatable).",
        ),
    ] = None,
    notice_s: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_NOTICE_S",
            min=0,
            help="Seconds between SIGUSR1, or a notice that does not say, and the end.",
        ),
    ] = 60.0,
    quota_gb: Annotated[
        float | None,
        typer.Option(
            envvar="ROMUL_QUOTA_GB",
            min=0,
            help="Most that an experiment's checkpoints may take, in 10^9 bytes.",
        ),
    ] = None,
    garbage_s: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_GARBAGE_S", min=0, help="Seconds to keep checkpoints that no trial needs."
        ),
    ] = GARBAGE_MS / 1000,
    affinity_s: Annotated[
        float | None,
        typer.Option(
            envvar="ROMUL_AFFINITY_S",
            min=0,
            max=60,
            help="Longest time that a trial waits for the worker that holds its parent in memory; "
            "0: never; if left out, as long as a restore from files takes here, 1 s at most.",
        ),
    ] = None,
    overlap: Annotated[
        bool | None,
        typer.Option(
            "--overlap/--no-overlap",
            envvar="ROMUL_OVERLAP",
            help="Whether a checkpoint is stored while the next trial trains, as a second lease; "
            "if left out, once three in a row took 0.2 s or more to store.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(envvar="ROMUL_WORKER_NAME", help="Unique name; made up if left out."),
    ] = None,
    task_log: Annotated[
        Path | None, typer.Option(help="File for what tasks print; else a temporary one.")
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
) -> None:
    """Run a worker: it trains whatever trials there are, until it is stopped.

    A server that does not answer yet is waited for, 15 minutes at most.

    On SIGTERM or Ctrl-C the worker takes no more trials. The trial in training has --grace seconds
    to end or to save itself, and then goes back to the queue; a checkpoint that is being stored has
    as long. A second signal ends the worker at once. SIGUSR1 says that the machine ends in
    --notice-s seconds: the worker takes only trials that it expects to finish by then, and keeps
    the last three seconds for reports. A notice that is too short for --grace shortens that.
    """
    start_log(log_level)
    allowed = allow or []
    only = allowed if len(allowed) == 1 and not set(allowed[0]) & set("*?[") else []

    async def run(scratch: Path) -> None:
        log = task_log or scratch / "task.log"
        # The child imports the one task there is, while this process imports what it needs itself.
        child = await ChildProcess.start(path or [], log, only) if only else None
        try:
            from romul_actors.cli import worker_process  # noqa: PLC0415

            settings = worker_process.WorkerSettings(
                name=name or worker_process.unique_name("worker"),
                experiments=experiment or ["*"],
                allow=[SHIPPED_TASKS, *allowed],
                grace_s=grace,
                max_trials=max_trials,
                garbage_ms=int(1000 * garbage_s),
                affinity_s=affinity_s,
                overlap=overlap,
            )
            quota = None if quota_gb is None else int(1e9 * quota_gb)
            trainer = worker_process.ChildTrainer(scratch, path or [], log, device, quota, child)
            at = worker_process.broker_at(mqtt, mqtt_ca, keepalive)
            sources = [worker_process.source(text, notice_s) for text in notice or []]
            metrics = None if metrics_port is None else (metrics_host, metrics_port)
            await worker_process.work(redis, trainer, settings, at, sources, notice_s, metrics)
        finally:
            if child is not None:
                await child.end()

    with scratch_folder() as scratch:
        waiting.run(run(scratch))
