"""Watches a search to its end: calls callbacks, shows progress, and detects broken tasks."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from romul.callbacks import Callback, StopSearch, call
from romul.declaration import warn_of
from romul.display import Display, Standing
from romul.processes import Supervisor
from romul.result import Result
from romul_actors.client import Client
from romul_actors.core.history import ControlIgnored, Line, TrialFailed
from romul_actors.errors import RomulError
from romul_actors.local.run_file import resumption
from romul_actors.observe.alarms import alarms
from romul_actors.observe.judge import Judge
from romul_actors.observe.snapshot import Snapshot, full_snapshot, read_glance
from romul_actors.observe.trial_records import left_out
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.statuses import ENDED
from romul_actors.waiting import cancel
from romul_workers.child.figures import in_words
from romul_workers.worker.collection import collect_all

LOOK_S = 0.25
LINES = 1_000
"""Number of history lines that are read at a time."""


class SearchFailedError(RomulError):
    """A search failed, or its function fails regardless of the hyperparameters.

    `run`, `wait` and `extend` raise it. In the second case the message contains the function's
    error, and a search on a server goes on until it has failed or is stopped.

    Args:
        message: the message; control characters in it are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


@dataclass(frozen=True, slots=True)
class Start:
    """Where in the history of a search a watch starts.

    Attributes:
        after: id of the last line that is skipped; "0" skips none.
        succeeded: whether a trial has already succeeded.
        awaited: for a search that has ended and was asked to continue, the type of the line that
            confirms the request. Until it or a refusal appears, the status is out of date.
    """

    after: str = "0"
    succeeded: bool = False
    awaited: type[Line] | None = None


async def now(client: Client, name: str, *, awaited: type[Line] | None = None) -> Start:
    """The start that skips the history so far; `awaited` is that of `Start`.

    Raises:
        UnknownExperimentError: there is no search of that name.
    """
    seen = read_glance(await client.store.glance(name, count=1), name)
    return Start(seen.last_id or "0", seen.counts["reported"] > 0, awaited)


async def watch_search(
    client: Client,
    name: str,
    callbacks: Sequence[Callback],
    display: Display,
    *,
    start: Start | None = None,
    supervisor: Supervisor | None = None,
    folder: Path | None = None,
) -> Result:
    """Watch a search until it has ended. If a callback raises `StopSearch`, stop the search.

    Args:
        client: client of its server.
        name: name of the search.
        callbacks: callbacks to call, except for `on_end`; see `end`.
        display: shows the progress.
        start: where to start. None (the default) skips the history so far.
        supervisor: for a local run, starts the only actor that can serve the search. At the end,
            checkpoints that no trial needs are removed.
        folder: folder of the local run; None if the search runs on a server.

    Returns:
        The result, also of a search that failed.

    Raises:
        UnknownExperimentError: there is no search of that name.
        SearchFailedError: the function fails regardless of the hyperparameters, or the only actor
            cannot serve the search.
        RomulError: the processes of the local run ended before the search.
    """
    experiment = await client.spec(name)
    watch = _Watch(client, experiment, callbacks, display, start or await now(client, name))
    if supervisor is None:
        await watch.to_the_end(alone=False)
    else:
        supervisor.begin()
        watching = asyncio.create_task(watch.to_the_end(alone=True))
        failing = asyncio.create_task(supervisor.fail())
        try:
            await asyncio.wait((watching, failing), return_when=asyncio.FIRST_COMPLETED)
            (watching if watching.done() else failing).result()
        finally:
            await cancel(watching, failing)
        await collect_all(client.store, [experiment])
    return Result(await full_snapshot(client.store, name), folder)


def end(result: Result, callbacks: Iterable[Callback], again: str | None = None) -> Result:
    """Return the result of a search that has ended, after its warnings and `on_end`.

    Args:
        result: the result.
        callbacks: callbacks whose `on_end` is called.
        again: how to continue a search that failed. None (the default) names a command.

    Raises:
        SearchFailedError: the search failed.
    """
    name, folder = result.name, result.folder
    if result.status == "failed":
        command = f"romul resume {name}" if folder is None else resumption(folder)
        where = f"`romul failures {name}` says why its attempts failed"
        if folder is not None:
            where = f"The output of the function is in {folder / 'logs'}"
        raise SearchFailedError(
            f"{name}: {result.reason}\nTo try again, {again or f'use `{command}`'}. {where}"
        )
    if odd := left_out(result.history):
        warn_of([f"{name}: {in_words(odd)}"])
    for callback in callbacks:
        with suppress(StopSearch):  # It has ended already.
            callback.on_end(result)
    return result


class _Watch:
    """Watches one search; for the arguments, see `watch_search`."""

    def __init__(
        self,
        client: Client,
        experiment: Experiment,
        callbacks: Sequence[Callback],
        display: Display,
        start: Start,
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._callbacks = callbacks
        self._display = display
        self._after = start.after
        self._awaited = start.awaited
        self._judge = Judge(experiment.population, succeeded=start.succeeded)
        self._failures = 0
        self._stopping = False

    async def to_the_end(self, *, alone: bool) -> None:
        """Watch until the search has ended.

        Args:
            alone: whether only the run's own actor and workers can serve the search.

        Raises:
            SearchFailedError: see `watch_search`.
        """
        name, asked = self._experiment.name, False
        while True:
            glance = await self._client.store.glance(name, after=self._after, count=LINES)
            seen = read_glance(glance, name)
            self._after = seen.last_id or self._after
            for line in seen.history:
                if why := self._take(line):
                    on = "" if alone else "\nThe search goes on until it has failed or is stopped"
                    raise SearchFailedError(f"{name}: {why}{on}")
            self._display.show(self._standing(seen, alone=alone))
            if seen.status in ENDED and self._awaited is None and len(seen.history) < LINES:
                return
            if alone and (why := seen.fault or seen.refused):
                raise SearchFailedError(f"{name}: {why}")
            if self._stopping and not asked:
                await self._client.stop(name)
                asked = True
            await asyncio.sleep(LOOK_S)

    def _take(self, line: Line) -> str:
        """Process a line of history; return why the function is at fault, "" if it is not."""
        awaited = self._awaited
        if awaited is not None and (isinstance(line, awaited) or _refuses(line, awaited)):
            self._awaited = None
        self._failures += isinstance(line, TrialFailed)
        if self._stopping:
            return ""
        try:
            call(self._callbacks, line)
        except StopSearch:
            self._stopping = True
            return ""
        # If the function is broken, do not wait until every slot has failed three times.
        return self._judge.take(line)

    def _standing(self, seen: Snapshot, *, alone: bool) -> Standing:
        metric, parts = seen.experiment.metric, []
        if seen.best:
            parts.append(f"best {metric} {seen.best[metric]:.4g}")
        if self._failures:
            parts.append(f"{self._failures} attempts failed")
        if seen.status not in ("running", "submitted"):
            parts.append(seen.status)
        # The actor and the workers of a local run may still be starting.
        problems = [] if alone else [one for one in alarms(seen) if one.level != "ok"]
        if problems:
            parts.append(problems[0].what)
        return Standing(seen.ended, seen.total, ", ".join(parts))


def _refuses(line: Line, awaited: type[Line]) -> bool:
    """Whether a line refuses the request that a line of the type `awaited` would confirm."""
    return isinstance(line, ControlIgnored) and line.action == awaited.event
