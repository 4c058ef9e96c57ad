"""The dashboard's pages. All who look at an experiment share one feed; it ends when nobody does."""

import asyncio
import contextlib
import getpass
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from romul_actors.client import Client
from romul_actors.dashboard import charts
from romul_actors.dashboard.feed import Feed
from romul_actors.dashboard.guard import Guard
from romul_actors.errors import RomulError, StoreError
from romul_actors.mqtt.connection import Broker
from romul_actors.observe.explain import explain, in_words
from romul_actors.observe.snapshot import Snapshot, full_snapshot, read_glance
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Store
from romul_actors.waiting import cancel

log = logging.getLogger("romul.dashboard")

REFRESH_S = 2.0
CHARTS_S = 4.0
"""How often figures and charts are sent anew."""
FORGET_S = 30.0
"""A feed that nobody has looked at for so long is dropped."""
Action = Literal["pause", "resume", "stop", "pin", "unpin"]


class DashboardError(RomulError):
    """The dashboard cannot be served so."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where and for whom it is served.

    Attributes:
        host, port: where it listens.
        token: what a browser must show; None: nothing, on loopback only.
        certificate, key: files for TLS.
        behind_proxy: whether a proxy in front of it brings TLS.
        names: further host names that browsers call it by.
    """

    host: str = "127.0.0.1"
    port: int = 8265
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    names: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what would let strangers in.

        Raises:
            DashboardError: it listens beyond this machine without a token, or without TLS.
        """
        if (self.certificate is None) != (self.key is None):
            raise DashboardError("--tls-cert and --tls-key belong together")
        if self.host in ("127.0.0.1", "::1", "localhost"):
            return
        if self.token is None:
            raise DashboardError(f"{self.host} is not this machine alone: give a --token")
        if self.certificate is None and not self.behind_proxy:
            raise DashboardError(
                f"{self.host} is not this machine alone: give --tls-cert and --tls-key, or say "
                "--behind-proxy if a proxy brings TLS"
            )

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that browsers may call it by; None: any, where the token decides."""
        if self.token is not None and not self.names:
            return None
        return frozenset({"127.0.0.1", "::1", "localhost", self.host, *self.names})


