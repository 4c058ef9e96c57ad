"""The dashboard's web server: its address, the requests that it admits, and its pages."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from romul_actors.dashboard.access import LOOPBACK, AccessControl
from romul_actors.dashboard.actions import Actions
from romul_actors.dashboard.feeds import Feeds
from romul_actors.dashboard.page import Page, in_short
from romul_actors.errors import RomulError
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.snapshot import read_glance
from romul_actors.store import Store


class DashboardError(RomulError, ValueError):
    """The dashboard cannot be served in this way."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The address on which the dashboard listens, and the requests that it admits.

    Attributes:
        host, port: the address.
        token: token that a browser must send; None for no token, which is allowed only on loopback.
        certificate, key: files for TLS.
        behind_proxy: whether a proxy in front provides TLS.
        names: additional host names that browsers may use.
    """

    host: str = "127.0.0.1"
    port: int = 8265
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    names: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse settings that would admit strangers.

        Raises:
            DashboardError: the host is not loopback and there is no token or no TLS, or the token
                is empty.
        """
        if (self.certificate is None) != (self.key is None):
            raise DashboardError("--tls-cert and --tls-key must be given together")
        if self.token == "":
            # For example from an unset variable: every browser would match it.
            raise DashboardError("--token is empty")
        if self.host in LOOPBACK:
            return
        if self.token is None:
            raise DashboardError(f"{self.host} can be reached from other machines: give a --token")
        if self.certificate is None and not self.behind_proxy:
            raise DashboardError(
                f"{self.host} can be reached from other machines: give --tls-cert and --tls-key, "
                "or --behind-proxy if a proxy provides TLS"
            )

    @property
    def hosts(self) -> frozenset[str] | None:
        """Host names that browsers may use; None for any name, if only the token decides."""
        if self.token is not None and not self.names:
            return None
        names = {*LOOPBACK, self.host, *self.names}
        return frozenset(name.lower() for name in names)


def application(store: Store, feeds: Feeds, broker: Broker | None) -> FastAPI:
    """The web application: a list of all experiments, and a page for each."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @ui.page("/", title="ROMUL")
    async def index() -> None:
        ui.label("experiments").classes("text-xl")
        found = await store.experiments()
        if not found:
            ui.label("none yet: `romul submit FILE` adds one").mark("none")
        for name, status in found.items():
            with ui.row().classes("items-center"):
                ui.link(name, f"/experiment/{name}")
                ui.badge(status)
                # An experiment that cannot be read does not hide the others.
                with contextlib.suppress(RomulError):
                    ui.label(in_short(read_glance(await store.glance(name), name)))

    @ui.page("/experiment/{name}", title="ROMUL")
    async def experiment(name: str) -> None:
        if name not in await store.experiments():
            ui.label(f"no experiment {name!r}")
            ui.link("experiments", "/")
            return
        Page(store, feeds, name, Actions(store, name, broker)).build()

    ui.run_with(app, title="ROMUL", show_welcome_message=False)
    return app


@contextlib.asynccontextmanager
async def serving(
    store: Store, where: Serving, broker: Broker | None = None
) -> AsyncIterator[uvicorn.Server]:
    """Serve the dashboard while the context is open.

    Raises:
        DashboardError: see `Serving.check`, or the port is in use.
    """
    where.check()
    feeds = Feeds(store)
    app = application(store, feeds, broker)
    guarded = AccessControl(
        app,
        where.hosts,
        where.token,
        secure=where.certificate is not None,
        behind_proxy=where.behind_proxy,
    )
    config = uvicorn.Config(
        guarded,
        host=where.host,
        port=where.port,
        log_level="warning",
        ssl_certfile=where.certificate,
        ssl_keyfile=where.key,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    server = uvicorn.Server(config)
    # The caller handles signals.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                raise DashboardError(f"cannot listen on {where.host}:{where.port}")
            await asyncio.sleep(0.05)
        yield server
    finally:
        server.should_exit = True
        await feeds.close()
        await asyncio.gather(task, return_exceptions=True)
