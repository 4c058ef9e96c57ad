"""An operator's actions, from a program: pause, resume, stop, pin, bounds and the like."""

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from romul.blocking import to_the_end
from romul_actors.client import Client as AsyncClient
from romul_actors.local.address import resolve
from romul_actors.store.redis.urls import hide_password

T = TypeVar("T")


class Client:
    """Controls the searches of a server, as the command line does.

    Of a server, or of a local run that is under way::

        romul.Client("redis://127.0.0.1:6379/0").pause("mine")
        romul.Client("runs/mine").bounds("mine", "lr", 1e-4, 0.1)

    An action is a request: the call returns when it is queued. An actor decides it later, and the
    history says what became of it. Each call opens a connection and closes it; for many calls in a
    program with an event loop there is `romul_actors.client.Client`, whose methods are awaited.

    Args:
        redis: the server's URL, or the folder of a local run that is under way.
        by: the user, as history names them; the process's user if left out.
    """

    def __init__(self, redis: str | Path, *, by: str | None = None) -> None:
        self._redis = str(redis)
        self._by = by

    def statuses(self) -> dict[str, str]:
        """Status of every search, by name.

        Raises:
            StoreUnavailableError: the server does not answer.
        """
        return self._call(lambda client: client.statuses())

    def pause(self, name: str) -> None:
        """Hand out no more trials; those in training end, and count.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        self._call(lambda client: client.pause(name))

    def resume(self, name: str) -> None:
        """Go on with a paused search, or try a failed one again.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        self._call(lambda client: client.resume(name))

    def stop(self, name: str) -> None:
        """End a search for good; what it found stays.

        Raises:
            UnknownExperimentError: there is none of that name.
        """
        self._call(lambda client: client.stop(name))

    def pin(self, name: str, slot: int) -> None:
        """Have a slot keep its hyperparameters and weights, whatever the others do.

        Raises:
            UnknownExperimentError: there is no search of that name.
            UnknownSlotError: it has no such slot.
        """
        self._call(lambda client: client.pin(name, slot))

    def unpin(self, name: str, slot: int) -> None:
        """Let a pinned slot take part again.

        Raises:
            UnknownExperimentError: there is no search of that name.
            UnknownSlotError: it has no such slot.
        """
        self._call(lambda client: client.unpin(name, slot))

    def bounds(
        self,
        name: str,
        parameter: str,
        min: float | None = None,  # noqa: A002
        max: float | None = None,  # noqa: A002
    ) -> None:
        """Search a hyperparameter between other bounds from now on; one of them may be left out.

        Raises:
            UnknownExperimentError: there is no search of that name.
            SpaceError: it has no such hyperparameter, or the bounds do not fit it.
        """
        self._call(lambda client: client.bounds(name, parameter, min, max))

    def extend(self, name: str, steps: int) -> None:
        """Go on with a running, finished or stopped search to `steps` steps in all.

        A paused or failed one has them when it is resumed.

        Raises:
            UnknownExperimentError: there is none of that name.
            ExperimentError: it has as many already.
        """
        self._call(lambda client: client.extend(name, steps))

    def change(
        self,
        name: str,
        *,
        population: int | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ) -> None:
        """Go on with another number of slots, or with other constants of the optimizer.

        Args:
            name: the search's.
            population: number of slots; None: as many as before. The worst ones are parked, new
                ones are forked from good ones.
            optimizer: constants by name, such as `{"factor": 0.5}`.

        Raises:
            UnknownExperimentError: there is no search of that name.
            ExperimentError: it has ended, or cannot be changed so.
        """
        self._call(lambda client: client.change(name, population=population, optimizer=optimizer))

    def remove(self, name: str) -> None:
        """Remove a search with its history; its checkpoints stay.

        Raises:
            UnknownExperimentError: there is none of that name.
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
    """A client of a server, to be used in a `with` block.

    Args:
        redis: the server's URL, or the folder of a local run that is under way.
        by: the user, as history names them.

    Raises:
        StoreError: no server works on the folder, the URL is none, or its password cannot be read.
    """
    return AsyncClient.connect(resolve(redis), by=by)
