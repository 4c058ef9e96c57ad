"""Watches a search to its end: calls callbacks, shows progress, and detects broken tasks."""

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
"""Number of history lines that are read at a time."""


class SearchFailedError(RomulError):
    """A search failed, usually because its function fails regardless of the hyperparameters.

    The message contains the function's error.

    Args:
        message: the message; control characters in it are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class Watch:
    """Watches one search.

    Args:
        store: store that holds the search.
        experiment: its declaration.
        callbacks: callbacks to call.
        display: shows the progress.
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
        """Skip the history so far.

        Args:
            until: for a search that has ended and was asked to continue, the type of the line that
                confirms the request. Until it or a refusal appears, the status is out of date.
        """
        seen = await self._seen(count=1)
        self._after = seen.last_id or "0"
        self._judge = Judge(self._experiment.population, succeeded=seen.counts["reported"] > 0)
        self._awaited = until

    async def look(self) -> bool:
        """Process new lines of history; return whether the search has ended.

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
        """Watch until the search has ended.

        Args:
            alone: whether the run's own actor is the only one that can serve the search.

        Raises:
            SearchFailedError: every trial fails in the same way, or the only actor cannot serve the
                search.
        """
        while not await self.look():
            if alone and self._fault:
                raise SearchFailedError(f"{self._experiment.name}: {self._fault}")
            await asyncio.sleep(LOOK_S)

    async def until_stopped(self) -> None:
        """Wait until the search has stopped, without calling callbacks."""
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
        # If the function is broken, do not wait until every slot has failed three times.
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
    """Warn of values that the task returned but that are not numbers, and call `on_end`."""
    if odd := left_out(result.history):
        warn_of([f"{result.name}: {in_words(odd)}"])
    for callback in callbacks:
        callback.on_end(result)


def _refuses(line: Line, awaited: type[Line]) -> bool:
    """Whether a line refuses the request that a line of the type `awaited` would confirm."""
    return isinstance(line, ControlIgnored) and line.action == awaited.event