class Feeds:
    """The feeds that are looked at, refreshed while they are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._wanted: dict[str, float] = {}

    def want(self, name: str) -> Feed:
        """A feed of an experiment; said again and again by whoever looks at it."""
        self._wanted[name] = asyncio.get_running_loop().time()
        if name not in self._feeds:
            feed = Feed(self._store, name)
            self._feeds[name] = (feed, asyncio.create_task(self._keep(feed)))
        return self._feeds[name][0]

    async def _keep(self, feed: Feed) -> None:
        loop = asyncio.get_running_loop()
        try:
            while loop.time() - self._wanted[feed.name] < FORGET_S:
                with contextlib.suppress(StoreError):
                    await feed.refresh()
                # A refresh that takes long is done less often.
                await asyncio.sleep(max(REFRESH_S, 20 * feed.took_s))
        finally:
            del self._feeds[feed.name]

    async def close(self) -> None:
        """Stop all."""
        await cancel(*(task for _, task in self._feeds.values()))


class Page:
    """One browser's view of one experiment."""

    def __init__(self, store: Store, feeds: Feeds, name: str, broker: Broker | None) -> None:
        self._store = store
        self._feeds = feeds
        self._name = name
        self._broker = broker
        self._client = Client(store, by=f"{getpass.getuser()} (dashboard)", broker=broker)
        self._slot: int | None = None
        self._charts: dict[str, ui.echart] = {}
        self._drawn: dict[str, str] = {}

    def build(self) -> None:
        """Lay it out."""
        with ui.row().classes("items-center w-full"):
            ui.link("experiments", "/")
            self._title = ui.label(self._name).classes("text-xl").mark("title")
            self._status = ui.badge("...").mark("status")
            ui.space()
            for action in ("pause", "resume", "stop"):
                ui.button(action, on_click=lambda _, a=action: self._ask(a)).props(
                    f"dense outline data-action={action}"
                )
        self._summary = ui.label().classes("text-sm text-gray-700")
        self._alarm = ui.label().classes("text-red-700")
        with ui.tabs() as tabs:
            names = (
                "population",
                "curves",
                "lineage",
                "parallel",
                "workers",
                "failures",
                "actions",
            )
            self._tabs = {name: ui.tab(name) for name in names}
        self._panels = ui.tab_panels(tabs, value="population").classes("w-full")
        with self._panels:
            with ui.tab_panel("population"):
                self._population()
            with ui.tab_panel("curves"):
                self._curves = ui.column().classes("w-full")
            with ui.tab_panel("lineage"):
                self._lineage()
            with ui.tab_panel("parallel"):
                self._chart("parallel", "h-[520px]")
            with ui.tab_panel("workers"):
                self._workers()
            with ui.tab_panel("failures"):
                self._failures = ui.column().classes("w-full")
            with ui.tab_panel("actions"):
                self._actions = ui.column().classes("w-full")
        self._shown: dict[str, int] = {}
        ui.timer(REFRESH_S, self._figures, immediate=True)
        ui.timer(CHARTS_S, self._draw, immediate=True)
        tabs.on_value_change(self._draw)

    def _chart(self, name: str, height: str) -> None:
        self._charts[name] = ui.echart({}).classes(f"w-full {height}").props(f"data-chart={name}")

    def _population(self) -> None:
        columns = ["slot", "status", "step", "metric", "copied", "rule", "hyperparameters"]
        self._table = ui.table(
            columns=[
                {
                    "name": c,
                    "label": c,
                    "field": c,
                    "sortable": c != "hyperparameters",
                    "align": "left",
                }
                for c in columns
            ],
            rows=[],
            row_key="slot",
            pagination=25,
        ).classes("w-full")
        self._table.on("rowClick", lambda event: self._open_slot(event.args[1]["slot"]))

    def _lineage(self) -> None:
        with ui.row().classes("items-center"):
            self._choice = ui.select(
                {None: "the winner"}, value=None, label="line of", on_change=self._choose
            ).classes("w-40")
            ui.label("arrows: checkpoints copied")
        self._chart("lineage", "h-[560px]")

    def _workers(self) -> None:
        self._chart("timeline", "h-[420px]")
        self._worker_rows = ui.column().classes("w-full")

    # -- refreshes ------------------------------------------------------------------------------

    def _figures(self) -> None:
        feed = self._feeds.want(self._name)
        seen = feed.seen
        if seen is None:
            return
        self._status.set_text(seen.status)
        self._summary.set_text(in_short(seen))
        none = seen.status == "running" and not seen.alive
        self._alarm.set_text("no worker is alive" if none else seen.reason)
        if self._changed("population", feed.lines):
            self._table.rows = charts.rows(feed)
        self._lists(feed, seen)

    def _lists(self, feed: Feed, seen: Snapshot) -> None:
        """Failures, actions and workers, built anew only where there is something new."""
        if self._changed("failures", len(feed.failures) and feed.failures[-1]["at_ms"]):
            self._failures.clear()
            with self._failures:
                for line in reversed(feed.failures):
                    title = f"trial {line['trial']}, attempt {line['attempt']}: {line['reason']}"
                    with ui.expansion(title).classes("w-full"):
                        ui.label(f"on {line['worker']}")
                        ui.code(str(line.get("message", "")), language="text").classes("w-full")
                if not feed.failures:
                    ui.label("none")
        if self._changed("actions", len(feed.actions) and feed.actions[-1]["at_ms"]):
            self._actions.clear()
            with self._actions:
                for line in reversed(feed.actions):
                    told = {k: v for k, v in line.items() if k not in ("at_ms", "event")}
                    ui.label(f"{line['event']}: {json.dumps(told)}")
        if self._changed("workers", hash(tuple((w.name, w.state, w.trial) for w in seen.workers))):
            self._worker_rows.clear()
            with self._worker_rows:
                for worker in seen.workers:
                    with ui.row().classes("items-center"):
                        ui.label(f"{worker.name}: {worker.state} {worker.trial}")
                        if self._broker is not None:
                            ui.button(
                                "drain", on_click=lambda _, w=worker.name: self._ask_drain(w)
                            ).props("dense outline")

    def _changed(self, what: str, now: int) -> bool:
        if self._shown.get(what) == now:
            return False
        self._shown[what] = now
        return True

    def _draw(self) -> None:
        feed = self._feeds.want(self._name)
        if feed.seen is None:
            return
        experiment, tab = feed.seen.experiment, str(self._panels.value)
        if self._changed("charts", hash((tab, self._slot, feed.lines))):
            self._draw_tab(feed, experiment, tab)

    def _draw_tab(self, feed: Feed, experiment: Experiment, tab: str) -> None:
        if tab == "curves":
            if not self._curves.default_slot.children:
                with self._curves:
                    self._chart("metric", "h-[360px]")
                    with ui.grid(columns=2).classes("w-full"):
                        for name in experiment.space:
                            self._chart(f"h.{name}", "h-[260px]")
            self._set("metric", charts.metric(feed, experiment))
            for name in experiment.space:
                self._set(f"h.{name}", charts.hyperparameter(feed, experiment, name))
        elif tab == "lineage":
            if self._changed("slots", len(feed.slots)):
                options: dict[int | None, str] = {None: "the winner"}
                options |= {i: f"slot {i}" for i in sorted(feed.slots)}
                self._choice.set_options(options, value=self._slot)
            self._set("lineage", charts.lineage(feed, self._slot))
        elif tab == "parallel":
            self._set("parallel", charts.parallel(feed, experiment))
        elif tab == "workers":
            self._set("timeline", charts.timeline(feed))

    def _set(self, name: str, options: charts.Options) -> None:
        """Send a chart's options, if they are others than before."""
        text = json.dumps(options)
        if self._drawn.get(name) == text:
            return
        self._drawn[name] = text
        chart = self._charts[name]
        chart.options.clear()
        chart.options.update(options)
        chart.update()

    def _choose(self) -> None:
        self._slot = self._choice.value
        self._draw()

    async def _open_slot(self, index: int) -> None:
        """Why the slot's trial is as it is, and what can be done with it."""
        feed = self._feeds.want(self._name)
        slot = feed.slots[index]
        seen = await full_snapshot(self._store, self._name)
        words = in_words(explain(seen.experiment, seen.history, slot.trial))
        with ui.dialog() as dialog, ui.card():
            ui.label(f"slot {index}").classes("text-lg")
            ui.code("\n".join(words), language="text")
            with ui.row():
                ui.button("its line", on_click=lambda: self._follow(dialog, index))
                action: Action = "unpin" if slot.pinned else "pin"
                ui.button(action, on_click=lambda: self._ask(action, index)).props("outline")
                ui.button("close", on_click=dialog.close).props("flat")
        dialog.open()

    def _follow(self, dialog: ui.dialog, index: int) -> None:
        dialog.close()
        self._slot = index
        self._panels.set_value("lineage")
        self._draw()
        self._choice.set_value(index)

    # -- actions --------------------------------------------------------------------------------

    async def _confirmed(self, question: str) -> bool:
        with ui.dialog() as dialog, ui.card():
            ui.label(question)
            with ui.row():
                ui.button("yes", on_click=lambda: dialog.submit("yes")).props("data-answer=yes")
                ui.button("no", on_click=lambda: dialog.submit("no")).props("flat")
        return bool(await dialog == "yes")

    async def _ask(self, action: Action, slot: int | None = None) -> None:
        whom = self._name if slot is None else f"slot {slot} of {self._name}"
        if not await self._confirmed(f"{action} {whom}?"):
            return
        client, name = self._client, self._name
        of_all = {"pause": client.pause, "resume": client.resume, "stop": client.stop}
        of_slot = {"pin": client.pin, "unpin": client.unpin}
        await self._try(
            lambda: of_all[action](name) if slot is None else of_slot[action](name, slot)
        )

    async def _ask_drain(self, worker: str) -> None:
        if self._broker is None or not await self._confirmed(f"drain {worker}?"):
            return
        await self._try(lambda: self._client.drain(worker, names=[self._name]))

    async def _try(self, act: Callable[[], Awaitable[Any]]) -> None:
        try:
            await act()
        except (RomulError, OSError) as error:
            ui.notify(str(error), type="negative")
        else:
            ui.notify("asked")


