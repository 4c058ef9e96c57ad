"""A connection to the broker that reconnects automatically, and connections for a single message.

Everything works without a broker, only slower: the leases in the store are authoritative.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import aiomqtt
from aiomqtt import MqttCodeError, MqttError, ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from romul_actors.errors import StoreError
from romul_actors.mqtt.broker import Broker, Message
from romul_actors.waiting import RetryLog, cancel, longer, reraise_cancellation

log = logging.getLogger("romul.presence")

QUEUE = 1_000
"""Maximal number of queued messages; beyond it, the oldest are dropped, as they are only hints."""
FAREWELL_S = 2.0
"""How long a cancelled connection may take to send its last messages."""
RETRY_S = (0.2, 5.0)
"""First and longest pause before the next attempt to connect."""
NO_ACCESS = (134, 135, 138)
"""Reason codes of MQTT 5 for denied access; the client translates those of MQTT 3.1.1."""
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""Part of the text of an error of TLS: this program does not trust the broker's certificate."""


def protocols(broker: Broker) -> list[ProtocolVersion]:
    """Versions of MQTT to try: the configured one, or 5 and then 3.1.1."""
    versions = {"5": ProtocolVersion.V5, "3.1.1": ProtocolVersion.V311}
    return [versions[broker.protocol]] if broker.protocol else list(versions.values())


