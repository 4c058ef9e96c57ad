"""The client through which commands, the dashboard and programs submit and control experiments.

A request is one message in the inbox of an experiment. An actor decides it later, and the history
records the outcome. The client itself decides nothing, and knows no command line and no dashboard.
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
from romul_actors.mqtt.topics import ask
from romul_actors.protocol.checkpoint_folder import check_folder
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import Experiment, FloatSpec, IntSpec, from_json
from romul_actors.protocol.messages import MOST_STEPS, encode, request_of
from romul_actors.protocol.optimizer_options import check_ranges, check_sizes
from romul_actors.protocol.plan import check, settings
from romul_actors.protocol.statuses import OVER
from romul_actors.store import Store
from romul_actors.store.opening import open_store


class Client:
    """Submits and controls experiments; the methods that control call them searches.

    As a context manager, the client closes the store at the end of the block::

        async with Client.connect("redis://127.0.0.1:6379/0") as client:
            await client.submit(experiment)
            await client.pin(experiment.name, slot=3)

    Args:
        store: store that holds the experiments.
        by: user name to record in the history. Default: the user of the process.
        broker: broker through which workers are drained. Without one, `drain` is not available.
    """

    def __init__(
        self, store: Store, *, by: str | None = None, broker: Broker | None = None
    ) -> None:
        self.store = store
        self._by = by
        self._broker = broker

    @classmethod
    def connect(cls, url: str, *, by: str | None = None, broker: Broker | None = None) -> Self:
        """Create a client for the server at `url`. The first request opens the connection.

        Args:
            url: URL of the server, in one of the forms listed in `store/redis/urls.py`.
            by: user name to record in the history. Default: the user of the process.
            broker: broker through which workers are drained.

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
        """Check the configuration of the store, and return warnings.

        Raises:
            StoreError: the store is unreachable, or its configuration would lose data.
        """
        return await self.store.check()

    # -- experiments ----------------------------------------------------------------------------

    async def submit(self, experiment: Experiment) -> None:
        """Check an experiment, then store it so that actors and workers can run it.

        Raises:
            ExperimentError: the declaration is invalid, or the path of its checkpoints is relative:
                it would be another folder for each worker.
            ExperimentExistsError: there is already an experiment of that name.
        """
        check(experiment)
        check_folder(experiment.checkpoints)
        await self.store.create(experiment.name, experiment.model_dump_json(), encode(Submitted()))

    async def statuses(self) -> dict[str, str]:
        """The status of every search, by name, sorted by name."""
        return await self.store.experiments()

    async def status(self, name: str) -> str:
        """Status of a search.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        return (await self.store.glance(name)).meta["status"]

    async def spec(self, name: str) -> Experiment:
        """Declaration of an experiment.

        Raises:
            UnknownExperimentError: there is no search of that name.
            ExperimentError: this version cannot read the stored declaration.
        """
        return from_json(await self.store.spec(name))

    async def remove(self, name: str) -> None:
        """Remove a search, its history and its queues. Its checkpoints are kept.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        if not await self.store.remove(name):
            raise UnknownExperimentError(f"no experiment {name!r}")

    # -- control --------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        """Pause a search: no new trial starts. Trials that are running finish and count.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        await self._send(name, Control(action="pause", by=self.by))

    async def resume(self, name: str) -> None:
        """Resume a paused search, or retry a failed one.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        await self._send(name, Control(action="resume", by=self.by))

    async def is_halted(self, name: str) -> bool:
        """Whether only `resume` continues an experiment: it failed, is paused, or will be."""
        # The inbox is read first: a request that is decided meanwhile shows in the status.
        waiting = map(request_of, (await self.store.outstanding(name)).inbox)
        pauses = any(request is not None and request.action == "pause" for request in waiting)
        return pauses or await self.status(name) in ("paused", "failed")

    async def stop(self, name: str) -> None:
        """Stop a search. Its results are kept.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        await self._send(name, Control(action="stop", by=self.by))

    async def pin(self, name: str, slot: int) -> None:
        """Make a slot keep its hyperparameters and weights, whatever the other slots do.

        Raises:
            UnknownExperimentError: there is no search of that name.
            UnknownSlotError: the search has no such slot.
        """
        await self._pin(name, "pin", slot)

    async def unpin(self, name: str, slot: int) -> None:
        """Undo `pin`: the slot takes part in decisions again.

        Raises:
            UnknownExperimentError: there is no search of that name.
            UnknownSlotError: the search has no such slot.
        """
        await self._pin(name, "unpin", slot)

    async def _pin(self, name: str, action: Literal["pin", "unpin"], slot: int) -> None:
        glance = await self.store.glance(name)
        # There are no slots before `submitted` is decided: their number is in the declaration.
        n_slots = int(glance.meta.get("slots", 0)) or from_json(glance.meta["spec"]).population
        if not 0 <= slot < n_slots:
            raise UnknownSlotError(f"{name} has no slot {slot}: it has {n_slots} slots")
        await self.store.send(name, encode(Control(action=action, by=self.by, slot=slot)))

    async def bounds(
        self,
        name: str,
        parameter: str,
        min: float | None = None,  # noqa: A002
        max: float | None = None,  # noqa: A002
    ) -> tuple[float, float]:
        """Change the bounds of a hyperparameter from now on.

        Args:
            name: name of the search.
            parameter: name of a numeric hyperparameter.
            min: new lower bound. None (the default) keeps the old one.
            max: new upper bound. None (the default) keeps the old one.

        Returns:
            The lower and the upper bound that were requested.

        Raises:
            UnknownExperimentError: there is no search of that name.
            SpaceError: the search has no such hyperparameter, or the bounds do not fit it.
        """
        experiment = await self.spec(name)
        if min is None and max is None:
            raise SpaceError(f"{parameter}: give min, max, or both")
        spec = experiment.space.get(parameter)
        # `_bounds` rejects hyperparameters that are unknown or not numeric.
        before = (spec.min, spec.max) if isinstance(spec, FloatSpec | IntSpec) else (0.0, 1.0)
        both = (before[0] if min is None else min, before[1] if max is None else max)
        await self.store.send(name, encode(self._bounds(experiment, parameter, *both)))
        return both

    def _bounds(self, experiment: Experiment, parameter: str, low: float, high: float) -> Control:
        if not (isfinite(low) and isfinite(high)):
            raise SpaceError(f"{parameter}: min {low!r} and max {high!r} must be finite")
        spec = experiment.space.get(parameter)
        if isinstance(spec, FloatSpec):
            # The bounds must be valid in a declaration, or it could not be read back.
            spec.model_copy(update={"min": low, "max": high}).parameter(parameter)
        with_bounds(experiment.search_space(), parameter, low, high)
        return Control(action="bounds", by=self.by, parameter=parameter, low=low, high=high)

    async def extend(self, name: str, steps: int) -> None:
        """Extend a search to `steps` steps in total.

        A finished or stopped search runs again. A paused or failed one takes the new number of
        steps, but continues only after `resume`.

        Args:
            name: name of the search.
            steps: new total number of steps, including those already done.

        Raises:
            UnknownExperimentError: there is no search of that name.
            ExperimentError: the search already has that many steps, or the number is too large.
        """
        await self.store.send(name, encode(self._extend(await self.spec(name), steps)))

    def _extend(self, experiment: Experiment, steps: int) -> Control:
        name = experiment.name
        if steps <= experiment.steps:
            raise ExperimentError(
                f"{name}: steps: {steps} is not above the current {experiment.steps}; give "
                "the new total, including the steps already done"
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
        """Change the number of slots or the constants of the optimizer.

        If the search is paused or has failed, new slots are added only when it is resumed.

        Args:
            name: name of the search.
            population: new number of slots; None (the default) keeps it. The worst slots are
                parked, or new slots are forked from good ones.
            optimizer: new constants by name, such as `{"factor": 0.5}`; None keeps them.

        Raises:
            UnknownExperimentError: there is no search of that name.
            ExperimentError: the search has ended, or does not allow the change.
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
        """Request all changes that make a stored experiment match a new declaration.

        If one of them is invalid, none is requested.

        Raises:
            RomulError: see `bounds`, `extend` and `change`.
        """
        stored = await self.spec(name)
        # An earlier `extend` may already have requested these steps.
        done = changes.steps == stored.steps and not changes.asked
        steps = None if done else changes.steps
        requests = [
            self._bounds(stored, parameter, low, high)
            for parameter, (low, high) in changes.bounds.items()
        ]
        if steps is not None:
            requests.append(self._extend(stored, steps))
        if changes.population or changes.constants:
            # An experiment that has ended can be changed if it is extended first.
            if steps is None and (status := await self.status(name)) in OVER:
                raise ExperimentError(_has_ended(name, status))
            requests.append(self._change(stored, changes.population, changes.constants))
        for request in requests:
            await self.store.send(name, encode(request))

    async def forget_fault(self, name: str) -> None:
        """Clear the stored reason why no actor could serve an experiment.

        The cause may have been fixed. If not, the next actor stores the reason again.
        """
        await self.store.set_fault(name, "")

    async def _send(self, name: str, control: Control) -> None:
        # No actor would read the inbox of an experiment that does not exist.
        await self.store.spec(name)
        await self.store.send(name, encode(control))

    # -- workers --------------------------------------------------------------------------------

    async def served_by(self, worker: str) -> list[str]:
        """Names of the experiments that the worker serves."""
        return [name for name in await self.statuses() if worker in await self.store.ages(name)]

    async def drain(
        self, worker: str, *, at_once: bool = False, names: Sequence[str] | None = None
    ) -> list[str]:
        """Make a worker end, and record the request in the history of its searches.

        Args:
            worker: name of the worker.
            at_once: whether the worker gives its trial back immediately; otherwise it finishes or
                saves the trial first.
            names: searches whose history records it. Default: all that the worker serves.

        Returns:
            The searches whose history records the request.

        Raises:
            NoAnswerError: there is no broker, or the worker does not answer.
            UnknownWorkerError: the broker knows no worker of that name.
            BrokerError: the worker's name cannot be part of a topic.
        """
        if self._broker is None:
            raise NoAnswerError(f"{worker} cannot be drained: this client has no broker")
        # Read before the request: a worker that has ended is no longer listed.
        served = list(names) if names is not None else await self.served_by(worker)
        await ask(self._broker, worker, {"do": "stop" if at_once else "drain"})
        event = encode(Control(action="drain", by=self.by, worker=worker))
        for name in served:
            await self.store.send(name, event)
        return served

    # -------------------------------------------------------------------------------------------

    @property
    def by(self) -> str:
        """The user name that is recorded in the history."""
        if self._by is None:
            self._by = user()
        return self._by


def user() -> str:
    """Name of the user that runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user without an entry in the password database.
        return f"uid {os.getuid()}"


def _has_ended(name: str, status: str) -> str:
    again = f"`romul extend {name} --steps N`"
    return f"{name} is {status}: continue it first with {again}, then change it"
