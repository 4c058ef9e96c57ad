"""The client: what an operator, a script or a page does with experiments, over one store.

A request becomes one message in the experiment's inbox; an actor decides it later, and history says
what became of it. The client does not decide, and it knows no command line and no page.
"""

import getpass
import os
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Literal, Self

from romul_actors.core.amendments import with_changes
from romul_actors.core.bounds import with_bounds
from romul_actors.core.events import Control, Submitted
from romul_actors.core.space import Value
from romul_actors.errors import (
    ExperimentError,
    NoAnswerError,
    OptimizerError,
    SpaceError,
    UnknownExperimentError,
    UnknownSlotError,
)
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.presence import ask
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import Experiment, FloatSpec, IntSpec, from_json
from romul_actors.protocol.messages import MOST_STEPS, encode, request_of
from romul_actors.protocol.optimizer_options import check_ranges, check_sizes
from romul_actors.protocol.plan import check, settings
from romul_actors.protocol.statuses import OVER
from romul_actors.store import Store
from romul_actors.store.opening import open_store


class Client:
    """Submits experiments and controls them.

    As a context manager it closes the store at its end:

        async with Client.connect("redis://127.0.0.1:6379/0") as client:
            await client.submit(experiment)
            await client.pin(experiment.name, slot=3)

    Args:
        store: where the experiments are.
        by: the user, as history names them; the name of the process's user if left out.
        broker: what workers are drained over; without one they cannot be.
    """

    def __init__(
        self, store: Store, *, by: str | None = None, broker: Broker | None = None
    ) -> None:
        self.store = store
        self._by = by
        self._broker = broker

    @classmethod
    def connect(cls, url: str, *, by: str | None = None, broker: Broker | None = None) -> Self:
        """A client of the server at `url`, which is first used by the first call.

        Args:
            url: one of the forms that `store/redis/urls.py` lists.
            by: the user; the name of the process's user if left out.
            broker: what workers are drained over.

        Raises:
            StoreError: the URL has none of these forms.
        """
        return cls(open_store(url), by=by, broker=broker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the store's connections."""
        await self.store.close()

    async def check(self) -> list[str]:
        """Warnings about the store's settings.

        Raises:
            StoreError: the store is unreachable, or would lose data as it is set up.
        """
        return await self.store.check()

    # -- experiments ----------------------------------------------------------------------------

    async def submit(self, experiment: Experiment) -> None:
        """Check an experiment whole, then put it into the store, for any actor and workers.

        Raises:
            ExperimentError: it cannot run as it is declared.
            ExperimentExistsError: there is one of that name.
        """
        check(experiment)
        if experiment.checkpoints is None:
            raise ExperimentError(
                "checkpoints: say where they go (a folder or a URL that all workers reach)"
            )
        await self.store.create(experiment.name, experiment.model_dump_json(), encode(Submitted()))

    async def statuses(self) -> dict[str, str]:
        """Status of every experiment, by name, in order of names."""
        return await self.store.experiments()

    async def status(self, name: str) -> str:
        """Status of an experiment.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        return (await self.store.glance(name)).meta["status"]

    async def spec(self, name: str) -> Experiment:
        """Declaration of an experiment.

        Raises:
            UnknownExperimentError: there is none of that name.
            ExperimentError: the stored text is not one that this version can read.
        """
        return from_json(await self.store.spec(name))

    async def remove(self, name: str) -> None:
        """Remove an experiment with its history and queues; its checkpoints stay.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        if not await self.store.remove(name):
            raise UnknownExperimentError(f"no experiment {name!r}")

    # -- control --------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        """Ask for no more trials to be dispatched; those in training end and count.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        await self._send(name, Control(action="pause", by=self.by))

    async def resume(self, name: str) -> None:
        """Ask a paused experiment to go on, or a failed one to try again.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        await self._send(name, Control(action="resume", by=self.by))

    async def is_halted(self, name: str) -> bool:
        """Whether only `resume` has a search go on: it failed, is paused, or is to be paused."""
        # Read first: what is decided meanwhile shows in the status.
        waiting = map(request_of, (await self.store.outstanding(name)).inbox)
        pauses = any(request is not None and request.action == "pause" for request in waiting)
        return pauses or await self.status(name) in ("paused", "failed")

    async def stop(self, name: str) -> None:
        """Ask an experiment to end for good; its results stay.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        await self._send(name, Control(action="stop", by=self.by))

    async def pin(self, name: str, slot: int) -> None:
        """Ask for a slot to keep its hyperparameters and weights, whatever the others do.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            UnknownSlotError: it has no such slot.
        """
        await self._pin(name, "pin", slot)

    async def unpin(self, name: str, slot: int) -> None:
        """Ask for a pinned slot to take part again.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            UnknownSlotError: it has no such slot.
        """
        await self._pin(name, "unpin", slot)

    async def _pin(self, name: str, action: Literal["pin", "unpin"], slot: int) -> None:
        glance = await self.store.glance(name)
        # Before the actor has decided `submitted` there are none: the declaration says how many.
        n_slots = int(glance.meta.get("slots", 0)) or from_json(glance.meta["spec"]).population
        if not 0 <= slot < n_slots:
            raise UnknownSlotError(f"{name} has no slot {slot}: it has {n_slots}")
        await self.store.send(name, encode(Control(action=action, by=self.by, slot=slot)))

    async def bounds(
        self,
        name: str,
        parameter: str,
        min: float | None = None,  # noqa: A002
        max: float | None = None,  # noqa: A002
    ) -> tuple[float, float]:
        """Ask for a hyperparameter to be searched between other bounds.

        Args:
            name: the experiment.
            parameter: a hyperparameter that is a number.
            min: its least value from now on; None: as before.
            max: its greatest; None: as before.

        Returns:
            Both bounds.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            SpaceError: it has no such hyperparameter, or the bounds do not fit it.
        """
        experiment = await self.spec(name)
        if min is None and max is None:
            raise SpaceError(f"{parameter}: give the least value, the greatest one, or both")
        spec = experiment.space.get(parameter)
        # What is no number, or not there, is refused below.
        before = (spec.min, spec.max) if isinstance(spec, FloatSpec | IntSpec) else (0.0, 1.0)
        both = (before[0] if min is None else min, before[1] if max is None else max)
        await self.store.send(name, encode(self._bounds(experiment, parameter, *both)))
        return both

    def _bounds(self, experiment: Experiment, parameter: str, low: float, high: float) -> Control:
        if not (isfinite(low) and isfinite(high)):
            raise SpaceError(f"{parameter}: min {low!r} and max {high!r} must be finite")
        spec = experiment.space.get(parameter)
        if isinstance(spec, FloatSpec):
            # What a declaration must not say could not be read back.
            spec.model_copy(update={"min": low, "max": high}).parameter(parameter)
        with_bounds(experiment.search_space(), parameter, low, high)
        return Control(action="bounds", by=self.by, parameter=parameter, low=low, high=high)

    async def extend(self, name: str, steps: int) -> None:
        """Ask for an experiment to go on to more steps: a running, finished or stopped one.

        A paused or failed one has them when it is resumed.

        Args:
            name: the experiment.
            steps: how many it has in all from then on.

        Raises:
            UnknownExperimentError: there is none of that name.
            ExperimentError: it has as many already, or there are too many.
        """
        await self.store.send(name, encode(self._extend(await self.spec(name), steps)))

    def _extend(self, experiment: Experiment, steps: int) -> Control:
        name = experiment.name
        if steps <= experiment.steps:
            raise ExperimentError(
                f"{name}: steps: {steps} is not above the {experiment.steps} that it has; give "
                "the number of all steps, those that are done too"
            )
        if steps > MOST_STEPS:
            raise ExperimentError(f"{name}: steps: {steps} is above {MOST_STEPS}")
        return Control(action="extend", by=self.by, steps=steps)

    async def change(
        self,
        name: str,
        *,
        population: int | None = None,
        optimizer: Mapping[str, Value] | None = None,
    ) -> None:
        """Ask for another number of slots, or other constants of the optimizer.

        A search that runs has them at once. One that is paused or has failed adds slots when it
        is resumed.

        Args:
            name: the experiment.
            population: number of slots; None: as many as before.
            optimizer: constants by name, such as `{"factor": 0.5}`.

        Raises:
            UnknownExperimentError: there is none of that name.
            ExperimentError: it has ended, or it cannot be changed so; the message says why.
        """
        if (status := await self.status(name)) in OVER:
            raise ExperimentError(_has_ended(name, status))
        request = self._change(await self.spec(name), population or 0, optimizer or {})
        await self.store.send(name, encode(request))

    def _change(
        self, experiment: Experiment, population: int, constants: Mapping[str, Value]
    ) -> Control:
        name, optimizer = experiment.name, experiment.optimizer.name
        if not population and not constants:
            raise ExperimentError(f"{name}: nothing to change: give a population or constants")
        try:
            check_sizes(optimizer, constants)
            with_changes(settings(experiment, stored=True), population, constants)
            check_ranges(optimizer, constants)
        except (ExperimentError, OptimizerError) as error:
            raise ExperimentError(f"{name}: {error}") from None
        return Control(action="change", by=self.by, population=population, constants=constants)

    async def apply(self, name: str, changes: Changes) -> None:
        """Ask for everything in which a declaration differs from a search's, or for none of it.

        Raises:
            RomulError: what `bounds`, `extend` and `change` raise.
        """
        stored = await self.spec(name)
        # What `extend` asked for before the declaration did is done.
        done = changes.steps == stored.steps and not changes.asked
        steps = None if done else changes.steps
        requests = [
            self._bounds(stored, parameter, low, high)
            for parameter, (low, high) in changes.bounds.items()
        ]
        if steps is not None:
            requests.append(self._extend(stored, steps))
        if changes.population or changes.constants:
            # What has ended can be changed when it has been extended, which is decided first.
            if steps is None and (status := await self.status(name)) in OVER:
                raise ExperimentError(_has_ended(name, status))
            requests.append(self._change(stored, changes.population, changes.constants))
        for request in requests:
            await self.store.send(name, encode(request))

    async def forget_fault(self, name: str) -> None:
        """Forget why no actor could serve an experiment: before another actor tries again.

        What was wrong may be mended since; if it is not, that actor says so again.
        """
        await self.store.set_fault(name, "")

    async def _send(self, name: str, control: Control) -> None:
        # An inbox without an experiment would be read by no actor.
        await self.store.spec(name)
        await self.store.send(name, encode(control))

    # -- workers --------------------------------------------------------------------------------

    async def served_by(self, worker: str) -> list[str]:
        """Names of the experiments that the worker serves."""
        return [name for name in await self.statuses() if worker in await self.store.ages(name)]

    async def drain(
        self, worker: str, *, at_once: bool = False, names: Sequence[str] | None = None
    ) -> list[str]:
        """Have a worker end; the history of the experiments that it serves names the user.

        Args:
            worker: its name.
            at_once: whether it gives its trial back at once, or first ends or saves it.
            names: experiments whose history says so; all that list the worker if left out.

        Returns:
            The experiments whose history says so.

        Raises:
            NoAnswerError: there is no broker, or the worker does not answer.
            UnknownWorkerError: the broker knows other workers only.
            BrokerError: the worker's name cannot stand in a topic.
        """
        if self._broker is None:
            raise NoAnswerError(f"{worker} cannot be drained: this client has no broker")
        # Read first: a worker that has ended is listed nowhere.
        served = list(names) if names is not None else await self.served_by(worker)
        await ask(self._broker, worker, {"do": "stop" if at_once else "drain"})
        event = encode(Control(action="drain", by=self.by, worker=worker))
        for name in served:
            await self.store.send(name, event)
        return served

    # -------------------------------------------------------------------------------------------

    @property
    def by(self) -> str:
        """The user, as history names them."""
        if self._by is None:
            self._by = user()
        return self._by


def user() -> str:
    """The user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user that no file names.
        return f"uid {os.getuid()}"


def _has_ended(name: str, status: str) -> str:
    return (
        f"{name} is {status}: `romul extend {name} --steps N` goes on with it; it can be changed "
        "then"
    )
