"""The page of one experiment: its layout, and its updates in the browser."""

import json
from collections.abc import Sequence

from nicegui import ui

from romul_actors.core.history import Line, to_json
from romul_actors.dashboard import charts
from romul_actors.dashboard.actions import Action, Actions
from romul_actors.dashboard.feed import Feed
from romul_actors.dashboard.feeds import REFRESH_S, Feeds
from romul_actors.observe.alarms import alarms
from romul_actors.observe.explain import explain, in_words
from romul_actors.observe.plots import MOST_AXES
from romul_actors.observe.snapshot import (
    LOST,
    Snapshot,
    WorkerSnapshot,
    full_snapshot,
    moment,
)
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Store

CHARTS_S = 4.0
"""Interval at which charts are sent."""
TABS = ("population", "curves", "lineage", "parallel", "workers", "failures", "actions")
AXIS_PX = 90
"""Minimum distance of parallel axes in pixels, for their labels."""


class Page:
    """One browser's view of one experiment.

    Args:
        store: the store that holds the experiment.
        feeds: shared by all pages.
        name: the experiment's name.
        actions: the operator's actions.
    """

    def __init__(self, store: Store, feeds: Feeds, name: str, actions: Actions) -> None:
        self._store = store
        self._feeds = feeds
        self._name = name
        self._actions = actions
        self._slot: int | None = None
        self._feed: Feed | None = None
        self._charts: dict[str, ui.echart] = {}
        self._drawn: dict[str, str] = {}
        self._shown: dict[str, object] = {}

    def build(self) -> None:
        """Build the layout, which timers then fill."""
        with ui.row().classes("items-center w-full"):
            ui.link("experiments", "/")
            ui.label(self._name).classes("text-xl").mark("title")
            self._status = ui.badge("...").mark("status")
            ui.space()
            with ui.row():
                for action in ("pause", "resume", "stop"):
                    ui.button(action, on_click=lambda _, a=action: self._actions.control(a)).props(
                        f"dense outline data-action={action}"
                    )
        self._summary = ui.label().classes("text-sm text-gray-700")
        self._alarm = ui.label().classes("text-red-700")
        with ui.tabs().classes("w-full").props("mobile-arrows outside-arrows align=left") as tabs:
            for name in TABS:
                ui.tab(name)
        self._panels = ui.tab_panels(tabs, value="population").classes("w-full")
        with self._panels:
            with ui.tab_panel("population"):
                self._population()
            with ui.tab_panel("curves"):
                self._curves = ui.column().classes("w-full")
            with ui.tab_panel("lineage"):
                self._lineage()
            # Axes keep their distance; a chart that is wider than the window scrolls.
            with ui.tab_panel("parallel"), ui.element().classes("w-full overflow-x-auto"):
                self._chart("parallel", "h-[520px]")
            with ui.tab_panel("workers"):
                self._workers()
            with ui.tab_panel("failures"):
                self._failure_rows = ui.column().classes("w-full")
            with ui.tab_panel("actions"):
                self._action_rows = ui.column().classes("w-full")
        ui.timer(REFRESH_S, self._figures, immediate=True)
        ui.timer(CHARTS_S, self._draw, immediate=True)
        tabs.on_value_change(self._draw)

    def _chart(self, name: str, height: str) -> None:
        self._charts[name] = ui.echart({}).classes(f"w-full {height}").props(f"data-chart={name}")

    def _population(self) -> None:
        self._table = ui.table(columns=[], rows=[], row_key="slot", pagination=25)
        self._table.classes("w-full").props("dense")
        self._table.on("rowClick", lambda event: self._open_slot(event.args[1]["slot"]))
        # Not templates: they are recreated, and lose the focus, at each refresh.
        with self._table.add_slot("body-cell-slot"), ui.element("q-td").props(":props=props"):
            number = ui.button().props('flat dense padding="none xs" :label=props.value')
            number.props(':aria-label="`slot ${props.value}`"')
            # Keep the row as low as a row of text.
            number.style("min-height: 0; font-size: inherit")
            number.on(
                "click.stop",
                lambda event: self._open_slot(event.args),
                js_handler="() => emit(props.value)",
            )
        with self._table.add_slot("header-cell"):
            # Quasar would take the key that NiceGUI gives each element as a column's name.
            heading = ui.element("q-th").props(':props=props key="" tabindex=0')
            for key in ("enter", "space"):
                heading.on(f"keydown.{key}.prevent", js_handler="() => props.sort(props.col)")
            with heading:
                ui.element("span").props(":textContent=props.col.label")

    def _lineage(self) -> None:
        with ui.row().classes("items-center"):
            self._choice = ui.select(
                {None: "the winner"}, value=None, label="line of descent of", on_change=self._choose
            ).classes("w-40")
            ui.label("arrows: copied checkpoints")
        self._chart("lineage", "h-[560px]")

    def _workers(self) -> None:
        self._chart("timeline", "h-[420px]")
        self._worker_rows = ui.column().classes("w-full")

    # -- refreshes ------------------------------------------------------------------------------

    def _latest_feed(self) -> Feed:
        """The feed; if it is a new one, of another search of that name, everything is redrawn."""
        feed = self._feeds.request(self._name)
        if feed is not self._feed:
            self._feed, self._slot = feed, None
            self._shown.clear()
            self._drawn.clear()
            self._curves.clear()
        return feed

    def _figures(self) -> None:
        feed = self._latest_feed()
        snapshot = feed.snapshot
        self._alarm.set_text(feed.error)
        if snapshot is None:
            return
        self._status.set_text(snapshot.status)
        self._summary.set_text(in_short(snapshot))
        self._alarm.set_text(feed.error or alarm(snapshot))
        if self._changed("population", (feed.n_lines, snapshot.in_hand)):
            self._table.columns = charts.columns(snapshot.experiment)
            self._table.rows = charts.rows(feed)
        # Lists are rebuilt only if there is something new.
        if self._changed("failures", _latest(feed.failures)):
            self._list_failures(feed)
        if self._changed("actions", _latest(feed.actions)):
            self._list_actions(feed)
        workers = [(w, snapshot.state_of(w)) for w in snapshot.workers]
        if self._changed("workers", tuple((w.name, state, w.in_hand) for w, state in workers)):
            self._list_workers(workers)

    def _list_failures(self, feed: Feed) -> None:
        self._failure_rows.clear()
        with self._failure_rows:
            for line in reversed(feed.failures):
                title = f"trial {line.trial}, attempt {line.attempt}: {line.reason}"
                with ui.expansion(title).classes("w-full"):
                    ui.label(f"on {line.worker}")
                    verbatim(line.message)
            if not feed.failures:
                ui.label("none")

    def _list_actions(self, feed: Feed) -> None:
        self._action_rows.clear()
        with self._action_rows:
            for line in reversed(feed.actions):
                verbatim(in_one_line(line))
            if not feed.actions:
                ui.label("none")

    def _list_workers(self, workers: Sequence[tuple[WorkerSnapshot, str]]) -> None:
        self._worker_rows.clear()
        with self._worker_rows:
            for worker, state in workers:
                with ui.row().classes("items-center"):
                    ui.label(f"{worker.name}: {state} {worker.in_hand}")
                    if self._actions.can_drain and state != LOST:
                        ui.button(
                            "drain", on_click=lambda _, w=worker.name: self._actions.drain(w)
                        ).props("dense outline")

    def _changed(self, what: str, now: object) -> bool:
        """Whether something differs from what was last shown."""
        if what in self._shown and self._shown[what] == now:
            return False
        self._shown[what] = now
        return True

    def _draw(self) -> None:
        feed = self._latest_feed()
        if feed.snapshot is None:
            return
        tab = str(self._panels.value)
        if self._changed("charts", (tab, self._slot, feed.n_lines)):
            self._draw_tab(feed, feed.snapshot.experiment, tab)

    def _draw_tab(self, feed: Feed, experiment: Experiment, tab: str) -> None:
        if tab == "curves":
            self._draw_curves(feed, experiment)
        elif tab == "lineage":
            if self._changed("slots", len(feed.slots)):
                options: dict[int | None, str] = {None: "the winner"}
                options |= {i: f"slot {i}" for i in sorted(feed.slots)}
                self._choice.set_options(options, value=self._slot)
            self._set("lineage", charts.lineage(feed, self._slot))
        elif tab == "parallel":
            drawn = charts.parallel(feed, experiment)
            width_px = AXIS_PX * len(drawn["parallelAxis"])
            self._charts["parallel"].style(f"min-width: {width_px}px")
            self._set("parallel", drawn)
        elif tab == "workers":
            self._set("timeline", charts.timeline(feed))

    def _draw_curves(self, feed: Feed, experiment: Experiment) -> None:
        names = [axis.name for axis in experiment.search_space().axes[:MOST_AXES]]
        if not self._curves.default_slot.children:
            with self._curves:
                self._chart("metric", "h-[360px]")
                with ui.element().classes("w-full grid grid-cols-1 lg:grid-cols-2 gap-4"):
                    for name in names:
                        self._chart(f"h.{name}", "h-[260px]")
        self._set("metric", charts.metric(feed, experiment))
        for name in names:
            self._set(f"h.{name}", charts.hyperparameter(feed, experiment, name))

    def _set(self, name: str, options: charts.Options) -> None:
        """Send a chart's options if they have changed."""
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
        """Show why the slot's trial was decided as it was, and actions on the slot."""
        slot = self._feeds.request(self._name).slots[index]
        whole = await full_snapshot(self._store, self._name)
        words = in_words(explain(whole.experiment, whole.history, slot.trial))
        with ui.dialog() as dialog, ui.card():
            ui.label(f"slot {index}").classes("text-lg")
            verbatim("\n".join(words))
            with ui.row():
                ui.button("line of descent", on_click=lambda: self._follow(dialog, index))
                action: Action = "unpin" if slot.pinned else "pin"
                ui.button(action, on_click=lambda: self._actions.control(action, index)).props(
                    "outline"
                )
                ui.button("close", on_click=dialog.close).props("flat")
        dialog.open()

    def _follow(self, dialog: ui.dialog, index: int) -> None:
        dialog.close()
        self._slot = index
        self._panels.set_value("lineage")
        self._draw()
        self._choice.set_value(index)


