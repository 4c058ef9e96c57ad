"""Health checks of a process, served over HTTP beside its metrics.

`/healthz` says whether the event loop runs: if it does not, only a restart helps. `/readyz` says
whether the server has answered recently: if it has not, a restart would not help.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

log = logging.getLogger("romul.metrics")

LOOK_S = 5.0
"""How often the server is read."""
SILENT_S = 30.0
"""A server that has not answered for this time cannot be used. This is six reads, and the default
length of a worker's lease: one slow or lost answer is not an outage."""
RUNS_S = 5.0
"""An event loop that does not run a call within this time hangs."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A web application (PEP 3333)."""


class Health:
    """Health of the process, by the event loop that is running now."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answered_s: float | None = None

    async def watch(self, look: Callable[[], Awaitable[object]]) -> None:
        """Read from the server periodically, until cancelled.

        Args:
            look: reads from the server; any exception means that the server cannot be used.
        """
        while True:
            try:
                await look()
            except Exception as error:  # noqa: BLE001
                log.debug("the server cannot be used: %s", error)
            else:
                self._answered_s = time.monotonic()
            await asyncio.sleep(LOOK_S)

    def is_running(self) -> bool:
        """Whether the event loop runs; called from another thread."""
        ran = threading.Event()
        self._loop.call_soon_threadsafe(ran.set)
        return ran.wait(RUNS_S)

    def is_ready(self) -> bool:
        """Whether the server has answered recently."""
        return self._answered_s is not None and is_recent(self._answered_s)

    def __str__(self) -> str:
        if self._answered_s is None:
            return "the server has not answered yet"
        return f"the server answered {time.monotonic() - self._answered_s:.0f} s ago"

    def beside(self, other: Application) -> Application:
        """An application with both paths; `other` handles all other paths."""
        checks = {"/healthz": self.is_running, "/readyz": self.is_ready}

        def application(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            check = checks.get(request["PATH_INFO"])
            if check is None:
                return other(request, start)
            status = "200 OK" if check() else "503 Service Unavailable"
            start(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{self}\n".encode()]

        return application


def is_recent(at_s: float) -> bool:
    """Whether a time of the process's monotonic clock is at most `SILENT_S` ago."""
    return time.monotonic() - at_s < SILENT_S
