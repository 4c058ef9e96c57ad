"""What the long-running commands share: their names, their end, and their metrics."""

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import typer

from romul_actors.cli.connection import connected
from romul_actors.errors import StoreUnavailableError, TlsError
from romul_actors.observe.health import Health
from romul_actors.store import Store
from romul_actors.waiting import cancel

log = logging.getLogger("romul")

WAIT_S = 900.0
"""So long a process waits for a server that has not answered it yet: longer than most outages, and
than the ten minutes after which Kubernetes forgets how often a container has ended. A mistyped
address holds the GPU of a Slurm job no longer."""
RETRY_S = (1.0, 10.0)
"""First and longest pause before the server is tried again."""
REMIND_S = 60.0
"""How often a process says that it still waits."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What a process answers over HTTP: metrics, `/healthz` and `/readyz`.

    Attributes:
        registry: the metrics.
        look: reads from the server, which is done from time to time.
        host: where.
        port: of it; 0: any free one.
    """

    registry: Any
    look: Callable[[Store], Awaitable[object]]
    host: str
    port: int


def unique_name(kind: str) -> str:
    """A name that no other process has: host, process, and a few random letters."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())[:40]
    return f"{kind}-{host}-{os.getpid()}-{secrets.token_hex(2)}"


@contextlib.asynccontextmanager
async def stopping(stop: asyncio.Event | None = None) -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; once it is set, a signal ends the process at once."""
    stop = asyncio.Event() if stop is None else stop
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def serve_until_stopped(
    url: str,
    run: Callable[[Store, asyncio.Event], Awaitable[None]],
    probes: Probes | None = None,
    event: asyncio.Event | None = None,
) -> None:
    """Run a part over a checked store; SIGTERM or SIGINT sets the event that it is given.

    A server that does not answer is waited for, `WAIT_S` at most; a signal ends that at once.

    Args:
        url: as the option --redis takes it.
        run: the part.
        probes: what is answered from the beginning; None: nothing is.
        event: the one that is set, where something else may set it, too.

    Raises:
        StoreError: the server cannot be used, or has not answered in time.
    """
    async with stopping(event) as stop, contextlib.AsyncExitStack() as stack:
        health = None if probes is None else await _answer(stack, probes)
        connecting = asyncio.create_task(_connect(stack, url))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((connecting, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not connecting.done():
                await cancel(connecting)
        if connecting.cancelled():
            return
        store = connecting.result()
        if health is not None and probes is not None:
            look = functools.partial(probes.look, store)
            await stack.enter_async_context(beside(health.watch(look)))
        await run(store, stop)


async def _connect(stack: contextlib.AsyncExitStack, url: str) -> Store:
    """A checked store, once its server answers.

    Raises:
        StoreError: the server cannot be used, or has not answered within `WAIT_S`.
    """
    loop = asyncio.get_running_loop()
    began, (pause_s, longest_s) = loop.time(), RETRY_S
    said: float | None = None
    while True:
        try:
            client = await stack.enter_async_context(connected(url, warns=True))
        except TlsError:
            raise
        except StoreUnavailableError as error:
            waited_s = loop.time() - began
            if waited_s >= WAIT_S:
                raise
            if said is None:
                log.warning("%s; waiting for it, %.0f minutes at most", error, WAIT_S / 60)
                said = waited_s
            elif waited_s - said >= REMIND_S:
                log.warning("still waiting, for %.0f s now: %s", waited_s, error)
                said = waited_s
        else:
            if said is not None:
                log.info("the server answers")
            return client.store
        await asyncio.sleep(pause_s)
        pause_s = min(longest_s, 2 * pause_s)


def _log_error(task: asyncio.Task[None]) -> None:
    """Log the error with which a task has ended, if one did."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has ended, all else goes on: %s", task.get_name(), error, exc_info=error)


@contextlib.asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something beside the main thing, and end it in order.

    The main thing goes on where something beside it ends with an error; that is logged.
    """
    tasks = [
        asyncio.create_task(coroutine, name=getattr(coroutine, "__qualname__", None))
        for coroutine in coroutines
    ]
    for task in tasks:
        task.add_done_callback(_log_error)
    try:
        yield
    finally:
        await cancel(*tasks)


def metrics_module() -> Any:
    """The module of metrics, which needs a library of its own.

    Raises:
        typer.BadParameter: the library is not installed.
    """
    try:
        from romul_actors.observe import metrics  # noqa: PLC0415
    except ImportError:
        raise typer.BadParameter(
            "--metrics-port needs prometheus-client: pip install 'romul[prometheus]'"
        ) from None
    return metrics


async def _answer(stack: contextlib.AsyncExitStack, probes: Probes) -> Health:
    """Serve a process's metrics and health until the stack is closed."""
    health = Health()
    served = metrics_module().served(probes.registry, health, probes.host, probes.port)
    port = await stack.enter_async_context(served)
    log.info("metrics: http://%s:%d/metrics", probes.host, port)
    return health