def in_short(seen: Snapshot) -> str:
    """How an experiment stands, in a line."""
    counts, best = seen.counts, ""
    if seen.best:
        metric = seen.experiment.metric
        best = f" · best {metric} {seen.best[metric]:.6g} (trial {seen.best['trial']})"
    return (
        f"{seen.n_slots} slots · {counts['reported']} trials · {counts['failed']} failed · "
        f"{counts['retried']} retried · {len(seen.alive)} workers{best}"
    )


def pages(store: Store, feeds: Feeds, broker: Broker | None) -> FastAPI:
    """The application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @ui.page("/", title="ROMUL")
    async def index() -> None:
        ui.label("experiments").classes("text-xl")
        for name, status in (await store.experiments()).items():
            with ui.row().classes("items-center"):
                ui.link(name, f"/experiment/{name}")
                ui.badge(status)
                # One that cannot be read hides no other one.
                with contextlib.suppress(RomulError):
                    ui.label(in_short(read_glance(await store.glance(name))))

    @ui.page("/experiment/{name}", title="ROMUL")
    async def experiment(name: str) -> None:
        if name not in await store.experiments():
            ui.label(f"no experiment {name!r}")
            ui.link("experiments", "/")
            return
        Page(store, feeds, name, broker).build()

    ui.run_with(app, title="ROMUL", show_welcome_message=False)
    return app


@contextlib.asynccontextmanager
async def serving(
    store: Store, where: Serving, broker: Broker | None = None
) -> AsyncIterator[uvicorn.Server]:
    """Serve while the context is open.

    Raises:
        DashboardError: strangers could come in so, or the port is taken.
    """
    where.check()
    feeds = Feeds(store)
    app = pages(store, feeds, broker)
    guarded = Guard(app, where.hosts, where.token, secure=where.certificate is not None)
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
    # Signals are the caller's business.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                raise DashboardError(f"{where.host}:{where.port} cannot be listened on")
            await asyncio.sleep(0.05)
        yield server
    finally:
        server.should_exit = True
        await feeds.close()
        await asyncio.gather(task, return_exceptions=True)
