"""Runs one drill, from the first process to the audit."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from romul_actors.client import Client
from romul_actors.errors import ExperimentExistsError, StoreError
from romul_actors.observe.stored_history import read_history
from romul_actors.observe.stored_population import read_population
from romul_actors.protocol.experiment import Experiment
from romul_actors.store.redis import RedisStore
from romul_actors.waiting import cancel
from romul_sim.drill.audit import Verdict, audit
from romul_sim.drill.injector import FaultInjector, small_disk
from romul_sim.drill.processes import GRACE_S, Processes, Services
from romul_sim.drill.schedule import LEASE_S
from romul_sim.faults import Fault
from romul_workers.checkpoints.storage import Checkpoints

AFFINITY_S = 0.5
"""How long a trial waits for the worker that has its parent in memory, in seconds. Long, so that
faults strike during offers."""
SLOW_DISK = "romul_sim.drill.slow_disk"
"""Module that runs every second worker, whose checkpoints take long to store."""
SETTLE_S = 150.0
"""Longest time from the last fault to the end of the search, in seconds."""


class Drill:
    """One drill.

    Args:
        folder: an empty or new folder for all files.
        faults: the schedule.
        workers, actors: number of each.
        seed: seed of the searches.
        progress: called after each fault with the number of faults so far.
    """

    def __init__(
        self,
        folder: Path,
        faults: Sequence[Fault],
        workers: int,
        actors: int,
        seed: int,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._faults = faults
        self._seed = seed
        self._progress = progress
        self._workers = workers
        self._actors = actors
        self._affinity: Counter[str] = Counter()

    async def run(self) -> dict[str, Any]:
        """Run searches until all faults were injected, and audit them.

        Returns:
            JSON values: `faults`, `lost`, `doubled`, `invariants_broken`, `completed` and more.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        place = self._folder / "checkpoints"
        with small_disk(place) as small:
            async with contextlib.AsyncExitStack() as stack:
                services = await stack.enter_async_context(Services(self._folder).started())
                slow = {f"worker-{n}": SLOW_DISK for n in range(0, self._workers, 2)}
                processes = Processes(self._folder, services.environment, self._commands(), slow)
                injector = FaultInjector(place, services, processes, can_fill=small)
                stack.push_async_callback(injector.undo)
                await stack.enter_async_context(processes.kept())
                verdicts = await self._searches(services.urls["server"], injector)
        broken = [text for verdict in verdicts for text in verdict.broken]
        causes: Counter[str] = sum((verdict.causes for verdict in verdicts), Counter())
        return {
            "faults": sum(injector.played.values()),
            "lost": sum(verdict.lost for verdict in verdicts),
            "doubled": sum(verdict.doubled for verdict in verdicts),
            "invariants_broken": len(broken),
            "completed": all(verdict.completed for verdict in verdicts),
            "broken": broken,
            "trials": sum(verdict.trials for verdict in verdicts),
            "searches": len(verdicts),
            "by_kind": dict(sorted(injector.played.items())),
            "skipped": dict(sorted(injector.skipped.items())),
            "causes": dict(sorted(causes.items())),
            "offers": self._affinity["offers"],
            "offers_released": self._affinity["released"],
            "starts": sum(processes.starts.values()),
            "wall_s": round(loop.time() - began, 1),
        }

    def _commands(self) -> dict[str, Sequence[str]]:
        commands: dict[str, Sequence[str]] = {f"actor-{n}": ["actor"] for n in range(self._actors)}
        worker = ["worker", f"--grace={GRACE_S}", "--garbage-s=5", f"--affinity-s={AFFINITY_S}"]
        return commands | {f"worker-{n}": [*worker, "--overlap"] for n in range(self._workers)}

    async def _searches(self, url: str, injector: FaultInjector) -> list[Verdict]:
        """Run one search after the other until all faults were injected; then audit them."""
        playing = asyncio.create_task(injector.play(self._faults, self._progress))
        names: list[str] = []
        store = RedisStore(url)
        client = Client(store)
        try:
            while not playing.done():
                experiment = self._experiment(len(names))
                names.append(experiment.name)
                await _patiently(lambda e=experiment: client.submit(e))  # type: ignore[misc]
                await self._ended(store, experiment.name, playing)
            await playing
            for name in names:
                self._affinity += Counter(asdict(await store.affinity(name)))
            return [await self._judge(store, self._experiment(n)) for n in range(len(names))]
        finally:
            await cancel(playing)
            await store.close()

    def _experiment(self, number: int) -> Experiment:
        return Experiment.model_validate(
            {
                "name": f"drill-{number}",
                "task": "romul_workers.tasks.toys:quadratic",
                "space": {
                    "rate": {"type": "float", "min": 1e-4, "max": 0.1, "scale": "log"},
                    "momentum": {"type": "float", "min": 0.0, "max": 0.9},
                },
                "population": 8,
                "steps": 40,
                "budget": 20,
                "seed": self._seed + number,
                "constants": {"seconds": 0.3},
                "elasticity": {"max": 12},
                "timeouts": {"lease_s": LEASE_S, "trial_s": 30, "quorum_s": 5},
                "max_losses": 100,
                "checkpoints": str((self._folder / "checkpoints").resolve()) + f"/{number}",
            }
        )

    async def _ended(self, store: RedisStore, name: str, playing: asyncio.Task[None]) -> None:
        """Wait until a search has ended, but at most `SETTLE_S` after the last fault."""
        loop = asyncio.get_running_loop()
        limit = None
        while limit is None or loop.time() < limit:
            with contextlib.suppress(StoreError):
                if (await store.experiments()).get(name) in ("finished", "failed"):
                    return
            if playing.done() and limit is None:
                limit = loop.time() + SETTLE_S
            await asyncio.sleep(0.2)

    async def _judge(self, store: RedisStore, experiment: Experiment) -> Verdict:
        _, population = await read_population(store, experiment.name)
        # A frozen worker may still hold a trial that no longer counts.
        for _ in range(int(10 * LEASE_S)):
            depths = await store.depths(experiment.name)
            if depths["trials"] == depths["inbox"] == 0:
                break
            await asyncio.sleep(0.5)
        lines = await read_history(store, experiment.name)
        place = Checkpoints(str(experiment.checkpoints), self._folder / "scratch")
        return audit(experiment, population, lines, depths, place)


async def _patiently(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat a call until the server is back."""
    while True:
        try:
            await call()
        except ExperimentExistsError:
            # An earlier call created it, but its answer was lost.
            return
        except StoreError:
            await asyncio.sleep(0.5)
        else:
            return
