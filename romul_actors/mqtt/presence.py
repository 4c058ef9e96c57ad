"""What is sent over MQTT: topics, messages, and requests to a worker.

    romul/workers/ID/status    retained JSON {"state", "session"}; the Last Will says "lost"
    romul/workers/ID/notice    {"seconds"}: its machine goes in so many seconds
    romul/workers/ID/control   {"do": "drain" | "stop" | "log", "level", "request"}
    romul/workers/ID/received  {"request"}: the worker has received this request, and obeys
    romul/NAME/events          one line of history a message

Low-latency hints; the store is the source of truth.
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
"""The status of every worker, as a subscription."""
ANSWER_S = 5.0
"""How long `ask` waits for a worker's answer."""
MAX_MARK = 64
"""Longest mark of a request that is repeated in the answer, in characters."""


def topic(worker: str, part: str) -> str:
    """Topic of one worker.

    Raises:
        BrokerError: the worker's name cannot stand in a topic.
    """
    if not worker or any(c in worker for c in "+#/\0"):
        raise BrokerError(f"worker name {worker!r}: MQTT has other uses for / + and #")
    if not is_text(worker):
        raise BrokerError(f"worker name {worker!r}: it is not UTF-8")
    return f"{WORKERS}/{worker}/{part}"


def worker_of(topic: str) -> str:
    """Name of the worker that a topic belongs to."""
    return topic.split("/")[2]


def status(worker: str, state: str, session: float) -> Message:
    """A worker's state; `session` is larger for each later connection of the worker."""
    return Message(topic(worker, "status"), {"state": state, "session": session}, retain=True)


def no_status(worker: str) -> Message:
    """Removes a worker's retained status."""
    return Message(topic(worker, "status"), None, retain=True)


def notice(worker: str, seconds: float) -> Message:
    """A worker's machine goes in so many seconds."""
    return Message(topic(worker, "notice"), {"seconds": seconds})


def answer(worker: str, mark: str) -> Message:
    """A worker has received the request with this mark."""
    return Message(topic(worker, "received"), {"request": mark[:MAX_MARK]})


def event(experiment: str, line: Mapping[str, Any]) -> Message:
    """One line of an experiment's history."""
    return Message(f"romul/{experiment}/events", line)


async def publish(broker: Broker, message: Message) -> None:
    """Publish one message over a connection of its own.

    Raises:
        MqttError, OSError: the broker does not take it.
    """
    async with connected(broker) as client:
        await publish_on(client, message)


async def ask(broker: Broker, worker: str, request: Mapping[str, Any]) -> None:
    """Send a request to a worker, and wait until the worker answers that it has received it.

    A broker accepts every message, and drops it silently if no client subscribed to it or the
    sender may not publish it: only an answer shows that the request has arrived.

    Raises:
        UnknownWorkerError: there is no answer, and the broker knows other workers only.
        NoAnswerError: there is no answer, or no broker.
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
            raise UnknownWorkerError(f"{where} knows no worker {worker!r}: {hint}") from None
        raise NoAnswerError(
            f"{worker} does not answer: it is not connected to {where}, or this user may not ask it"
        ) from None
    except (MqttError, OSError) as error:
        raise NoAnswerError(f"broker {where}: {error}") from None
    raise NoAnswerError(f"broker {where}: the connection ended")


async def _arrives(client: Client, mark: str, known: set[str]) -> bool:
    """Whether a message with this mark arrives before the connection ends.

    Args:
        client: subscribed to answers, and to the status of every worker.
        mark: of the request.
        known: is filled with the workers that have a status.
    """
    async for message in client.messages:
        if mark.encode() in bytes(message.payload):
            return True
        if message.topic.matches(EVERY_STATUS) and message.payload:
            known.add(worker_of(str(message.topic)))
    return False
