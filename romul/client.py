"""Controls searches from a program: pause, resume, stop, pin, bounds and so on.

The methods of `romul_actors.client.Client` do the work; here they block.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from romul.blocking import to_the_end
from romul_actors.client import Client as AsyncClient
from romul_actors.local.address import broker_url, resolve
from romul_actors.mqtt.broker import Broker
from romul_actors.store.redis.urls import hide_password

T = TypeVar("T")
P = ParamSpec("P")


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """The blocking form of a method of the asynchronous client, with its documentation."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def act() -> T:
            async with self._opened() as client:
                return await method(client, *args, **kwargs)

        return to_the_end(act())

    return call


class Client:
    """Controls the searches on a server or in a running local run.

    The methods send the same requests as the corresponding commands::

        romul.Client("redis://127.0.0.1:6379/0").pause("mine")
        romul.Client("runs/mine").bounds("mine", "lr", 1e-4, 0.1)

    Methods that change a search send a request and return once it is queued. An actor decides the
    request later, and the history records the outcome. Each call opens and closes a connection, and
    raises StoreUnavailableError if the server does not answer. A program with an event loop that
    makes many calls should use `romul_actors.client.Client`, whose methods are coroutines.

    Args:
        redis: URL of the Redis or Valkey server, such as "redis://HOST:6379/0", or the folder of a
            local run that is running.
        by: user name to record in the history. Default: the user of the process.
        broker: URL of the MQTT broker through which workers are drained, such as
            "mqtt://HOST:1883". Default: the broker of the local run. If it is invalid, each method
            raises BrokerError.
    """

    def __init__(
        self, redis: str | Path, *, by: str | None = None, broker: str | None = None
    ) -> None:
        self._redis = str(redis)
        self._by = by
        self._broker = broker

    statuses = _blocking(AsyncClient.statuses)
    status = _blocking(AsyncClient.status)
    pause = _blocking(AsyncClient.pause)
    resume = _blocking(AsyncClient.resume)
    stop = _blocking(AsyncClient.stop)
    pin = _blocking(AsyncClient.pin)
    unpin = _blocking(AsyncClient.unpin)
    bounds = _blocking(AsyncClient.bounds)
    extend = _blocking(AsyncClient.extend)
    change = _blocking(AsyncClient.change)
    drain = _blocking(AsyncClient.drain)
    remove = _blocking(AsyncClient.remove)

    def __repr__(self) -> str:
        return f"Client({hide_password(self._redis)!r})"

    def _opened(self) -> AsyncClient:
        url = self._broker or broker_url(self._redis)
        broker = None if url is None else Broker.parse(url)
        return opened(self._redis, by=self._by, broker=broker)


def opened(redis: str, *, by: str | None = None, broker: Broker | None = None) -> AsyncClient:
    """A client for a server, to be used in an `async with` block.

    Args:
        redis: URL of the Redis or Valkey server, such as "redis://HOST:6379/0", or the folder of a
            local run that is running.
        by: user name to record in the history. Default: the user of the process.
        broker: broker through which workers are drained.

    Raises:
        StoreError: no server runs for the folder, the URL `redis` is invalid, or its password
            cannot be read.
    """
    return AsyncClient.connect(resolve(redis), by=by, broker=broker)
