"""What the long-running commands share: their names, their end, and their metrics."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import typer

from romul_actors.cli.connection import connected
from romul_actors.observe.health import Health
from romul_actors.store import Store
from romul_actors.waiting import cancel

log = logging.getLogger("romul")


def unique_name(kind: str) -> str:
    """A name that no other process has: host, process, and a few random letters."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())[:40]
    return f"{kind}-{host}-{os.getpid()}-{secrets.token_hex(2)}"


@contextlib.asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()
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
    url: str, run: Callable[[Store, asyncio.Event], Awaitable[None]]
) -> None:
    """Run a part over a checked store; SIGTERM or SIGINT sets the event that it is given.

    Before the store has answered, a signal ends the call at once.
    """
    async with stopping() as stop, contextlib.AsyncExitStack() as stack:
        connecting = asyncio.create_task(stack.enter_async_context(connected(url, warns=True)))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((connecting, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not connecting.done():
                await cancel(connecting)
        if not connecting.cancelled():
            await run(connecting.result().store, stop)


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


async def serve_metrics(
    stack: contextlib.AsyncExitStack,
    registry: Any,
    look: Callable[[], Awaitable[object]],
    host: str,
    port: int,
) -> None:
    """Serve a registry's metrics, and the process's health, until the stack is closed.

    Args:
        stack: what is closed at the end.
        registry: the metrics.
        look: reads from the server, which is done from time to time.
        host: where.
        port: of it; 0: any free one.
    """
    health = Health()
    await stack.enter_async_context(beside(health.watch(look)))
    served = await stack.enter_async_context(metrics_module().served(registry, health, host, port))
    log.info("metrics: http://%s:%d/metrics", host, served)
