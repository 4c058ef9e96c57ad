"""Controls searches from a program: pause, resume, stop, pin, bounds and so on."""

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from romul.blocking import to_the_end
from romul_actors.client import Client as AsyncClient
from romul_actors.local.address import resolve
from romul_actors.store.redis.urls import hide_password

T = TypeVar("T")


class Client:
    """Controls the searches on a server or in a running local run.

    The methods send the same requests as the corresponding commands::

        romul.Client("redis://127.0.0.1:6379/0").pause("mine")
        romul.Client("runs/mine").bounds("mine", "lr", 1e-4, 0.1)

    Methods that change a search send a request and return once it is queued. An actor decides the
    request later, and the history records the outcome. Each call opens and closes a connection. A
    program with an event loop that makes many calls should use `romul_actors.client.Client`, whose
    methods are coroutines.

    Args:
        redis: URL of the server, or folder of a local run that is running.
        by: user name to record in the history. Default: the user of the process.
    """

    def __init__(self, redis: str | Path, *, by: str | None = None) -> None:
        self._redis = str(redis)
        self._by = by

    def statuses(self) -> dict[str, str]:
        """The status of every search, by name.

        Raises:
            StoreUnavailableError: the server does not answer.
        """
        return self._call(lambda client: client.statuses())

    def pause(self, name: str) -> None:
        """Pause a search: no new trial starts. Trials that are running finish and count.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        self._call(lambda client: client.pause(name))

    def resume(self, name: str) -> None:
        """Resume a paused search, or retry a failed one.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        self._call(lambda client: client.resume(name))

    def stop(self, name: str) -> None:
        """Stop a search. Its results are kept.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        self._call(lambda client: client.stop(name))

    def pin(self, name: str, slot: int) -> None:
        """Make a slot keep its hyperparameters and weights, whatever the other slots do.

        Raises:
            UnknownExperimentError: there is no search of that name.
            UnknownSlotError: the search has no such slot.
        """
        self._call(lambda client: client.pin(name, slot))

    def unpin(self, name: str, slot: int) -> None:
        """Undo `pin`: the slot takes part in decisions again.

        Raises:
            UnknownExperimentError: there is no search of that name.
            UnknownSlotError: the search has no such slot.
        """
        self._call(lambda client: client.unpin(name, slot))

    def bounds(
        self,
        name: str,
        parameter: str,
        min: float | None = None,  # noqa: A002
        max: float | None = None,  # noqa: A002
    ) -> None:
        """Change the bounds of a hyperparameter from now on.

        Args:
            name: name of the search.
            parameter: name of the hyperparameter.
            min: new lower bound. None (the default) keeps the old one.
            max: new upper bound. None (the default) keeps the old one.

        Raises:
            UnknownExperimentError: there is no search of that name.
            SpaceError: the search has no such hyperparameter, or the bounds do not fit it.
        """
        self._call(lambda client: client.bounds(name, parameter, min, max))

    def extend(self, name: str, steps: int) -> None:
        """Extend a search to `steps` steps in total, counting those already done.

        A finished or stopped search runs again. A paused or failed search takes the new number of
        steps, but continues only after `resume`.

        Raises:
            UnknownExperimentError: there is no search of that name.
            ExperimentError: the search already has that many steps.
        """
        self._call(lambda client: client.extend(name, steps))

    def change(
        self,
        name: str,
        *,
        population: int | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ) -> None:
        """Change the number of slots or the constants of the optimizer.

        Args:
            name: name of the search.
            population: new number of slots. If it is lower, the worst slots are parked; if it is
                higher, new slots are forked from good ones. None (the default) changes nothing.
            optimizer: new constants by name, such as `{"factor": 0.5}`. None (the default) changes
                nothing.

        Raises:
            UnknownExperimentError: there is no search of that name.
            ExperimentError: the search has ended, or does not allow the change.
        """
        self._call(lambda client: client.change(name, population=population, optimizer=optimizer))

    def remove(self, name: str) -> None:
        """Remove a search and its history. Its checkpoints are kept.

        Raises:
            UnknownExperimentError: there is no search of that name.
        """
        self._call(lambda client: client.remove(name))

    def __repr__(self) -> str:
        return f"Client({hide_password(self._redis)!r})"

    def _call(self, action: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        async def act() -> T:
            async with opened(self._redis, by=self._by) as client:
                return await action(client)

        return to_the_end(act())


def opened(redis: str, *, by: str | None = None) -> AsyncClient:
    """A client for a server, to be used in an `async with` block.

    Args:
        redis: URL of the server, or folder of a local run that is running.
        by: user name to record in the history. Default: the user of the process.

    Raises:
        StoreError: no server runs for the folder, the URL is invalid, or its password cannot be
            read.
    """
    return AsyncClient.connect(resolve(redis), by=by)