def verbatim(text: str) -> ui.label:
    """Show a text verbatim: `ui.code` reads Markdown, in which backticks would end the code."""
    return ui.label(visible(text)).classes(
        "w-full font-mono text-sm whitespace-pre-wrap wrap-anywhere"
    )


def _latest(lines: Sequence[Line]) -> Line | None:
    return lines[-1] if lines else None


def in_one_line(line: Line) -> str:
    """An operator's action: its time, its kind and its values."""
    values = {k: v for k, v in to_json(line).items() if k not in ("at_ms", "event")}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    return "  ".join(
        [moment(line.at_ms), line.event, *(f"{k}={text}" for k, text in texts.items())]
    )


def alarm(snapshot: Snapshot) -> str:
    """Why an experiment does not run, or else its most serious alarm; "" if there is none."""
    if snapshot.status != "running" and snapshot.reason:
        return snapshot.reason
    return next((one.what for one in alarms(snapshot) if one.level != "ok"), "")


def in_short(snapshot: Snapshot) -> str:
    """An experiment's figures in one line."""
    counts, best, dead = snapshot.counts, "", snapshot.depths["dead"]
    if snapshot.best:
        metric = snapshot.experiment.metric
        best = f" · best {metric} {snapshot.best[metric]:.6g} (trial {snapshot.best['trial']})"
    return (
        f"{snapshot.n_slots} slots · {counts['reported']} trials · {counts['failed']} failed · "
        f"{counts['retried']} retried · {len(snapshot.alive)} workers"
        f"{f' · {dead} dead letters' if dead else ''}{best}"
    )
