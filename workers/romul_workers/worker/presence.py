"""A worker's connection to the broker: publishes presence, and receives control messages."""

import asyncio
import logging
import time

from romul_actors.mqtt.broker import Broker, Message
from romul_actors.mqtt.connection import MqttConnection
from romul_actors.mqtt.topics import answer, no_status, notice, status, topic
from romul_actors.waiting import cancel
from romul_workers.worker.loop import Worker

log = logging.getLogger("romul.worker")

STATUS_S = 0.5
"""Time between two checks of the worker's state, in seconds."""


class Announcer:
    """Publishes the presence of one worker.

    Args:
        broker: the broker's address and login.
        name: the worker's name.
        worker: the worker.

    Raises:
        BrokerError: the name cannot stand in a topic.
    """

    def __init__(self, broker: Broker, name: str, worker: Worker) -> None:
        self._name = name
        self._worker = worker
        self._session = 0.0
        self._connection = MqttConnection(
            broker,
            name,
            [topic(name, "control")],
            self._on_request,
            will=self._will,
            greeting=lambda: self._message(self._worker.state),
            on_change=self._on_change,
        )

    def notice(self, seconds: float) -> None:
        """Publish that this machine goes in `seconds` seconds."""
        self._connection.send(notice(self._name, seconds))

    async def run(self) -> None:
        """Publish the worker's state until cancelled; then remove its status."""
        self._on_change(False)  # noqa: FBT003
        connection = asyncio.create_task(self._connection.run(farewell=no_status(self._name)))
        published = self._worker.state
        try:
            while True:
                await asyncio.sleep(STATUS_S)
                if (state := self._worker.state) != published:
                    published = state
                    self._connection.send(self._message(state))
        finally:
            await cancel(connection)

    def _will(self) -> Message:
        # Each connection has a greater number than the one before, even after a restart.
        self._session = max(time.time(), self._session + 1e-3)
        return self._message("lost")

    def _message(self, state: str) -> Message:
        return status(self._name, state, self._session)

    def _on_change(self, connected: bool) -> None:  # noqa: FBT001
        self._worker.quick = not connected

    async def _on_request(self, message: Message) -> None:
        body = message.body or {}
        match body.get("do"), body.get("level"):
            case "drain", _:
                log.info("drain requested")
                self._worker.drain("drained")
            case "stop", _:
                log.info("stop requested")
                self._worker.drain("drained", grace_s=0.0)
            case "log", ("debug" | "info" | "warning" | "error") as level:
                logging.getLogger("romul").setLevel(level.upper())
                log.warning("log level is %s now", level)
            case _:
                log.warning("unknown control message: %s", body)
                return
        if isinstance(mark := body.get("request"), str):
            # Tells the sender that its request has arrived.
            self._connection.send(answer(self._name, mark))
