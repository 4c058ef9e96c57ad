"""Presence, notices, control and live events over MQTT: what is heard sooner, never what is true.

    romul/workers/ID/status    retained JSON {"state", "session"}; the Last Will says "lost"
    romul/workers/ID/notice    {"seconds"}: its machine goes in so many seconds
    romul/workers/ID/control   {"do": "drain" | "stop" | "log", "level", "asked"}
    romul/workers/ID/heard     {"asked"}: the worker has heard this, and does it
    romul/NAME/events          one line of history a message

Everything works without a broker, only slower to notice: the lease in the store remains the truth.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt
from aiomqtt import MqttError, ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from romul_actors.errors import NoAnswerError, RomulError
from romul_actors.waiting import cancel, reraise_cancellation

log = logging.getLogger("romul.presence")

WORKERS = "romul/workers"
KEEPALIVE_S = 10
QUEUE = 1_000
"""Most messages that wait for the broker; the oldest go first: they are only news."""
ANSWER_S = 5.0
"""How long a worker is given to say that it has heard."""
RETRY_S = (0.2, 5.0)
"""First and longest pause before the broker is tried again."""


class BrokerError(RomulError):
    """The broker's URL is wrong."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is.

    Attributes:
        host, port: its address.
        user, password: None: none is asked for.
        tls: whether the connection is encrypted and the broker's certificate checked.
        ca: file with the certificates to trust; None: the system's.
        keepalive_s: a connection silent for 1.5 times this is lost.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None
    keepalive_s: int = KEEPALIVE_S

    @staticmethod
    def parse(url: str, ca: Path | None = None, keepalive_s: int = KEEPALIVE_S) -> "Broker":
        """Read mqtt://[user:password@]host[:port], or mqtts:// for TLS.

        Raises:
            BrokerError: it is neither.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise BrokerError(f"{url!r} is not of the form mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        return Broker(
            host=parts.hostname,
            port=parts.port or (8883 if tls else 1883),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tls,
            ca=ca,
            keepalive_s=keepalive_s,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A message to the broker, or from it."""

    topic: str
    body: Mapping[str, Any] | None
    """None: removes what was retained under the topic."""
    retain: bool = False


class MqttConnection:
    """A connection that comes back by itself.

    Args:
        broker: where to.
        identifier: unique among all clients of the broker.
        subscriptions: topics to hear.
        on_message: is called with each message.
        will: makes the message that the broker sends when the connection is lost.
        greeting: makes the message for each new connection.
        connected: is called with whether there is a connection, at each change.
    """

    def __init__(
        self,
        broker: Broker,
        identifier: str,
        subscriptions: Sequence[str],
        on_message: Callable[[Message], Awaitable[None]],
        *,
        will: Callable[[], Message] | None = None,
        greeting: Callable[[], Message] | None = None,
        connected: Callable[[bool], None] | None = None,
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._will = will
        self._greeting = greeting
        self._connected = connected or (lambda _: None)
        self._out: deque[Message] = deque(maxlen=QUEUE)
        self._news = asyncio.Event()
        self._since: float | None = None
        # MQTT 5 first; a broker that speaks 3.1.1 only gets that.
        self._protocols = [ProtocolVersion.V5, ProtocolVersion.V311]

    def send(self, message: Message) -> None:
        """Send when there is a connection; nobody waits for it."""
        self._out.append(message)
        self._news.set()

    async def run(self, farewell: Message | None = None) -> None:
        """Keep the connection until cancelled; then say `farewell`."""
        loop, pause_s = asyncio.get_running_loop(), RETRY_S[0]
        while True:
            self._since = None
            try:
                await self._hold(farewell)
            except (MqttError, OSError) as error:
                log.info("broker %s:%d: %s", self._broker.host, self._broker.port, error)
            finally:
                self._connected(False)  # noqa: FBT003
            # A broker that takes long to refuse is to be left in peace, too.
            lived = self._since is not None and loop.time() - self._since > RETRY_S[1]
            pause_s = RETRY_S[0] if lived else min(2 * pause_s, RETRY_S[1])
            await asyncio.sleep(pause_s)

    async def _hold(self, farewell: Message | None) -> None:
        """One connection's life."""
        protocol = self._protocols[0]
        client = self.client(protocol)
        try:
            with reraise_cancellation():
                await client.__aenter__()
        except (MqttError, OSError):
            # Perhaps it does not speak this version: the other one is tried next.
            self._protocols.reverse()
            raise
        try:
            for topic in self._subscriptions:
                with reraise_cancellation():
                    await client.subscribe(topic, qos=1)
            if self._greeting is not None:
                await _publish(client, self._greeting())
            self._since = asyncio.get_running_loop().time()
            self._connected(True)  # noqa: FBT003
            # No group of tasks: on Python 3.11 it forgets that it was cancelled if a part fails
            # meanwhile, as both do when the broker ends together with this process.
            both = [asyncio.create_task(part(client)) for part in (self._listen, self._speak)]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ends = await cancel(*both)
            for end in ends:
                if isinstance(end, Exception):
                    raise end
        except asyncio.CancelledError:
            if farewell is not None:
                with contextlib.suppress(MqttError, OSError, TimeoutError):
                    async with asyncio.timeout(2):
                        await self._drain(client)
                        await _publish(client, farewell)
            raise
        finally:
            with contextlib.suppress(MqttError, OSError):
                await client.__aexit__(None, None, None)

    def client(self, protocol: ProtocolVersion) -> aiomqtt.Client:
        """Make a client for one connection."""
        broker, will, more = self._broker, None, {}
        if self._will is not None:
            message = self._will()
            body = json.dumps(message.body)
            properties = None
            if protocol == ProtocolVersion.V5:
                # A short break is no death.
                properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
                properties.WillDelayInterval = broker.keepalive_s // 4
                session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                session.SessionExpiryInterval = broker.keepalive_s
                more = {"properties": session}
            will = aiomqtt.Will(message.topic, body, 1, message.retain, properties)
        tls = ssl.create_default_context(cafile=broker.ca) if broker.tls else None
        return aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.user,
            password=broker.password,
            identifier=self._identifier,
            protocol=protocol,
            will=will,
            keepalive=broker.keepalive_s,
            timeout=5.0,
            tls_context=tls,
            **more,  # type: ignore[arg-type]
        )

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for raw in client.messages:
            if not any(raw.topic.matches(wanted) for wanted in self._subscriptions):
                # Seen with amqtt when many clients connect at once.
                log.debug("a message on %s, which was not asked for", raw.topic)
                continue
            try:
                body = json.loads(bytes(raw.payload)) if raw.payload else None
            except ValueError as error:
                log.warning("unusable message on %s: %s", raw.topic, error)
                continue
            if body is None or isinstance(body, dict):
                await self._on_message(Message(str(raw.topic), body, bool(raw.retain)))
        raise MqttError("the connection ended")

    async def _speak(self, client: aiomqtt.Client) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._drain(client)

    async def _drain(self, client: aiomqtt.Client) -> None:
        while self._out:
            message = self._out[0]
            await _publish(client, message)
            if self._out and self._out[0] is message:
                self._out.popleft()


