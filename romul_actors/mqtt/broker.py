"""The address of a broker, and the messages to and from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from romul_actors.errors import BrokerError
from romul_actors.secret_file import MQTT, SecretFile, password_file

KEEPALIVE_S = 10
PROTOCOLS = ("5", "3.1.1")
"""Versions of MQTT, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The address of a broker, and how to connect to it.

    Attributes:
        host, port: address of the broker.
        user, password: login; None for an anonymous connection.
        password_file: file to read the password from, instead of `password`. It may change.
        tls: whether to encrypt the connection and check the broker's certificate.
        ca: file with the certificates to trust; None means the system's.
        keepalive_s: keepalive interval in seconds; a connection that is silent for 1.5 times this
            is lost.
        protocol: version of MQTT, "5" or "3.1.1"; empty to try 5 first.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None
    keepalive_s: int = KEEPALIVE_S
    protocol: str = ""
    password_file: SecretFile | None = None

    def current_password(self) -> str | None:
        """The password for a new connection.

        Raises:
            StoreError: the file with the password cannot be read.
        """
        return self.password if self.password_file is None else self.password_file.read()

    @staticmethod
    def parse(url: str, ca: Path | None = None, keepalive_s: int = KEEPALIVE_S) -> "Broker":
        """Parse a URL: mqtt://[user:password@]host[:port], or mqtts:// for TLS.

        If the URL has a user but no password, the password may be in a file
        (`romul_actors.secret_file`). With ?protocol=3.1.1 at the end, MQTT 5 is not tried: with
        some brokers that do not support it, each client would wait for seconds.

        Raises:
            BrokerError: the URL is invalid.
            StoreError: the file with the password cannot be read.
        """
        # Error messages must not contain parts of a password.
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("mqtt", "mqtts"):
            raise BrokerError(
                f"invalid broker URL with scheme {url.partition(':')[0]!r:.20}: use "
                "mqtt://host:port or mqtts://host:port; in a password, write / ? # as %2F %3F %23"
            )
        protocol = parts.query.removeprefix("protocol=")
        if parts.query and protocol not in PROTOCOLS:
            raise BrokerError(
                f"broker URL for {host}: the part after ? must be "
                f"protocol={' or protocol='.join(PROTOCOLS)}"
            )
        tls = parts.scheme == "mqtts"
        return Broker(
            host=host,
            port=port or (8883 if tls else 1883),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tls,
            ca=ca,
            keepalive_s=keepalive_s,
            protocol=protocol,
            password_file=password_file(url, MQTT),
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A message to or from the broker."""

    topic: str
    body: Mapping[str, Any] | None
    """The content; None removes the retained message of the topic."""
    retain: bool = False
