"""`romul top`: a running experiment, live."""

import asyncio
import math
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import ConsoleOptions, Group
from rich.live import Live
from rich.measure import Measurement
from rich.text import Text

from romul_actors.cli.options.shared import AsJson, Name, SearchUrl
from romul_actors.cli.output.printing import NARROW, Console, Table, echo_json, shortened
from romul_actors.cli.output.rows import worker_row
from romul_actors.cli.servers.followed import LINES, Followed, following
from romul_actors.core.history import TrialReported
from romul_actors.observe.alarms import alarms, few
from romul_actors.observe.snapshot import (
    LOST,
    SLOT_FIELDS,
    Snapshot,
    WorkerSnapshot,
    age,
    moment,
    rank,
    read_glance,
)
from romul_actors.observe.visible import visible
from romul_actors.store import Store

SPARKS = "▁▂▃▄▅▆▇█"
WIDE = 100.0
"""Values that differ by more than this factor are drawn by their logarithms."""
KEPT = 24
"""Results of a slot that its sparkline shows."""
CHROME = 5
"""Lines of a table beside its rows: its heading, its caption and what is free around them."""
MOST_ROWS = 40
"""Default of the maximum number of slots, and of workers, to show."""


def sparkline(values: Sequence[float]) -> str:
    """Values as a line of blocks."""
    if not values:
        return ""
    if min(values) > 0 and max(values) > WIDE * min(values):
        values = [math.log(value) for value in values]
    low, high = min(values), max(values)
    if high == low:
        return SPARKS[0] * len(values)
    top = len(SPARKS) - 1
    return "".join(SPARKS[round(top * (value - low) / (high - low))] for value in values)


class _Sparkline:
    """The latest values, as many as there is room for."""

    def __init__(self, values: Iterable[float]) -> None:
        self._values = list(values)

    def __rich_console__(self, _: Any, options: ConsoleOptions) -> Iterator[str]:
        yield sparkline(self._values[-options.max_width :])

    def __rich_measure__(self, *_: Any) -> Measurement:
        return Measurement(min(1, len(self._values)), len(self._values))


