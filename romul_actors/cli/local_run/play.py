"""A local run: server, actor and workers on this machine, until the run ends."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from romul_actors.cli.local_run.live import LiveView
from romul_actors.cli.local_run.summary import EndedRun, load_plots, summarise, write_picture
from romul_actors.cli.output.printing import Console
from romul_actors.cli.processes.services import stopping
from romul_actors.cli.servers.connection import connected
from romul_actors.client import Client
from romul_actors.launch.crew import crew
from romul_actors.local.address import resolve
from romul_actors.local.mqtt_broker import embedded_broker, has_broker
from romul_actors.local.processes import running
from romul_actors.local.redis_server import embedded_server
from romul_actors.local.run_file import RunFile, extension
from romul_actors.observe.former import begun_from
from romul_actors.observe.snapshot import read_glance
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import Experiment, from_values
from romul_actors.protocol.plan import left_out, settings
from romul_actors.protocol.statuses import OVER
from romul_actors.waiting import pause
from romul_workers.checkpoints.inheritance import copies
from romul_workers.worker.collection import collect_all

REFRESH_S = 0.5
DECIDE_S = 3.0
"""Maximum wait for the actor to decide the workers' last reports."""
LOOK_S = 0.05
"""How often the command checks whether it has."""


@dataclass(frozen=True)
class Servers:
    """The server and broker of a local run.

    Attributes:
        url: a server to use instead of an embedded one.
        broker: whether to run an embedded broker with the embedded server, if one is installed.
    """

    url: str | None = None
    broker: bool = True

    async def start(self, folder: Path, stack: contextlib.AsyncExitStack) -> tuple[str, str | None]:
        """Start the embedded programs until the stack is closed; URLs of server and broker."""
        if self.url is not None:
            return resolve(self.url), None
        url = await stack.enter_async_context(embedded_server(folder))
        if not (self.broker and has_broker()):
            return url, None
        return url, await stack.enter_async_context(embedded_broker(folder))


def play(
    folder: Path,
    plan: RunFile,
    new: Sequence[Experiment],
    servers: Servers,
    *,
    quiet: bool,
    changes: Changes | None = None,
) -> EndedRun:
    """Start everything, wait for the end, and summarise the result.

    Args:
        folder: the run's folder.
        plan: the run.
        new: experiments to submit first; empty if the run continues.
        servers: the server and the broker.
        quiet: whether to show nothing meanwhile.
        changes: changes of all experiments of a run that continues.
    """
    console = Console(stderr=True, quiet=quiet)
    return asyncio.run(_play(folder, plan, new, servers, console, changes))


async def _play(
    folder: Path,
    plan: RunFile,
    new: Sequence[Experiment],
    servers: Servers,
    console: Console,
    changes: Changes | None,
) -> EndedRun:
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        url, mqtt = await servers.start(folder, stack)
        client = await stack.enter_async_context(
            connected(url, console, by="run --resume", warns=True)
        )
        new = new or await _unsubmitted(client, plan)
        plan = replace(plan, unsubmitted=[])
        if new:
            values = [experiment.model_dump(mode="json") for experiment in new]
            replace(plan, unsubmitted=values).write(folder)
        begun = set(plan.experiments) - {experiment.name for experiment in new}
        try:
            for experiment in new:
                await client.submit(await _begun(experiment, client, servers))
                begun.add(experiment.name)
        except Exception:
            # A run that did not start cannot be continued: its name is free.
            if not begun:
                RunFile.remove(folder)
            raise
        experiments = await _specs(client, plan)
        for experiment in experiments:
            # An older version may have stored what this one cannot decide.
            settings(experiment, stored=True)
            for text in left_out(experiment):
                console.print(f"warning: {experiment.name}: {text}", soft_wrap=True)
        if changes is not None:
            experiments = [await _apply(client, each, changes, console) for each in experiments]
        plan.write(folder)
        alone = servers.url is None
        if not new:
            await _resume(client, plan, alone=alone)
            await _name_extension(client, plan, changes, extension(folder, servers.url), console)
        paths = [Path(path) for path in plan.paths]
        processes = crew(url, folder, plan.workers, plan.allow, paths, mqtt, plan.gpus)
        members = await stack.enter_async_context(running(processes))
        with LiveView(
            client.store, experiments, console, folder, servers.url, resumed=not new
        ) as view:
            while not stop.is_set() and not await view.refresh():
                await members.start()
                await pause(REFRESH_S, stop)
        wall_s, interrupted = time.monotonic() - began, stop.is_set()
        # The summary must include the workers' last reports.
        await asyncio.gather(members.end_all("worker"), asyncio.to_thread(load_plots))
        await _decided(client, plan.experiments)
        experiments = await _specs(client, plan)
        summaries, draw = await summarise(client.store, experiments, view.verdicts, console)
        # The picture is drawn while the other processes end.
        drawing = asyncio.create_task(asyncio.to_thread(write_picture, draw, folder, console))
        await collect_all(client.store, experiments if alone else [])
    await drawing
    return EndedRun(summaries, interrupted, wall_s)


async def _specs(client: Client, plan: RunFile) -> list[Experiment]:
    """The run's experiments as they are stored."""
    return [await client.spec(name) for name in plan.experiments]


async def _decided(client: Client, names: Sequence[str]) -> None:
    """Wait for a short time until the actor has decided everything that it can."""
    end = time.monotonic() + DECIDE_S
    for name in names:
        while time.monotonic() < end:
            seen = read_glance(await client.store.glance(name), name)
            if seen.fault or not seen.depths["inbox"]:
                break
            await asyncio.sleep(LOOK_S)


async def _unsubmitted(client: Client, plan: RunFile) -> Sequence[Experiment]:
    """Experiments that a run has not submitted yet, because it was killed at its start."""
    there = await client.statuses() if plan.unsubmitted else {}
    given = [from_values(values, "the declaration of the run") for values in plan.unsubmitted]
    return [experiment for experiment in given if experiment.name not in there]


async def _begun(experiment: Experiment, client: Client, servers: Servers) -> Experiment:
    """The experiment, with what it takes from another search on a given server."""
    if servers.url is None:
        return experiment
    return await begun_from(experiment, client.store, copies)


async def _apply(
    client: Client, experiment: Experiment, changes: Changes, console: Console
) -> Experiment:
    """Request changes; the experiment with the number of steps that it will then have."""
    for key in changes.kept:
        console.print(
            f"warning: {experiment.name}: {key} keeps its value from the start of the run"
        )
    await client.apply(experiment.name, changes)
    return experiment.model_copy(update={"steps": changes.steps or experiment.steps})


async def _name_extension(
    client: Client, plan: RunFile, changes: Changes | None, command: str, console: Console
) -> None:
    """Print the command that extends a run whose searches are over, unless steps were added."""
    if changes is not None and changes.steps is not None:
        return
    statuses = await client.statuses()
    name = plan.experiments[0]
    if all(statuses[each] in OVER for each in plan.experiments):
        console.print(f"{name} is {statuses[name]}: `{command}` continues it", soft_wrap=True)


async def _resume(client: Client, plan: RunFile, *, alone: bool) -> None:
    for name in plan.experiments:
        if alone:
            await client.forget_fault(name)
        if await client.is_halted(name):
            await client.resume(name)
