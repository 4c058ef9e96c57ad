"""`romul top`, `workers`, `history`, `lineage`, `explain`, `waste`, `doctor`: what goes on."""

import asyncio
import math
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic_core import from_json
from rich.console import ConsoleOptions, Group
from rich.live import Live
from rich.measure import Measurement
from rich.text import Text
from rich.tree import Tree

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options import DEFAULT_URL, AsJson, MqttCa, MqttUrl, RedisUrl, broker, resolve
from romul_actors.cli.printing import NARROW, Console, Table, echo, echo_json, shortened
from romul_actors.cli.services import opened
from romul_actors.mqtt.connection import KEEPALIVE_S
from romul_actors.observe.doctor import Finding, examine
from romul_actors.observe.explain import Branch, in_words, root_of
from romul_actors.observe.explain import explain as explain_trial
from romul_actors.observe.explain import waste as waste_of
from romul_actors.observe.snapshot import (
    SLOT_FIELDS,
    SlotSnapshot,
    Snapshot,
    full_snapshot,
    read_glance,
    snapshot,
)
from romul_actors.observe.visible import visible
from romul_actors.store import Output, Store

Name = Annotated[str, typer.Argument(help="Name of an experiment.")]
SPARKS = "▁▂▃▄▅▆▇█"
LINES = 2_000
"""History lines that a refresh of `top` reads at most."""
WIDE = 100.0
"""Values that differ by more than this factor are drawn by their logarithms."""
KEPT = 24
"""Results of a slot that its sparkline shows."""
MOST_ROWS = 40


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
        self._seen: Snapshot | None = None
        self.took_s = 0.0

    async def refresh(self, store: Store) -> Snapshot:
        """Look once, in one round trip."""
        began = time.perf_counter()
        glance = await store.glance(self._name, SLOT_FIELDS, self._after, LINES)
        known = self._seen.experiment if self._seen is not None else None
        seen = self._seen = read_glance(glance, known)
        self._after = seen.last_id or self._after
        for line in seen.history:
            if line["event"] == "result":
                kept = self._losses.setdefault(line["slot"], deque(maxlen=KEPT))
                kept.append(line["value"])
        self._decisions.append((seen.now_ms, seen.counts["created"]))
        self.took_s = time.perf_counter() - began
        return seen

    @property
    def decisions_per_s(self) -> float:
        """Decisions a second over the last refreshes."""
        (first_ms, first), (last_ms, last) = self._decisions[0], self._decisions[-1]
        return 1000 * (last - first) / (last_ms - first_ms) if last_ms > first_ms else 0.0

    def alarms(self, seen: Snapshot) -> list[str]:
        """What an operator should look at."""
        lease_s = seen.experiment.timeouts.lease_s
        told = []
        if seen.status in ("running", "paused") and not seen.alive:
            told.append("no worker is alive")
        silent = [w.name for w in seen.workers if lease_s / 2 < w.age_s < lease_s]
        if silent:
            told.append(f"silent for half a lease: {', '.join(silent[:3])}")
        if any(w.state == "no room" for w in seen.alive):
            told.append("a worker has no room for checkpoints")
        failing = [w.name for w in seen.alive if w.state == "failing"]
        if failing:
            told.append(f"trials fail on these workers only: {', '.join(failing[:3])}")
        if seen.depths["dead"]:
            told.append(f"{seen.depths['dead']} dead messages (romul dead list {self._name})")
        if seen.depths["inbox"] > 10 * max(10, len(seen.slots)):
            told.append("the inbox grows: is an actor running?")
        if seen.status == "failed":
            told.append(seen.reason)
        return told

    def render(self, seen: Snapshot) -> Group:
        """The screen."""
        return Group(*self._parts(seen))

    def _parts(self, seen: Snapshot) -> Iterator[Any]:
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
        depths = "  ".join(f"{queue} {depth}" for queue, depth in seen.depths.items())
        yield Text(f"queues: {depths}   decisions/s {self.decisions_per_s:.2f}", style="dim")
        for alarm in self.alarms(seen):
            yield Text(visible(f"! {alarm}"), style="bold red")
        yield self._workers(seen)
        yield self._slots(seen)

    def _workers(self, seen: Snapshot) -> Table:
        table = Table("worker", "state", "trial", "at", "heard")
        lease_s = seen.experiment.timeouts.lease_s
        for worker in sorted(seen.workers, key=lambda w: (w.age_s >= lease_s, w.name))[
            : self._rows
        ]:
            table.add_row(
                shortened(worker.name),
                shortened(worker.state),
                worker.trial,
                "" if worker.at is None else f"{worker.at:g}",
                f"{worker.age_s:.1f} s ago",
                style="dim" if worker.age_s >= lease_s else "",
            )
        return table

    def _slots(self, seen: Snapshot) -> Table:
        metric, maximize = seen.experiment.metric, seen.experiment.direction == "maximize"
        table = Table()
        for column in ("slot", "tier", "status", "step", metric, "lately", "for", "copied from"):
            right = column in ("slot", "step", metric, "for")
            table.add_column(
                column,
                justify="right" if right else "left",
                max_width=NARROW if column == metric else None,
            )
        leased = {w.trial: w for w in seen.alive if w.trial}
        for slot in _ranked(seen.slots, maximize=maximize)[: self._rows]:
            copied = (slot.parent or "").partition("-")[0]
            status = "training" if slot.trial in leased else slot.status
            table.add_row(
                str(slot.index) + (" *" if slot.pinned else ""),
                slot.tier,
                status + (f" x{slot.copies}" if slot.copies > 1 else ""),
                str(slot.step),
                "" if slot.value is None else f"{slot.value:.5g}",
                _Sparkline(self._losses.get(slot.index, ())),
                _age(slot.since_s),
                "" if copied in ("", str(slot.index)) else copied,
            )
        if len(seen.slots) > self._rows:
            table.caption = f"the best {self._rows} of {len(seen.slots)} slots"
        return table


