"""What long-running commands share: their names, how they end, and their metrics."""

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

from romul_actors.cli.servers.connection import connected
from romul_actors.errors import StoreError, StoreUnavailableError, TlsError
from romul_actors.observe.health import Health
from romul_actors.store import Store
from romul_actors.waiting import REMIND_S, cancel, longer

log = logging.getLogger("romul")

WAIT_S = 900.0
"""Maximum wait for a server's first answer. It is longer than most outages, and longer than the ten
minutes after which Kubernetes resets its back-off. A mistyped address holds the GPU of a Slurm job
no longer than this."""
CHECK_S = 300.0
"""Interval at which an actor checks the server's configuration again, in seconds."""
RETRY_S = (1.0, 10.0)
"""First and longest pause between attempts to reach the server."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What a process serves over HTTP: metrics, `/healthz` and `/readyz`.

    Attributes:
        registry: the metrics.
        look: reads from the server; called periodically.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
    """

    registry: Any
    look: Callable[[Store], Awaitable[object]]
    host: str
    port: int


def unique_name(kind: str) -> str:
    """A unique name, made of host, process id and a few random letters."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())[:40]
    return f"{kind}-{host}-{os.getpid()}-{secrets.token_hex(2)}"


@contextlib.asynccontextmanager
async def stopping(stop: asyncio.Event | None = None) -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets. Once it is set, a signal ends the process at once."""
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
    """Call `run` with a checked store and an event that SIGTERM or SIGINT sets.

    It waits up to `WAIT_S` for the server to answer; a signal ends the wait at once.

    Args:
        url: as the option --redis takes it.
        run: called with the store and the event.
        probes: served from the start; None to serve none.
        event: the event to set; None for a new one.

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
    began, pause_s = loop.time(), 0.0
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
                log.warning("%s; waiting up to %.0f minutes for it", error, WAIT_S / 60)
                said = waited_s
            elif waited_s - said >= REMIND_S:
                log.warning("still waiting after %.0f s: %s", waited_s, error)
                said = waited_s
        else:
            if said is not None:
                log.info("the server answers")
            return client.store
        pause_s = longer(pause_s, RETRY_S)
        await asyncio.sleep(pause_s)


async def check_again(store: Store) -> None:
    """Check a server's configuration again and again, and log what has become wrong with it.

    A failover, or an operator, may bring a server that discards keys when its memory is full.
    """
    while True:
        await asyncio.sleep(CHECK_S)
        try:
            await store.check()
        except StoreUnavailableError:
            continue  # The actor itself logs an outage.
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400  (the message says all)


def _log_error(task: asyncio.Task[None]) -> None:
    """Log the error with which a task ended, if any."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has failed, the rest continues: %s", task.get_name(), error, exc_info=error)


@contextlib.asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the body of the context, and cancel them when it ends.

    If one of them fails, the error is logged and the body continues.
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
    """The module of metrics, which needs an additional library.

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
