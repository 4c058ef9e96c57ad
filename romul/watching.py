"""Follows a search to its end: calls hooks, shows progress, and notices what cannot end well."""

import asyncio
from collections.abc import Iterable, Sequence

from romul.callbacks import Callback, call
from romul.declaration import warn_of
from romul.display import Display, Standing
from romul.result import Result
from romul_actors.core.history import ControlIgnored, Line, TrialFailed
from romul_actors.errors import RomulError
from romul_actors.observe.judge import Judge
from romul_actors.observe.snapshot import Snapshot, read_glance
from romul_actors.observe.trial_records import left_out
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.statuses import ENDED
from romul_actors.store import Store
from romul_workers.figures import in_words

LOOK_S = 0.25
LINES = 1_000
"""Lines of history that are read at a time."""


class SearchFailedError(RomulError):
    """The function fails whatever the hyperparameters are; the message has its error.

    Args:
        message: with texts of tasks and workers, whose control characters are written out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class Watch:
    """One search, followed.

    Args:
        store: where it is.
        experiment: its declaration.
        callbacks: hooks.
        display: shows how far it has come.
    """

    def __init__(
        self,
        store: Store,
        experiment: Experiment,
        callbacks: Sequence[Callback],
        display: Display,
    ) -> None:
        self._store = store
        self._experiment = experiment
        self._callbacks = callbacks
        self._display = display
        self._after = "0"
        self._judge = Judge(experiment.population)
        self._failures = 0
        self._awaited: type[Line] | None = None
        self._fault = ""

    async def skip(self, *, until: type[Line] | None = None) -> None:
        """Follow only what comes from now on.

        Args:
            until: a search that has ended was asked to go on: its status is old until this line
                says that it does, or another one that it does not.
        """
        seen = await self._seen(count=1)
        self._after = seen.last_id or "0"
        self._judge = Judge(self._experiment.population, succeeded=seen.counts["reported"] > 0)
        self._awaited = until

    async def look(self) -> bool:
        """Take what is new; whether the search has ended.

        Raises:
            SearchFailedError: every trial fails in the same way.
        """
        seen = await self._seen(self._after, LINES)
        self._after = seen.last_id or self._after
        for line in seen.history:
            self._take(line)
        self._display.show(self._standing(seen))
        self._fault = seen.fault
        return self._ended(seen)

    async def to_the_end(self, *, alone: bool = False) -> None:
        """Look until the search has ended.

        Args:
            alone: whether no other actor than the run's own may serve it.

        Raises:
            SearchFailedError: every trial fails in the same way, or the only actor cannot serve it.
        """
        while not await self.look():
            if alone and self._fault:
                raise SearchFailedError(f"{self._experiment.name}: {self._fault}")
            await asyncio.sleep(LOOK_S)

    async def until_stopped(self) -> None:
        """Wait until the search has been stopped; hooks are called no more."""
        while not self._ended(await self._seen()):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    async def _seen(self, after: str = "", count: int = 0) -> Snapshot:
        name = self._experiment.name
        return read_glance(await self._store.glance(name, after=after, count=count), name)

    def _ended(self, seen: Snapshot) -> bool:
        ended = seen.status in ENDED and self._awaited is None
        return ended and len(seen.history) < LINES

    def _take(self, line: Line) -> None:
        call(self._callbacks, line)
        awaited = self._awaited
        if awaited is not None and (isinstance(line, awaited) or _refuses(line, awaited)):
            self._awaited = None
        self._failures += isinstance(line, TrialFailed)
        # A search whose function is wrong ends before it has failed in every slot three times.
        if why := self._judge.take(line):
            raise SearchFailedError(f"{self._experiment.name}: {why}")

    def _standing(self, seen: Snapshot) -> Standing:
        metric, parts = seen.experiment.metric, []
        if seen.best:
            parts.append(f"best {metric} {seen.best[metric]:.4g}")
        if self._failures:
            parts.append(f"{self._failures} attempts failed")
        if seen.status not in ("running", "submitted"):
            parts.append(seen.status)
        return Standing(seen.ended, seen.total, ", ".join(parts))


def end(result: Result, callbacks: Iterable[Callback]) -> None:
    """Warn of what the task returned that is no figure, and call hooks of the end."""
    if odd := left_out(result.history):
        warn_of([f"{result.name}: {in_words(odd)}"])
    for callback in callbacks:
        callback.on_end(result)


def _refuses(line: Line, awaited: type[Line]) -> bool:
    """Whether a line says that the request did not fit which another line was to answer."""
    return isinstance(line, ControlIgnored) and line.action == awaited.event