def _ranked(slots: Sequence[SlotSnapshot], *, maximize: bool) -> list[SlotSnapshot]:
    sign = -1 if maximize else 1
    return sorted(slots, key=lambda s: (s.value is None, sign * (s.value or 0.0), s.index))


def _age(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes, hour = seconds / 60, 60
    return f"{minutes:.0f} min" if minutes < 2 * hour else f"{minutes / hour:.0f} h"


def top(
    name: Name,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    rows: Annotated[int, typer.Option(min=1, help="Most slots and workers shown.")] = MOST_ROWS,
    once: Annotated[bool, typer.Option("--once", help="Show once, and end.")] = False,
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show a running experiment live: workers, slots, queues, alarms. One round trip a refresh."""
    screen = Screen(name, rows)
    # A shell's background job begins with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def run() -> None:
        # Whoever ends it, the terminal gets its screen back.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        async with opened(redis) as store:
            seen = await screen.refresh(store)
            if as_json:
                echo_json(_as_json(screen, seen))
                return
            console = Console()
            if once:
                console.print(screen.render(seen))
                return
            with Live(
                screen.render(seen), console=console, screen=True, auto_refresh=False
            ) as live:
                while True:
                    await asyncio.sleep(every)
                    live.update(screen.render(await screen.refresh(store)), refresh=True)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit from None


def _as_json(screen: Screen, seen: Snapshot) -> dict[str, Any]:
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
        "alarms": screen.alarms(seen),
        "workers": [_worker_row(seen, i) for i in range(len(seen.workers))],
        "slots": slots,
    }


def _worker_row(seen: Snapshot, i: int) -> dict[str, Any]:
    worker = seen.workers[i]
    return {
        "worker": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "state": worker.state,
        "trial": worker.trial,
        "at": worker.at,
        "age_s": round(worker.age_s, 3),
        "alive": worker.age_s < seen.experiment.timeouts.lease_s,
    }


def workers(name: Name, redis: RedisUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List an experiment's workers: what they do, and when they were last heard."""

    async def run() -> Snapshot:
        async with opened(redis) as store:
            return await snapshot(store, name)

    seen = asyncio.run(run())
    rows = [_worker_row(seen, i) for i in range(len(seen.workers))]
    if as_json:
        echo_json(rows)
        return
    table = Table(*(rows[0] if rows else ("worker",)))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table if rows else f"{name}: none")


def history(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    count: Annotated[int, typer.Option("-n", min=0, help="How many of the latest lines.")] = 20,
    event: Annotated[str | None, typer.Option(help="Only this kind (result, failed ...).")] = None,
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show what happened and what was decided; operators' actions are among it."""

    async def run() -> None:
        async with opened(redis) as store:
            glance = await store.glance(name, after="", count=count)
            after = "0"
            while True:
                for entry_id, text in glance.history:
                    after = entry_id
                    line = from_json(text)
                    if event in (None, line["event"]):
                        echo_json(line) if as_json else echo(said(line))
                if not follow or over(glance.meta["status"], glance.history):
                    return
                await asyncio.sleep(0.5)
                glance = await store.glance(name, after=after, count=LINES)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit from None


def over(status: str, lines: Sequence[Any]) -> bool:
    """Whether nothing more will come: the search is over, and all of it was shown."""
    return status in ("finished", "stopped") and len(lines) < LINES


def said(line: Mapping[str, Any]) -> str:
    """A line of history for people."""
    at = time.strftime("%H:%M:%S", time.localtime(line.get("at_ms", 0) / 1000))
    rest = {k: v for k, v in line.items() if k not in ("event", "at_ms", "vector", "why", "seed")}
    why = line.get("why", {}).get("rule")
    told = "  ".join(f"{key}={_short(value)}" for key, value in rest.items() if value != "")
    return f"{at}  {line['event']:<9} {told}" + (f"  rule={why}" if why else "")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    text = str(value)
    longest = 200
    return text if len(text) <= longest else text[:longest] + "..."


def lineage(
    name: Name,
    slot: Annotated[int, typer.Argument(min=0, help="A slot.")],
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show the tree that a slot belongs to: who was copied from whom."""
    seen = _all_of(name, redis)
    root, own = root_of(seen.history, slot)
    if as_json:
        echo_json(root.as_json())
        return
    Console().print(_tree(root, own, seen.experiment.metric))


def _all_of(name: str, redis: str) -> Snapshot:
    async def run() -> Snapshot:
        async with opened(redis) as store:
            return await full_snapshot(store, name)

    return asyncio.run(run())


def _tree(root: Branch, own: Branch, metric: str) -> Tree:
    def label(branch: Branch) -> str:
        value = "" if branch.value is None else f", {metric} {branch.value:.5g}"
        text = f"slot {branch.slot}: steps {branch.first} to {branch.last}{value}"
        return text + ("  <- here" if branch is own else "")

    tree = Tree(label(root))
    stack = [(tree, root)]
    while stack:
        place, branch = stack.pop()
        stack += [(place.add(label(child)), child) for child in branch.children]
    return tree


def explain(
    name: Name,
    trial: Annotated[str, typer.Argument(help="A trial: SLOT-STEP, as 3-12.")],
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say why a trial was decided as it was: what was copied, mutated, drawn, and from where."""
    seen = _all_of(name, redis)
    told = explain_trial(seen.experiment, seen.history, trial)
    echo_json(told) if as_json else echo("\n".join(in_words(told)))


def logs(
    name: Name,
    trial: Annotated[str, typer.Argument(help="A trial: SLOT-STEP, as 3-12.")],
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show what the task printed during a trial's attempts: the end of it, of the latest 2,000."""

    async def run() -> list[Output]:
        async with opened(redis) as store:
            await store.spec(name)
            return await store.outputs(name, trial)

    found = asyncio.run(run())
    if as_json:
        echo_json([asdict(output) for output in found])
        return
    for output in found:
        echo(f"--- attempt {output.attempt} on {output.worker}")
        # A progress bar begins its line again and again: here each state has a line.
        text = output.text.replace("\r\n", "\n").replace("\r", "\n")
        echo(text, nl=not text.endswith("\n"))
    if not found:
        echo(f"{name}: trial {trial} printed nothing, or that is no longer kept", err=True)


def waste(name: Name, redis: RedisUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show where the machines' time went: useful, and lost by cause and by worker."""
    told = waste_of(_all_of(name, redis).history).as_json()
    if as_json:
        echo_json(told)
        return
    echo(
        f"{name}: {told['useful_s']:.1f} s useful, {told['lost_s']:.1f} s lost "
        f"({100 * told['share_lost']:.1f} %)"
    )
    for title in ("by_cause", "by_worker"):
        for key, seconds in sorted(told[title].items(), key=lambda item: -item[1]):
            n = told["attempts"].get(key)
            echo(f"  {key:<40} {seconds:10.1f} s" + (f"   {n} attempts" if n else ""))


def doctor(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    as_json: AsJson = False,
) -> None:
    """Examine server, broker, experiments and checkpoint stores; a remedy for each fault."""
    at = broker(mqtt, mqtt_ca, KEEPALIVE_S)
    findings: list[Finding] = asyncio.run(examine(resolve(redis), at))
    if as_json:
        echo_json([finding.as_json() for finding in findings])
    else:
        marks = {"ok": "ok ", "warning": "!  ", "fault": "!! "}
        for finding in findings:
            echo(f"{marks[finding.level]} {finding.what}")
            if finding.remedy:
                echo(f"      {finding.remedy}")
    if any(finding.level == "fault" for finding in findings):
        raise typer.Exit(EXPERIMENT_FAILED)
