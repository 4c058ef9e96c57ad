"""A local run: server, actor and workers on this machine, watched to their end."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from romul_actors.cli.connection import connected, resolve
from romul_actors.cli.live import LiveView
from romul_actors.cli.printing import Console
from romul_actors.cli.services import stopping
from romul_actors.cli.summary import EndedRun, write_summaries
from romul_actors.client import Client
from romul_actors.errors import ExperimentError, ExperimentExistsError, UnknownExperimentError
from romul_actors.launch.crew import crew
from romul_actors.local.mqtt_broker import embedded_broker, has_broker
from romul_actors.local.processes import running
from romul_actors.local.redis_server import embedded_server
from romul_actors.observe.former import begun_from
from romul_actors.protocol.differences import Changes, differences
from romul_actors.protocol.experiment import Experiment, from_values
from romul_actors.protocol.plan import load, settings
from romul_actors.waiting import pause
from romul_workers.inheritance import copies

REFRESH_S = 0.5


@dataclass(frozen=True)
class LocalRun:
    """What `run --resume` must know again.

    Attributes:
        experiments: names, the one to look at first.
        workers: how many.
        allow: task modules that the workers may import.
        paths: folders that they find them in.
        file: the experiment's own file, if the run has one.
        declared: what stood in it when the run began, or last went on, as JSON values.
    """

    experiments: Sequence[str]
    workers: int
    allow: Sequence[str]
    paths: Sequence[str]
    file: str | None = None
    declared: Mapping[str, Any] | None = None

    def begin(self, folder: Path) -> None:
        """Make the folder of a new run.

        Raises:
            ExperimentExistsError: `folder` holds a run already.
        """
        self.check_new(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.write(folder)

    @staticmethod
    def check_new(folder: Path) -> None:
        """Make sure that a folder is free.

        Raises:
            ExperimentExistsError: `folder` holds a run already.
        """
        if (folder / "run.json").exists():
            raise ExperimentExistsError(
                f"{folder} holds a run already: go on with `romul run --resume {folder.name}`, "
                "or choose another name or folder"
            )

    @staticmethod
    def read(folder: Path) -> "LocalRun":
        """Read a run's own file.

        Raises:
            UnknownExperimentError: there is no run in `folder`.
        """
        try:
            return LocalRun(**json.loads((folder / "run.json").read_text()))
        except FileNotFoundError:
            raise UnknownExperimentError(f"{folder}: no run there to go on with") from None

    def changes(self, given: Path | None) -> tuple["LocalRun", Changes]:
        """What the experiment's file says now that it did not say before.

        Args:
            given: the file; None: the one that the run began with, as long as it is there and
                declares the same experiment.

        Returns:
            The run with what the file says now, and the changes.

        Raises:
            ExperimentError: it cannot be read, declares another experiment, or one that this run
                cannot become.
        """
        file = given or (Path(self.file) if self.file else None)
        if file is None or not (given or file.exists()):
            return self, Changes()
        now, name = load(file), self.experiments[0]
        if now.name != name and given is None:
            return self, Changes()
        if now.name != name:
            raise ExperimentError(f"{file} declares {now.name!r}, and the run is {name!r}")
        declared = now.model_dump(mode="json")
        plan = replace(self, file=str(file.resolve()), declared=declared)
        if self.declared is None:
            return plan, Changes()
        before = from_values(self.declared, "the declaration of the run")
        return plan, differences(before, now)

    def write(self, folder: Path) -> None:
        """Keep it in `folder`."""
        (folder / "run.json").write_text(json.dumps(vars(self), indent=1))


@dataclass(frozen=True)
class Servers:
    """What a local run talks to.

    Attributes:
        url: a server in place of an embedded one.
        broker: whether an embedded broker runs beside an embedded server, where there is one.
    """

    url: str | None = None
    broker: bool = True

    async def start(self, folder: Path, stack: contextlib.AsyncExitStack) -> tuple[str, str | None]:
        """Start what is embedded, until the stack is closed: URLs of the server and the broker."""
        if self.url is not None:
            return resolve(self.url), None
        url = await stack.enter_async_context(embedded_server(folder))
        if not (self.broker and has_broker()):
            return url, None
        return url, await stack.enter_async_context(embedded_broker(folder))


def play(
    folder: Path,
    plan: LocalRun,
    new: Sequence[Experiment],
    servers: Servers,
    *,
    quiet: bool,
    changes: Changes | None = None,
) -> EndedRun:
    """Start everything, watch it to its end, and write down what came out.

    Args:
        folder: of the run.
        plan: the run.
        new: experiments to submit first; none where the run goes on.
        servers: what it talks to.
        quiet: whether nothing is shown meanwhile.
        changes: what is to be changed in a run that goes on: in all its experiments.
    """
    console = Console(stderr=True, quiet=quiet)
    return asyncio.run(_play(folder, plan, new, servers, console, changes))


async def _play(
    folder: Path,
    plan: LocalRun,
    new: Sequence[Experiment],
    servers: Servers,
    console: Console,
    changes: Changes | None,
) -> EndedRun:
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        url, mqtt = await servers.start(folder, stack)
        client = await stack.enter_async_context(connected(url, console, by="run --resume"))
        for experiment in new:
            await client.submit(await _begun(experiment, client, servers))
        experiments = [await client.spec(name) for name in plan.experiments]
        for experiment in experiments:
            # An older version may have stored what this one cannot decide.
            settings(experiment)
        if changes is not None:
            experiments = [await _apply(client, each, changes, console) for each in experiments]
        plan.write(folder)
        if not new:
            await _resume(client, plan)
        members = await stack.enter_async_context(
            running(crew(url, folder, plan.workers, plan.allow, [*map(Path, plan.paths)], mqtt))
        )
        with LiveView(client.store, experiments, console, resumed=not new) as view:
            while not stop.is_set() and not await view.refresh():
                await members.start()
                await pause(REFRESH_S, stop)
        wall_s = time.monotonic() - began
        summaries = await write_summaries(client.store, folder, experiments, console)
        return EndedRun(summaries, stop.is_set(), wall_s)


async def _begun(experiment: Experiment, client: Client, servers: Servers) -> Experiment:
    """The experiment with what it takes from another search of a given server."""
    return experiment if servers.url is None else await begun_from(experiment, client.store, copies)


async def _apply(
    client: Client, experiment: Experiment, changes: Changes, console: Console
) -> Experiment:
    """Ask for changes; the experiment with as many steps as it has when they are decided."""
    for key in changes.kept:
        console.print(f"warning: {experiment.name}: {key} stays as it was when the run began")
    await client.apply(experiment.name, changes)
    return experiment.model_copy(update={"steps": changes.steps or experiment.steps})


async def _resume(client: Client, plan: LocalRun) -> None:
    statuses = await client.statuses()
    for name in plan.experiments:
        if statuses[name] in ("paused", "failed"):
            await client.resume(name)