class MqttConnection:
    """A connection that reconnects automatically.

    Args:
        broker: the broker.
        identifier: client identifier, unique among all clients of the broker.
        subscriptions: topics to receive.
        on_message: called with each message.
        will: returns the message that the broker publishes if the connection is lost.
        greeting: returns the message to publish on each new connection.
        on_change: called at each change, with True if there is a connection now.
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
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._will = will
        self._greeting = greeting
        self._on_change = on_change or (lambda _: None)
        self._queue: deque[Message] = deque(maxlen=QUEUE)
        self._queued = asyncio.Event()
        self._since: float | None = None
        self._protocols = protocols(broker)
        self._refused = False
        self._retries = RetryLog(log, logging.INFO)

    def send(self, message: Message) -> None:
        """Queue a message, which is published as soon as there is a connection."""
        self._queue.append(message)
        self._queued.set()

    async def run(self, farewell: Message | None = None) -> None:
        """Keep the connection open until cancelled; then publish `farewell`."""
        loop, pause_s = asyncio.get_running_loop(), 0.0
        while True:
            self._since = None
            try:
                await self._serve_once(farewell)
            except (MqttError, OSError, StoreError) as error:
                self._log_failure(error)
            finally:
                self._on_change(False)  # noqa: FBT003
            # Counted from when the connection was made, so that a slow refusal does not count.
            lived = self._since is not None and loop.time() - self._since > RETRY_S[1]
            pause_s = longer(0.0 if lived else pause_s, RETRY_S)
            await asyncio.sleep(pause_s)

    def _log_failure(self, error: Exception) -> None:
        """Log why there is no connection; a refusal as a warning, once until reconnected."""
        text = f"broker {self._broker.host}:{self._broker.port}: {error}"
        if isinstance(error, StoreError) or _is_refusal(error):
            log.log(logging.DEBUG if self._refused else logging.WARNING, "%s", text)
            self._refused = True
        else:
            self._retries.failed(text)

    async def _serve_once(self, farewell: Message | None) -> None:
        """Open one connection and serve it until it breaks or the task is cancelled."""
        client = self.client(self._protocols[0])
        try:
            with reraise_cancellation():
                await client.__aenter__()
        except (MqttError, OSError):
            # The broker may not support this version: the next attempt uses the other one.
            self._protocols.reverse()
            raise
        try:
            await self._serve(client)
        except asyncio.CancelledError:
            if farewell is not None:
                with contextlib.suppress(MqttError, OSError, TimeoutError):
                    async with asyncio.timeout(FAREWELL_S):
                        await self._send_queue(client)
                        await publish_on(client, farewell)
            raise
        finally:
            with contextlib.suppress(MqttError, OSError):
                await client.__aexit__(None, None, None)

    async def _serve(self, client: aiomqtt.Client) -> None:
        """Subscribe and greet, then receive and send concurrently until either ends."""
        for subscription in self._subscriptions:
            with reraise_cancellation():
                await client.subscribe(subscription, qos=1)
        if self._greeting is not None:
            await publish_on(client, self._greeting())
        self._since = asyncio.get_running_loop().time()
        self._refused = False
        self._retries.worked()
        self._on_change(True)  # noqa: FBT003
        # No TaskGroup: on Python 3.11 it loses a cancellation if one of its tasks fails at the same
        # time, as happens when the broker ends together with this process.
        both = [asyncio.create_task(part(client)) for part in (self._receive, self._send)]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ends = await cancel(*both)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def client(self, protocol: ProtocolVersion) -> aiomqtt.Client:
        """Create a client for one connection."""
        broker, will, more = self._broker, None, {}
        if self._will is not None:
            message = self._will()
            body = json.dumps(message.body)
            properties = None
            if protocol == ProtocolVersion.V5:
                # A short interruption of the connection does not mean that the worker is lost.
                properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
                properties.WillDelayInterval = broker.keepalive_s // 4
                session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                session.SessionExpiryInterval = broker.keepalive_s
                more = {"properties": session}
            will = aiomqtt.Will(message.topic, body, 1, message.retain, properties)
        tls = ssl.create_default_context(cafile=broker.ca) if broker.tls else None
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.user,
            password=broker.current_password(),
            identifier=self._identifier,
            protocol=protocol,
            will=will,
            keepalive=broker.keepalive_s,
            timeout=5.0,
            tls_context=tls,
            **more,  # type: ignore[arg-type]
        )
        # Marks the exception as retrieved: asyncio would log it otherwise.
        client._disconnected.add_done_callback(  # noqa: SLF001
            lambda ended: ended.cancelled() or ended.exception()
        )
        return client

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for raw in client.messages:
            if not any(raw.topic.matches(wanted) for wanted in self._subscriptions):
                # Seen with amqtt when many clients connect at once.
                log.debug("message on %s, which matches no subscription", raw.topic)
                continue
            try:
                body = json.loads(bytes(raw.payload)) if raw.payload else None
            except (ValueError, RecursionError) as error:
                log.warning("unusable message on %s: %s", raw.topic, error)
                continue
            if body is None or isinstance(body, dict):
                await self._on_message(Message(str(raw.topic), body, bool(raw.retain)))
        raise MqttError("the connection ended")

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            await self._send_queue(client)

    async def _send_queue(self, client: aiomqtt.Client) -> None:
        while self._queue:
            message = self._queue[0]
            await publish_on(client, message)
            # If the queue was full, it may have dropped the message in the meantime.
            if self._queue and self._queue[0] is message:
                self._queue.popleft()


def _is_refusal(error: Exception) -> bool:
    """Whether broker or client refuses, which the other version of MQTT would not change."""
    return UNTRUSTED in str(error) or (
        isinstance(error, MqttCodeError)
        and isinstance(error.rc, ReasonCode)
        and error.rc.value in NO_ACCESS
    )


async def publish_on(client: aiomqtt.Client, message: Message) -> None:
    """Publish over an open connection.

    Raises:
        MqttError: the broker does not accept the message.
    """
    body = b"" if message.body is None else json.dumps(message.body)
    with reraise_cancellation():
        await client.publish(message.topic, body, qos=1, retain=message.retain)


@contextlib.asynccontextmanager
async def connected(broker: Broker) -> AsyncIterator[aiomqtt.Client]:
    """A short-lived connection, with MQTT 5 or else 3.1.1.

    Raises:
        MqttError, OSError: the connection cannot be made.
    """

    async def ignore(_: Message) -> None:
        return None

    connection = MqttConnection(broker, f"cli-{secrets.token_hex(4)}", [], ignore)
    last: Exception = MqttError("no answer")
    for protocol in protocols(broker):
        async with contextlib.AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(connection.client(protocol))
            except (MqttError, OSError) as error:
                last = error
                continue
            yield client
            return
    raise last
