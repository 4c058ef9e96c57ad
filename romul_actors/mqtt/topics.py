"""Topics and messages over MQTT, and requests to a worker.

    romul/workers/ID/status    retained JSON {"state", "session"}; in the Last Will, state is "lost"
    romul/workers/ID/notice    {"seconds"}: its machine will be taken away in this many seconds
    romul/workers/ID/control   {"do": "drain" | "stop" | "log", "level", "request"}
    romul/workers/ID/received  {"request"}: the worker has received and accepted this request
    romul/NAME/events          one line of history per message

They are low-latency hints; the store is the source of truth.
"""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from aiomqtt import Client, MqttError

from romul_actors.errors import BrokerError, NoAnswerError, UnknownWorkerError
from romul_actors.mqtt.broker import Broker, Message
from romul_actors.mqtt.connection import connected, publish_on
from romul_actors.protocol.mistakes import did_you_mean
from romul_actors.sendable import is_text

WORKERS = "romul/workers"
EVERY_STATUS = f"{WORKERS}/+/status"
"""Subscription to the status of every worker."""
ANSWER_S = 5.0
"""How long `ask` waits for a worker's answer."""
MAX_MARK = 64
"""Maximal length of a request's mark in the answer, in characters."""


def topic(worker: str, part: str) -> str:
    """A topic of a worker.

    Raises:
        BrokerError: the worker's name cannot be part of a topic.
    """
    if not worker or any(c in worker for c in "+#/\0"):
        raise BrokerError(f"worker name {worker!r}: it must not be empty or contain / + #")
    if not is_text(worker):
        raise BrokerError(f"worker name {worker!r}: it cannot be encoded as UTF-8")
    return f"{WORKERS}/{worker}/{part}"


def worker_of(topic: str) -> str:
    """The name of the worker in a topic."""
    return topic.split("/")[2]


def status(worker: str, state: str, session: float) -> Message:
    """Message with a worker's state; `session` is larger for each later connection."""
    return Message(topic(worker, "status"), {"state": state, "session": session}, retain=True)


def no_status(worker: str) -> Message:
    """Message that removes a worker's retained status."""
    return Message(topic(worker, "status"), None, retain=True)


def notice(worker: str, seconds: float) -> Message:
    """Message that a worker's machine will be taken away in `seconds`."""
    return Message(topic(worker, "notice"), {"seconds": seconds})


def answer(worker: str, mark: str) -> Message:
    """Message that a worker has received the request with this mark."""
    return Message(topic(worker, "received"), {"request": mark[:MAX_MARK]})


def event(experiment: str, line: Mapping[str, Any]) -> Message:
    """Message with a line of an experiment's history."""
    return Message(f"romul/{experiment}/events", line)


async def publish(broker: Broker, message: Message) -> None:
    """Publish one message over a new connection.

    Raises:
        MqttError, OSError: the broker cannot be reached, or does not accept the message.
    """
    async with connected(broker) as client:
        await publish_on(client, message)


async def ask(broker: Broker, worker: str, request: Mapping[str, Any]) -> None:
    """Send a request to a worker, and wait until it confirms that it has received the request.

    The confirmation is needed because a broker accepts every message, and silently drops it if no
    client has subscribed to it or if the sender may not publish it.

    Raises:
        UnknownWorkerError: there is no answer, and the broker knows only other workers.
        NoAnswerError: there is no answer, or the broker cannot be reached.
    """
    mark, known = secrets.token_hex(8), set[str]()
    where = f"{broker.host}:{broker.port}"
    try:
        async with connected(broker) as client:
            await client.subscribe([(EVERY_STATUS, 1), (topic(worker, "received"), 1)])
            await publish_on(
                client, Message(topic(worker, "control"), {**request, "request": mark})
            )
            async with asyncio.timeout(ANSWER_S):
                if await _arrives(client, mark, known):
                    return
    except TimeoutError:
        if known and worker not in known:
            hint = did_you_mean(worker, sorted(known))
            raise UnknownWorkerError(f"{where} does not know worker {worker!r}: {hint}") from None
        raise NoAnswerError(
            f"{worker} does not answer: it is not connected to {where}, or this user may not send "
            "requests to it"
        ) from None
    except (MqttError, OSError) as error:
        raise NoAnswerError(f"broker {where}: {error}") from None
    raise NoAnswerError(f"broker {where}: the connection ended")


async def _arrives(client: Client, mark: str, known: set[str]) -> bool:
    """Wait for a message with a mark; return False if the connection ends first.

    Args:
        client: a client that has subscribed to answers and to the status of every worker.
        mark: mark of the request.
        known: set to which the names of all workers with a status are added.
    """
    async for message in client.messages:
        if mark.encode() in bytes(message.payload):
            return True
        if message.topic.matches(EVERY_STATUS) and message.payload:
            known.add(worker_of(str(message.topic)))
    return False
