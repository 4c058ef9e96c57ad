"""Connects an actor to the broker: it learns of lost workers, and publishes its decisions."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from romul_actors.actor.loop import Actor
from romul_actors.core.history import Line, to_json
from romul_actors.errors import StoreError
from romul_actors.mqtt.broker import Broker, Message
from romul_actors.mqtt.connection import MqttConnection
from romul_actors.mqtt.topics import EVERY_STATUS, event, no_status, worker_of

log = logging.getLogger("romul.presence")

SWEEP_AFTER_S = (0.0, 0.5, 0.5, 0.5)
"""Pauses before each sweep of a lost worker's leases, in seconds.

There are several sweeps, because a heartbeat sent just before a crash does not prove that the
worker is alive.
"""

LATEST = 2.0**53
"""Exclusive upper bound of a session's number, which is a time in seconds since the epoch."""


class Bridge:
    """An actor's connection to the broker.

    Args:
        broker: the broker.
        name: name of the actor.
    """

    def __init__(self, broker: Broker, name: str) -> None:
        self._connection = MqttConnection(broker, name, [EVERY_STATUS], self._on_status)
        self._actor: Actor | None = None
        self._sessions: dict[str, float] = {}
        self._sweeps: set[asyncio.Task[None]] = set()

    def publish(self, experiment: str, lines: Sequence[Line]) -> None:
        """Publish new lines of an experiment's history."""
        for line in lines:
            self._connection.send(event(experiment, to_json(line)))

    async def run(self, actor: Actor) -> None:
        """Serve until cancelled."""
        self._actor = actor
        await self._connection.run()

    async def _on_status(self, message: Message) -> None:
        worker = worker_of(message.topic)
        if not worker:
            # A topic may have an empty name, but a worker may not.
            return
        if message.body is None:
            # The worker has left. A later one of this name may have another clock.
            self._sessions.pop(worker, None)
            return
        session = message.body.get("session", 0.0)
        if type(session) not in (int, float) or not 0.0 <= session < LATEST:
            # After an infinite number, no later connection would count.
            return
        # Ignore the will of an earlier connection if the worker has connected again.
        if session < self._sessions.get(worker, 0.0):
            return
        self._sessions[worker] = session
        if message.body.get("state") == "lost":
            log.warning("worker %s: its connection to the broker is lost", worker)
            sweep = asyncio.create_task(self._sweep(worker, session))
            self._sweeps.add(sweep)
            sweep.add_done_callback(self._sweeps.discard)

    async def _sweep(self, worker: str, session: float) -> None:
        """End the leases of a lost worker, unless it connects again in the meantime."""
        for pause_s in SWEEP_AFTER_S:
            await asyncio.sleep(pause_s)
            if self._actor is None or self._sessions.get(worker) != session:
                return
            with contextlib.suppress(StoreError):
                await self._actor.lost(worker)
        if self._sessions.get(worker) == session:
            # Done: remove the status, so that an actor that connects later does not repeat it.
            del self._sessions[worker]
            self._connection.send(no_status(worker))
