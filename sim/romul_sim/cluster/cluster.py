"""A simulated cluster: the real Actor and the real Worker on one memory store, in virtual time.

Only the layers below actors and workers are simulated: the clock, the machines, the network
(`network.py`) and the training (`training.py`). Two simulations use it: machines that come and go
as in a trace (`churn/`), and faults in all parts (`chaos/`).
"""

import asyncio
import contextvars
import math
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
from romul_sim.cluster.invariants import Excuses, InvariantWatch, Violation
from romul_sim.cluster.network import MachineStore, WatchedStore
from romul_sim.cluster.training import Durations, OnSpan, Pace, Saved, SimulatedTrainer
from romul_sim.cluster.virtual_time import Clock, machine_clock, virtual_loop
from romul_workers.tasks.toys import Toy
from romul_workers.worker.loop import Worker
from romul_workers.worker.settings import WorkerSettings


@dataclass(slots=True)
class Process:
    """An actor or a worker on its machine.

    Attributes:
        name: name of the actor or worker.
        store: its connection to the store.
        context: has the machine's clock; calls into the process from outside must run in it.
        task: the task that runs the process.
        stop: set it to end the process in an orderly way.
    """

    name: str
    store: MachineStore
    context: contextvars.Context
    task: asyncio.Task[None]
    stop: asyncio.Event


@dataclass(slots=True)
class WorkerProcess(Process):
    """A worker on its machine.

    Attributes:
        worker: the worker.
        trainer: its simulated trainer.
        pace: the machine's current speed.
    """

    worker: Worker
    trainer: SimulatedTrainer
    pace: Pace

    def announce(self, seconds: float) -> None:
        """Tell the worker that its machine goes in `seconds` seconds."""
        virtual_loop().call_soon(self.worker.announce, seconds, context=self.context)


class Cluster:
    """Searches, the one store that holds them, and the actors and workers that share it.

    Args:
        experiments: the searches.
        excuses: see `InvariantWatch`.

    Attributes:
        excuses: as above.
        checkpoints: all checkpoints that exist, by name.
        watches: the checks of the invariants, by experiment.
        over: done when the simulation must end; raises a `Violation` if one was found.
        background: tasks that are cancelled at the end.
    """

    def __init__(self, experiments: Sequence[Experiment], excuses: Excuses) -> None:
        self.experiments = experiments
        self.excuses = excuses
        self.checkpoints: dict[str, Saved] = {}
        self.watches = {e.name: InvariantWatch(e, self.checkpoints, excuses) for e in experiments}
        self.background: set[asyncio.Task[None]] = set()
        self.numbers = 0
        self.over: asyncio.Future[None]
        self.store: WatchedStore

    async def open(self) -> None:
        """Make the store and submit the searches; must run on the simulation's loop."""
        self.over = asyncio.get_running_loop().create_future()
        self.store = WatchedStore(self.watches, self.on_line)
        for experiment in self.experiments:
            await Client(self.store).submit(experiment)

    def on_line(self, name: str, line: Line) -> None:
        """Called with each line of a search's history when it is committed."""

    def next_number(self) -> int:
        """A number that no process or checkpoint has yet."""
        self.numbers += 1
        return self.numbers

    # -- processes ------------------------------------------------------------------------------

    def start_actor(self, name: str, store: MachineStore, clock: Clock) -> Process:
        """Start an actor on its own machine."""
        actor, stop = Actor(store, name), asyncio.Event()  # type: ignore[arg-type]
        context = on_machine(clock)
        return Process(name, store, context, self.guard(lambda: actor.run(stop), context), stop)

    def start_worker(
        self,
        settings: WorkerSettings,
        toy: Toy,
        durations: Durations,
        *,
        store: MachineStore,
        speed: float,
        clock: Clock,
        on_span: OnSpan | None = None,
    ) -> WorkerProcess:
        """Start a worker on a machine.

        Args:
            settings: the worker's settings; `host` is the machine's name.
            toy: the problem that it trains.
            durations: how long training takes.
            store: its connection to the store.
            speed: speed of the machine, relative to others.
            clock: clock of the machine.
            on_span: called when an attempt begins, ends, or is accounted.
        """
        pace = Pace(speed)
        trainer = SimulatedTrainer(
            machine=settings.host,
            toy=toy,
            durations=durations,
            checkpoints=self.checkpoints,
            watches=self.watches,
            pace=pace,
            numbers=self.next_number,
            on_span=on_span,
        )
        worker, stop = Worker(store, trainer, settings), asyncio.Event()  # type: ignore[arg-type]
        context = on_machine(clock)
        task = self.guard(lambda: worker.run(stop), context)
        return WorkerProcess(settings.name, store, context, task, stop, worker, trainer, pace)

    def guard(
        self, begin: Callable[[], Awaitable[None]], context: contextvars.Context | None = None
    ) -> asyncio.Task[None]:
        """Start a task in a machine's context; without a context it runs in true time.

        Any error of the task ends the simulation, not only a violation: an actor or a worker must
        never end with an error.
        """

        async def watched() -> None:
            try:
                await begin()
            except Exception as error:  # noqa: BLE001
                found = error if isinstance(error, Violation) else Violation(_where(error))
                if not self.over.done():
                    self.over.set_exception(found)

        return asyncio.create_task(watched(), context=context or on_machine(None))

    def freeze(self, process: Process, seconds: float) -> None:
        """Freeze a process and its machine for `seconds`; a longer freeze is not shortened."""
        until_s = virtual_loop().now_s + seconds
        self.excuses.strike(virtual_loop().now_s, until_s, process.name)
        process.store.frozen_until_s = max(until_s, process.store.frozen_until_s)
        if isinstance(process, WorkerProcess):
            process.pace.freeze(until_s)

    def kill(self, process: Process) -> None:
        """Kill a process and all that runs on its machine."""
        self.excuses.strike(virtual_loop().now_s, math.inf, process.name)
        process.store.dead = True
        process.task.cancel()
        self.keep(process.task)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task run in the background; it is cancelled at the end of the simulation."""
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Call `do` after `seconds`."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        self.keep(self.guard(wait))

    # -- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the simulation; no effect if it has ended already."""
        if not self.over.done():
            self.over.set_result(None)

    async def close(self, processes: Iterable[Process], *tasks: asyncio.Task[None]) -> None:
        """Cancel processes, tasks and the background tasks."""
        await cancel(*tasks, *self.background, *(process.task for process in processes))


def on_machine(clock: Clock | None) -> contextvars.Context:
    """A context with a machine's clock; None: with the true time."""
    context = contextvars.copy_context()
    context.run(machine_clock.set, clock)
    return context


def _where(error: Exception) -> str:
    """An error as text, with the file and line that raised it."""
    [*_, place] = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def wrong_clock(rng: Generator, drift: float, ahead_s: float) -> Clock:
    """Draw a machine's clock.

    Args:
        rng: random generator of the clock.
        drift: largest relative error of its rate.
        ahead_s: largest offset at the beginning, in seconds.
    """
    return Clock(1.0 + float(rng.uniform(-drift, drift)), float(rng.uniform(0.0, ahead_s)))
