"""Whether a process works, as probes ask over HTTP beside its metrics.

`/healthz` says whether its event loop runs: where it does not, only a new process helps. `/readyz`
says whether the server has answered lately: where it has not, a new process would not help.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

log = logging.getLogger("romul.metrics")

LOOK_S = 5.0
"""How often the server is used."""
SILENT_S = 30.0
"""A server that has not answered for so long cannot be used. One slow or lost answer is no outage:
that are six looks, and as long as a worker's lease lasts by default."""
RUNS_S = 5.0
"""An event loop that does not come to a call within so long hangs."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A web application (PEP 3333)."""


class Health:
    """Of the process whose event loop runs now."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answered_s: float | None = None

    async def watch(self, look: Callable[[], Awaitable[object]]) -> None:
        """Use the server again and again, until cancelled.

        Args:
            look: reads from the server; where it raises, whatever it is, that cannot be used.
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
        """Whether the server has answered lately."""
        return self._answered_s is not None and is_recent(self._answered_s)

    def __str__(self) -> str:
        if self._answered_s is None:
            return "the server has not answered yet"
        return f"the server answered {time.monotonic() - self._answered_s:.0f} s ago"

    def beside(self, other: Application) -> Application:
        """An application with both paths, and all others of another one."""
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
    """Whether it is not long ago that a server answered, by the process's monotonic clock."""
    return time.monotonic() - at_s < SILENT_S