class Screen:
    """What `top` shows, kept from one refresh to the next.

    Args:
        name: the experiment.
        rows: most slots shown.
    """

    def __init__(self, name: str, rows: int = MOST_ROWS) -> None:
        self._name = name
        self._rows = rows
        self._after = ""
        self._losses: dict[int, deque[float]] = {}
        self._decisions: deque[tuple[int, int]] = deque(maxlen=30)
        self.took_s = 0.0

    async def refresh(self, store: Store) -> Snapshot:
        """Read the experiment's present state, in one round trip."""
        began = time.perf_counter()
        glance = await store.glance(self._name, SLOT_FIELDS, self._after, LINES)
        seen = read_glance(glance, self._name)
        self._after = seen.last_id or self._after
        for line in seen.history:
            if isinstance(line, TrialReported):
                kept = self._losses.setdefault(line.slot, deque(maxlen=KEPT))
                kept.append(line.value)
        self._decisions.append((seen.now_ms, seen.counts["created"]))
        self.took_s = time.perf_counter() - began
        return seen

    @property
    def decisions_per_s(self) -> float:
        """Decisions a second over the last refreshes."""
        if not self._decisions:
            return 0.0
        (first_ms, first), (last_ms, last) = self._decisions[0], self._decisions[-1]
        return 1000 * (last - first) / (last_ms - first_ms) if last_ms > first_ms else 0.0

    def render(self, seen: Snapshot) -> Group:
        """The whole view, however long it is."""
        parts = [*self._heading(seen), *self._workers(seen, self._rows)]
        return Group(*parts, self._slots(seen, self._rows))

    def fitted(self, seen: Snapshot, console: Console, note: str = "") -> Group:
        """The part of the view that fits on a terminal. Workers take at most a third of it.

        Args:
            seen: what was seen last.
            console: the terminal.
            note: why this is not the present state; "" if it is.
        """
        parts = [*self._heading(seen)]
        if note:
            parts.append(Text(visible(note), style="bold red"))
        most = max(1, console.height // 3 - CHROME)
        parts += self._workers(seen, min(most, self._rows), briefly=True)
        left = console.height - len(console.render_lines(Group(*parts))) - CHROME
        return Group(*parts, self._slots(seen, max(1, min(left, self._rows))))

    def _heading(self, seen: Snapshot) -> Iterator[Any]:
        counts, experiment = seen.counts, seen.experiment
        best = ""
        if seen.best:
            value = seen.best[experiment.metric]
            best = f"   best {shortened(experiment.metric)} {value:.6g} ({seen.best['trial']})"
        yield (
            f"{self._name}: {seen.status}   {len(seen.slots)} slots   "
            f"{counts['reported']} trials, {counts['failed']} failed, {counts['retried']} retried"
            f"{best}"
        )
        depths = seen.depths
        yield Text(
            f"queues: inbox {depths['inbox']}, trials queued or in training {depths['trials']}, "
            f"dead letters {depths['dead']}   history {depths['history']} lines   "
            f"decisions/s {self.decisions_per_s:.2f}",
            style="dim",
        )
        for alarm in alarms(seen):
            if alarm.level != "ok":
                yield Text(visible(f"! {alarm}"), style="bold red")

    def _workers(self, seen: Snapshot, most: int, *, briefly: bool = False) -> Iterator[Any]:
        """At most `most` workers, the lost ones last, or `briefly` in a line without figures."""
        lost = [worker for worker in seen.workers if seen.state_of(worker) == LOST]
        listed = [worker for worker in seen.workers if seen.state_of(worker) != LOST]
        listed += [] if briefly else lost
        if listed:
            yield _workers_table(seen, listed[:most])
        if len(listed) > most:
            more = f"and {len(listed) - most} more (`romul workers {self._name}`)"
            yield Text(more, style="dim")
        if briefly and lost:
            yield Text(f"lost: {few([shortened(worker.name) for worker in lost])}", style="dim")

    def _slots(self, seen: Snapshot, most: int) -> Table:
        metric, maximize = seen.experiment.metric, seen.experiment.direction == "maximize"
        table = Table()
        for column in ("slot", "tier", "status", "step", metric, "recent", "for", "copied from"):
            right = column in ("slot", "step", metric, "for")
            table.add_column(
                column,
                justify="right" if right else "left",
                max_width=NARROW if column == metric else None,
            )
        in_hand = seen.in_hand
        ranked = sorted(seen.slots, key=lambda s: rank(s.value, s.index, maximize=maximize))
        for slot in ranked[:most]:
            copied = (slot.parent or "").partition("-")[0]
            status = in_hand.get(slot.trial, slot.status)
            table.add_row(
                str(slot.index),
                slot.tier,
                status
                + (f" x{slot.copies}" if slot.copies > 1 else "")
                + (", pinned" if slot.pinned else ""),
                str(slot.step),
                "" if slot.value is None else f"{slot.value:.5g}",
                _Sparkline(self._losses.get(slot.index, ())),
                age(slot.since_s),
                "" if copied in ("", str(slot.index)) else copied,
            )
        if len(seen.slots) > most:
            table.caption = f"the best {most} of {len(seen.slots)} slots"
        return table


def _workers_table(seen: Snapshot, workers: Iterable[WorkerSnapshot]) -> Table:
    table = Table("worker", "state", "trial", "at", "last seen")
    for worker in workers:
        table.add_row(
            shortened(worker.name),
            shortened(seen.state_of(worker)),
            worker.in_hand,
            "" if worker.at is None else f"{worker.at:g}",
            "unknown" if worker.age_s is None else f"{worker.age_s:.1f} s ago",
            style="dim" if seen.state_of(worker) == LOST else "",
        )
    return table


def top(
    name: Name,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between refreshes.")] = 2.0,
    rows: Annotated[
        int, typer.Option(min=1, help="Maximum number of slots and of workers to show.")
    ] = MOST_ROWS,
    once: Annotated[
        bool, typer.Option("--once", help="Print the current state once, then exit.")
    ] = False,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show a running experiment live: workers, slots, queues and alarms."""
    screen = Screen(name, rows)
    # A shell's background job begins with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def run() -> None:
        # However it ends, the terminal gets its screen back.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        async with following(name, redis) as followed:
            seen = await screen.refresh(followed.store)
            if as_json:
                echo_json(_as_json(seen))
                return
            if once:
                Console().print(screen.render(seen))
                return
            await _live(screen, seen, followed, every)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _live(screen: Screen, seen: Snapshot, followed: Followed, every_s: float) -> None:
    """Draw on the terminal's own screen until interrupted.

    Args:
        screen: what is drawn.
        seen: the last state that was read.
        followed: the search.
        every_s: time between refreshes, in seconds.

    Raises:
        StoreUnavailableError: the local run of the search has ended.
    """
    console = Console()
    with Live(
        screen.fitted(seen, console), console=console, screen=True, auto_refresh=False
    ) as live:

        def draw(why: str = "") -> None:
            note = f"! as of {moment(seen.now_ms)}: {why}; trying again" if why else ""
            live.update(screen.fitted(seen, console, note), refresh=True)

        while True:
            await asyncio.sleep(every_s)
            seen = await followed.look(screen.refresh, draw)
            draw()


def _as_json(seen: Snapshot) -> dict[str, Any]:
    slots = [
        {
            "slot": s.index,
            "tier": s.tier,
            "status": s.status,
            "step": s.step,
            "trial": s.trial,
            "value": s.value,
            "pinned": s.pinned,
            "for_s": round(s.since_s, 3),
        }
        for s in seen.slots
    ]
    return {
        "name": seen.experiment.name,
        "status": seen.status,
        "counts": dict(seen.counts),
        "depths": dict(seen.depths),
        "alarms": [alarm.what for alarm in alarms(seen) if alarm.level != "ok"],
        "workers": [worker_row(w, seen.experiment.timeouts.lease_s) for w in seen.workers],
        "slots": slots,
    }
