"""A worker on the broker: says that it is there, hears what an operator wants of it."""

import asyncio
import logging
import time

from romul_actors.mqtt.connection import Broker, Message, MqttConnection, topic
from romul_actors.waiting import cancel
from romul_workers.worker import Worker

log = logging.getLogger("romul.worker")

MAX_ASKED = 64
"""Longest mark of a question that is repeated in the answer."""
STATUS_S = 0.5
"""How often it is looked whether the worker's state has changed."""


class Announcer:
    """Presence of one worker.

    Args:
        broker: where the broker is.
        name: the worker's name.
        worker: the worker.

    Raises:
        BrokerError: the name cannot stand in a topic.
    """

    def __init__(self, broker: Broker, name: str, worker: Worker) -> None:
        self._name = name
        self._worker = worker
        self._status = topic(name, "status")
        self._session = 0.0
        self._link = MqttConnection(
            broker,
            name,
            [topic(name, "control")],
            self._heard,
            will=self._will,
            greeting=lambda: self._message(self._worker.state),
            connected=self._connected,
        )

    def notice(self, seconds: float) -> None:
        """Tell others that this machine goes in so many seconds."""
        self._link.send(Message(topic(self._name, "notice"), {"seconds": seconds}))

    async def run(self) -> None:
        """Serve until cancelled; then the status is removed."""
        self._connected(False)  # noqa: FBT003
        link = asyncio.create_task(
            self._link.run(farewell=Message(self._status, None, retain=True))
        )
        told = self._worker.state
        try:
            while True:
                await asyncio.sleep(STATUS_S)
                if (state := self._worker.state) != told:
                    told = state
                    self._link.send(self._message(state))
        finally:
            await cancel(link)

    def _will(self) -> Message:
        # Each connection has a later number than the one before, also after a restart.
        self._session = max(time.time(), self._session + 1e-3)
        return self._message("lost")

    def _message(self, state: str) -> Message:
        return Message(self._status, {"state": state, "session": self._session}, retain=True)

    def _connected(self, connected: bool) -> None:  # noqa: FBT001
        self._worker.quick = not connected

    async def _heard(self, message: Message) -> None:
        body = message.body or {}
        match body.get("do"), body.get("level"):
            case "drain", _:
                log.info("asked to drain")
                self._worker.drain("drained")
            case "stop", _:
                log.info("asked to stop")
                self._worker.drain("drained", grace_s=0.0)
            case "log", ("debug" | "info" | "warning" | "error") as level:
                logging.getLogger("romul").setLevel(level.upper())
                log.warning("log level is %s now", level)
            case _:
                log.warning("unknown control message: %s", body)
                return
        if isinstance(asked := body.get("asked"), str):
            # Who asks cannot know otherwise whether it has arrived.
            self._link.send(Message(topic(self._name, "heard"), {"asked": asked[:MAX_ASKED]}))
