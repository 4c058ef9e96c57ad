"""A simulated cluster: the real Actor and the real Worker over one memory store, in virtual time.

Only what stands below actors and workers is simulated: the clock, the machines, the network
(`network.py`), and the hours of training (`fakes.py`). On a cluster machines come and go as in a
trace (`simulation.py`), or everything breaks (`chaos/`).
"""

import asyncio
import contextvars
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.random import Generator

from romul_actors.actor.loop import Actor
from romul_actors.client import Client
from romul_actors.core.history import Line
from romul_actors.protocol.experiment import Experiment
from romul_actors.waiting import cancel
from romul_sim.fakes import Durations, Pace, Saved, SimulatedTrainer, Span
from romul_sim.invariants import InvariantWatch, Violation
from romul_sim.network import MachineStore, WatchedStore
from romul_sim.virtual_time import Clock, machine_clock
from romul_workers.tasks.toys import Toy
from romul_workers.worker import Worker, WorkerSettings


@dataclass(slots=True)
class Process:
    """An actor or a worker on its machine.

    Attributes:
        store: its way to the store.
        task: what runs it.
        stop: when it is set, the process ends in order.
    """

    name: str
    store: MachineStore
    task: asyncio.Task[None]
    stop: asyncio.Event


@dataclass(slots=True)
class WorkerProcess(Process):
    """A worker on its machine.

    Attributes:
        pace: the machine's speed at present.
        speed: the same when it is not frozen.
    """

    worker: Worker
    trainer: SimulatedTrainer
    pace: Pace
    speed: float


class Cluster:
    """Searches, the one store that holds them, and the actors and workers that share it.

    Args:
        experiments: the searches.
        excused: see `InvariantWatch`.

    Attributes:
        checkpoints: all that exist.
        watches: by experiment, what checks the invariants.
        over: is done when the simulation must end; raises the `Violation` that was found.
        background: tasks that are cancelled at the end.
    """

    def __init__(self, experiments: Sequence[Experiment], excused: set[str] | None) -> None:
        self.experiments = experiments
        self.checkpoints: dict[str, Saved] = {}
        self.watches = {e.name: InvariantWatch(e, self.checkpoints, excused) for e in experiments}
        self.background: set[asyncio.Task[None]] = set()
        self.numbers = 0
        self.over: asyncio.Future[None]
        self.store: WatchedStore

    async def open(self) -> None:
        """Make the store, and submit the searches to it; on the loop of the simulation."""
        self.over = asyncio.get_running_loop().create_future()
        self.store = WatchedStore(self.watches, self.on_line)
        for experiment in self.experiments:
            await Client(self.store).submit(experiment)

    def on_line(self, name: str, line: Line) -> None:
        """Look at a line of a search's history, as soon as it is committed."""

    def next_number(self) -> int:
        """A number that no process and no checkpoint has yet."""
        self.numbers += 1
        return self.numbers

    # -- processes ------------------------------------------------------------------------------

    def start_actor(self, name: str, store: MachineStore, clock: Clock) -> Process:
        """Start an actor on a machine of its own."""
        actor, stop = Actor(store, name), asyncio.Event()  # type: ignore[arg-type]
        return Process(name, store, self.guard(lambda: actor.run(stop), clock), stop)

    def start_worker(
        self,
        settings: WorkerSettings,
        toy: Toy,
        durations: Durations,
        *,
        store: MachineStore,
        speed: float,
        rng: Generator,
        clock: Clock,
        spans: Callable[[Span], None] | None = None,
    ) -> WorkerProcess:
        """Start a worker on a machine.

        Args:
            settings: the worker's own; its `host` is the machine.
            toy: what it trains.
            durations: how long that takes.
            store: its way to the store.
            speed: of the machine.
            rng: of the durations.
            clock: of the machine.
            spans: is called when an attempt begins and when it ends.
        """
        pace = Pace(speed)
        trainer = SimulatedTrainer(
            machine=settings.host,
            toy=toy,
            durations=durations,
            checkpoints=self.checkpoints,
            watches=self.watches,
            pace=pace,
            rng=rng,
            numbers=self.next_number,
            spans=spans,
        )
        worker, stop = Worker(store, trainer, settings), asyncio.Event()  # type: ignore[arg-type]
        task = self.guard(lambda: worker.run(stop), clock)
        return WorkerProcess(settings.name, store, task, stop, worker, trainer, pace, speed)

    def guard(
        self, begin: Callable[[], Awaitable[None]], clock: Clock | None = None
    ) -> asyncio.Task[None]:
        """Start a task with a clock of its own.

        A violation in it ends the simulation, and so does any other error: an actor or a worker
        must end with none, whatever is done to it.
        """

        async def watched() -> None:
            try:
                await begin()
            except Exception as error:  # noqa: BLE001
                found = error if isinstance(error, Violation) else Violation(_where(error))
                if not self.over.done():
                    self.over.set_exception(found)

        context = contextvars.copy_context()
        context.run(machine_clock.set, clock)
        return asyncio.create_task(watched(), context=context)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task run in the background until its end or that of the simulation."""
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something later."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        self.keep(asyncio.create_task(wait()))

    # -- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the simulation; without an effect when it has ended already."""
        if not self.over.done():
            self.over.set_result(None)

    async def close(self, processes: Iterable[Process], *tasks: asyncio.Task[None]) -> None:
        """End processes, tasks and what runs in the background."""
        await cancel(*tasks, *self.background, *(process.task for process in processes))


def _where(error: Exception) -> str:
    """An error with the place that it comes from."""
    [*_, place] = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def wrong_clock(rng: Generator, drift: float, ahead_s: float) -> Clock:
    """Draw a machine's clock.

    Args:
        rng: of the clock.
        drift: up to this share it is too fast or too slow.
        ahead_s: up to so many seconds it is ahead at the beginning.
    """
    return Clock(1.0 + float(rng.uniform(-drift, drift)), float(rng.uniform(0.0, ahead_s)))