async def _publish(client: aiomqtt.Client, message: Message) -> None:
    body = b"" if message.body is None else json.dumps(message.body)
    with reraise_cancellation():
        await client.publish(message.topic, body, qos=1, retain=message.retain)


@contextlib.asynccontextmanager
async def _connection(broker: Broker) -> AsyncIterator[aiomqtt.Client]:
    """Connect for a moment, by MQTT 5 or else 3.1.1.

    Raises:
        MqttError, OSError: the broker does not take it.
    """

    async def heard(_: Message) -> None:
        return None

    link = MqttConnection(broker, f"cli-{secrets.token_hex(4)}", [], heard)
    last: Exception = MqttError("no answer")
    for protocol in (ProtocolVersion.V5, ProtocolVersion.V311):
        async with contextlib.AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(link.client(protocol))
            except (MqttError, OSError) as error:
                last = error
                continue
            yield client
            return
    raise last


async def publish(broker: Broker, message: Message) -> None:
    """Send one message over a connection of its own.

    Raises:
        MqttError, OSError: the broker does not take it.
    """
    async with _connection(broker) as client:
        await _publish(client, message)


async def ask(broker: Broker, worker: str, wish: Mapping[str, Any]) -> None:
    """Tell a worker what to do, and wait until it says that it has heard.

    A broker takes whatever is sent, and drops it silently where nobody listens or the sender may
    not speak: only an answer shows that it has arrived.

    Raises:
        NoAnswerError: there is no answer, or no broker.
    """
    asked = secrets.token_hex(8)
    try:
        async with _connection(broker) as client:
            await client.subscribe(topic(worker, "heard"), qos=1)
            await _publish(client, Message(topic(worker, "control"), {**wish, "asked": asked}))
            async with asyncio.timeout(ANSWER_S):
                async for message in client.messages:
                    if asked.encode() in bytes(message.payload):
                        return
    except TimeoutError:
        raise NoAnswerError(
            f"{worker} does not answer: it is not connected to {broker.host}:{broker.port}, "
            "or this user may not ask it"
        ) from None
    except (MqttError, OSError) as error:
        raise NoAnswerError(f"broker {broker.host}:{broker.port}: {error}") from None
    raise NoAnswerError(f"broker {broker.host}:{broker.port}: the connection ended")


def topic(worker: str, part: str) -> str:
    """Topic of one worker.

    Raises:
        BrokerError: the worker's name cannot stand in a topic.
    """
    if not worker or any(c in worker for c in "+#/\0"):
        raise BrokerError(f"worker name {worker!r}: MQTT has other uses for / + and #")
    return f"{WORKERS}/{worker}/{part}"
