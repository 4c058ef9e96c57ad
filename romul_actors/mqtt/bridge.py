"""An actor on the broker: hears of lost workers, tells what it decided."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from romul_actors.actor.loop import Actor
from romul_actors.core.history import Line, to_json
from romul_actors.errors import StoreError
from romul_actors.mqtt.connection import WORKERS, Broker, Message, MqttConnection, topic

log = logging.getLogger("romul.presence")

LOOK_AGAIN_S = (0.0, 0.5, 0.5, 0.5)
"""When a lost worker's leases are looked at: a heartbeat just before its death is no life."""


class Bridge:
    """What an actor does with the broker: hears of lost workers, tells what it decided.

    Args:
        broker: where the broker is.
        name: the actor's name.
    """

    def __init__(self, broker: Broker, name: str) -> None:
        self._link = MqttConnection(broker, name, [f"{WORKERS}/+/status"], self._heard)
        self._actor: Actor | None = None
        self._sessions: dict[str, float] = {}
        self._burying: set[asyncio.Task[None]] = set()

    def tell(self, experiment: str, lines: Sequence[Line]) -> None:
        """Send what was added to an experiment's history."""
        for line in lines:
            self._link.send(Message(f"romul/{experiment}/events", to_json(line)))

    async def run(self, actor: Actor) -> None:
        """Serve until cancelled."""
        self._actor = actor
        await self._link.run()

    async def _heard(self, message: Message) -> None:
        worker = message.topic.split("/")[2]
        body = message.body or {}
        state, session = body.get("state"), body.get("session", 0.0)
        if not isinstance(session, int | float):
            return
        # A will of a connection that was followed by another one buries nobody.
        if session < self._sessions.get(worker, 0.0):
            return
        self._sessions[worker] = session
        if message.body is None:
            self._sessions.pop(worker, None)
        elif state == "lost":
            log.warning("worker %s: its connection to the broker is lost", worker)
            burying = asyncio.create_task(self._bury(worker, session))
            self._burying.add(burying)
            burying.add_done_callback(self._burying.discard)

    async def _bury(self, worker: str, session: float) -> None:
        """Give a lost worker's trials to others, unless it comes back meanwhile."""
        for pause_s in LOOK_AGAIN_S:
            await asyncio.sleep(pause_s)
            if self._actor is None or self._sessions.get(worker) != session:
                return
            with contextlib.suppress(StoreError):
                await self._actor.lost(worker)
        # Said and done: who connects later need not hear of it again.
        self._sessions.pop(worker, None)
        self._link.send(Message(topic(worker, "status"), None, retain=True))
