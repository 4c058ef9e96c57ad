"""`romul worker`: a worker.

This module imports little, so that the child process starts before the worker's own imports
(`processes/worker.py`).
"""

from pathlib import Path
from typing import Annotated

import typer

from romul_actors import waiting
from romul_actors.cli.options.shared import (
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
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.child.process import ChildProcess
from romul_workers.defaults import GARBAGE_MS, SHIPPED_TASKS


def worker(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    keepalive: Keepalive = KEEPALIVE_S,
    experiment: Annotated[
        list[str] | None,
        typer.Option(help="Serve only experiments whose names match this pattern (repeatable)."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ROMUL_ALLOW",
            help="Task module that may be imported, besides those that come with ROMUL "
            "(repeatable; * matches any name). A single module is imported at the start.",
        ),
    ] = None,
    path: TaskPath = None,
    device: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_DEVICE",
            help="Device: cpu, cuda, cuda:1 ... Default: the one that the experiment declares.",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_GRACE_S",
            min=0,
            help="Seconds that a trial may continue after SIGTERM or Ctrl-C.",
        ),
    ] = 10.0,
    notice: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ROMUL_NOTICE",
            help="Source of preemption notices: aws, gcp, azure, a URL that then answers 200, or a "
            "file that then appears (repeatable).",
        ),
    ] = None,
    notice_s: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_NOTICE_S",
            min=0,
            help="Seconds from SIGUSR1, or a notice without a time, to the end of the machine.",
        ),
    ] = 60.0,
    quota_gb: Annotated[
        float | None,
        typer.Option(
            envvar="ROMUL_QUOTA_GB",
            min=0,
            help="Maximum size of an experiment's checkpoints, in GB (10^9 bytes).",
        ),
    ] = None,
    garbage_s: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_GARBAGE_S",
            min=0,
            help="Seconds for which checkpoints that no trial needs are kept.",
        ),
    ] = GARBAGE_MS / 1000,
    affinity_s: Annotated[
        float | None,
        typer.Option(
            envvar="ROMUL_AFFINITY_S",
            min=0,
            max=60,
            help="Maximum seconds that a trial waits for the worker that has its parent in "
            "memory; 0: not at all. Default: the time of a restore from files here, at most 1 s.",
        ),
    ] = None,
    overlap: Annotated[
        bool | None,
        typer.Option(
            "--overlap/--no-overlap",
            envvar="ROMUL_OVERLAP",
            help="Store a checkpoint while the next trial trains, with a second lease. Default: "
            "only if the last three checkpoints each took 0.2 s or more to store.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(envvar="ROMUL_WORKER_NAME", help="Unique name. Default: a generated one."),
    ] = None,
    task_log: Annotated[
        Path | None,
        typer.Option(
            help="File for the output of tasks. Default: a temporary one, emptied when it is long."
        ),
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
) -> None:
    """Run a worker, which trains trials until it is stopped.

    At the start, the worker waits up to 15 minutes for the server to answer.

    On SIGTERM or Ctrl-C, the worker takes no more trials. The trial in training has --grace seconds
    to finish or to save itself; if it does not finish, it goes back to the queue. A checkpoint that
    is being stored has the same time. A second signal ends the worker at once.

    SIGUSR1 announces that the machine ends in --notice-s seconds. The worker then takes only trials
    that it expects to finish in time, and keeps the last three seconds for reports. If the notice
    is too short for --grace, the grace period is shortened.
    """
    start_log(log_level)
    allowed = allow or []
    only = allowed if len(allowed) == 1 and not set(allowed[0]) & set("*?[") else []

    async def run(scratch: Path) -> None:
        log = task_log or scratch / "task.log"
        # The child imports the one task there is, while this process imports what it needs itself.
        child = await ChildProcess.start(path or [], log, only) if only else None
        try:
            from romul_actors.cli.processes import worker as worker_process  # noqa: PLC0415

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
