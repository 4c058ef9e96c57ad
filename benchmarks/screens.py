"""Measure the cost of a refresh of `romul top` and of the dashboard, for a large population.

    python benchmarks/screens.py --slots 1000 --steps 100

A real server holds the population and its whole history. Measured are the client's CPU time for a
refresh, as a share of one core at the default intervals, and the server's time (`INFO
commandstats`). Separate figures give the client's CPU time for the dashboard's first refresh, which
reads the whole history, for the lines that `romul explain` reads for the latest trial, and for the
whole history, which `romul report` reads. The peer is a pipeline with `HGETALL` for each slot, as a
simple script would do it. Prints one JSON line.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from numpy.random import default_rng

from romul_actors.cli.commands.top import Screen
from romul_actors.cli.output.printing import Console
from romul_actors.client import Client
from romul_actors.core.history import Line, SearchStarted, TrialCreated, TrialReported, to_json
from romul_actors.core.population import Counts, Population
from romul_actors.core.slot import Outcome, Slot
from romul_actors.dashboard import charts
from romul_actors.dashboard.feed import Feed
from romul_actors.dashboard.feeds import REFRESH_S
from romul_actors.dashboard.page import CHARTS_S
from romul_actors.local.redis_server import embedded_server
from romul_actors.observe.stored_history import read_descent, read_history
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import text, write_meta, write_slot
from romul_actors.store import Commit
from romul_actors.store.redis import RedisStore

NAME = "bench"
TOP_S = 2.0
REPEATS = 15
WORKERS = 200


def experiment(slots: int, steps: int) -> Experiment:
    """Declare the search whose population is shown."""
    space = {f"x{i}": FloatSpec(type="float", min=0.0, max=1.0) for i in range(8)}
    return Experiment(
        name=NAME,
        task="none",
        space=dict(space),
        population=slots,
        steps=steps + 1,
        checkpoints="/nowhere",
        history_keep=10**7,
    )


def trial_lines(
    slot: int, step: int, parent: str | None, values: dict[str, float], loss: float
) -> list[Line]:
    """The lines of history of a successful trial."""
    trial, at_ms = f"{slot}-{step}", 1000 * step
    created = TrialCreated(
        at_ms=at_ms,
        trial=trial,
        slot=slot,
        step=step,
        parent=parent,
        hyperparameters=values,
        vector=tuple(values.values()),
        seed=1,
        why={"rule": "mutated", "rank": 0.5, "known": 8, "pool": 8},
    )
    reported = TrialReported(
        at_ms=at_ms + 900,
        trial=trial,
        attempt=1,
        worker=f"w{slot % WORKERS}",
        slot=slot,
        step=step,
        value=loss,
        checkpoint=f"{trial}-1",
        seconds=0.9,
    )
    return [created, reported]


async def fill(store: RedisStore, declared: Experiment, steps: int) -> None:
    """Put a population and its history into the store, with a commit for each step."""
    rng, core = default_rng(0), settings(declared)
    await Client(store).submit(declared)
    entries = [entry.id for entry in await store.read([NAME], "a", 10, 0)]
    version = (await store.load(NAME)).version
    names = list(declared.space)
    for step in range(steps):
        lines: list[Line] = [] if step else [SearchStarted(at_ms=0)]
        slots = []
        for index in range(declared.population):
            vector = tuple(rng.random(len(names)).tolist())
            parent = None if not step else f"{index}-{step - 1}"
            if step and rng.random() < 0.125:  # noqa: PLR2004
                parent = f"{rng.integers(declared.population)}-{step - 1}"
            loss = float(rng.random()) / (step + 1)
            lines += trial_lines(index, step, parent, dict(zip(names, vector, strict=True)), loss)
            outcome = Outcome(loss, vector, f"{index}-{step}-1")
            slots.append(Slot(index=index, vector=vector, step=step + 1, outcomes={step: outcome}))
        done = declared.population * (step + 1)
        counts = Counts(created=done + declared.population, reported=done)
        population = Population(settings=core, status="running", slots=tuple(slots), counts=counts)
        commit = Commit(
            version,
            entries,
            write_meta(population, "loss"),
            {slot.index: write_slot(slot, core, "loss") for slot in slots},
            history=[text(to_json(line)) for line in lines],
            history_keep=10**7,
            nonce=str(step),
        )
        committed = await store.commit(NAME, "a", commit)
        if committed is None:
            raise RuntimeError(f"step {step} was not committed: its version had moved on")
        version, entries = committed.version, []
    for number in range(WORKERS):
        await store.present([NAME], f"w{number}", {"state": "training", "trial": f"{number}-1"})


async def server_us(store: RedisStore) -> float:
    """Time that the server has spent in commands so far, in microseconds."""
    stats = await store.connection.client.info("commandstats")
    return float(sum(row["usec"] for name, row in stats.items() if "info" not in name))


async def measure(store: RedisStore, refresh: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Medians of a refresh: CPU time of this process, and time in the server, in seconds."""
    here, there = [], []
    for _ in range(REPEATS):
        before, began = await server_us(store), time.process_time()
        await refresh()
        here.append(time.process_time() - began)
        there.append((await server_us(store) - before) / 1e6)
    return median(here), median(there)


async def spent(reading: Awaitable[Any]) -> float:
    """CPU time of this process for one call, in seconds."""
    began = time.process_time()
    await reading
    return time.process_time() - began


async def run(slots: int, steps: int) -> dict[str, Any]:
    """Fill a server, and measure all kinds of refresh."""
    declared = experiment(slots, steps)
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder)) as url:
            store = RedisStore(url)
            await fill(store, declared, steps)
            screen, feed = Screen(NAME), Feed(store, NAME)
            console = Console(file=open("/dev/null", "w"), width=140)  # noqa: PTH123, SIM115, ASYNC230

            async def top() -> None:
                console.print(screen.render(await screen.refresh(store)))

            async def dashboard() -> None:
                await feed.refresh()
                json.dumps(charts.rows(feed))

            async def script() -> None:
                async with store.connection.client.pipeline(transaction=False) as pipeline:
                    for index in range(slots):
                        pipeline.hgetall(f"romul:{{{NAME}}}:slot:{index}")
                    await pipeline.execute()

            await top()
            first_s = await spent(dashboard())
            trials = (await screen.refresh(store)).counts["reported"]
            if not trials == len(feed.results) == slots * steps:
                raise RuntimeError(f"the server holds {trials} trials, not {slots * steps}")
            top_here, top_there = await measure(store, top)
            feed_here, feed_there = await measure(store, dashboard)
            script_here, script_there = await measure(store, script)
            began = time.process_time()
            json.dumps(charts.metric(feed, declared))
            chart_s = time.process_time() - began
            explain_s = await spent(read_descent(store, NAME, f"0-{steps - 1}", generations=1))
            history_s = await spent(read_history(store, NAME))
            await store.close()
    return {
        "benchmark": "screens",
        "slots": slots,
        "trials": trials,
        "top_core_share": round(top_here / TOP_S, 4),
        "top_server_ms": round(1000 * top_there, 2),
        "dashboard_core_share": round(feed_here / REFRESH_S + chart_s / CHARTS_S, 4),
        "dashboard_server_ms": round(1000 * feed_there, 2),
        "dashboard_first_look_s": round(first_s, 2),
        "dashboard_chart_ms": round(1000 * chart_s, 1),
        "explain_ms": round(1000 * explain_s, 1),
        "history_s": round(history_s, 2),
        "script_core_share": round(script_here / TOP_S, 4),
        "script_server_ms": round(1000 * script_there, 2),
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(run(given.slots, given.steps))))


if __name__ == "__main__":
    main()
