"""Where a broker is, and the messages that go to it and come from it."""

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
    """Where the broker is.

    Attributes:
        host, port: its address.
        user, password: None: the connection is anonymous.
        password_file: holds the password in place of `password`; it may change meanwhile.
        tls: whether the connection is encrypted and the broker's certificate checked.
        ca: file with the certificates to trust; None: the system's.
        keepalive_s: a connection silent for 1.5 times this is lost.
        protocol: "5" or "3.1.1": the version of MQTT that it speaks; "": 5 is tried first.
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
        """The password of a new connection.

        Raises:
            StoreError: its file cannot be read.
        """
        return self.password if self.password_file is None else self.password_file.read()

    @staticmethod
    def parse(url: str, ca: Path | None = None, keepalive_s: int = KEEPALIVE_S) -> "Broker":
        """Read mqtt://[user:password@]host[:port], or mqtts:// for TLS.

        A password that it leaves out may lie in a file (`romul_actors.secret_file`). With
        ?protocol=3.1.1 behind it, MQTT 5 is not tried first: a broker that does not know it
        may let each client wait for some seconds before it tries the older version.

        Raises:
            BrokerError: it is neither.
            StoreError: the file with its password cannot be read.
        """
        # Errors say nothing of what may be a part of a password.
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("mqtt", "mqtts"):
            raise BrokerError(
                f"a broker's URL of the form {url.partition(':')[0]!r:.20}: it is "
                "mqtt://host:port or mqtts://host:port, and in a password / ? # stand as "
                "%2F %3F %23"
            )
        protocol = parts.query.removeprefix("protocol=")
        if parts.query and protocol not in PROTOCOLS:
            raise BrokerError(
                f"the broker's URL at {host}: after ? comes "
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
    """A message to the broker, or from it."""

    topic: str
    body: Mapping[str, Any] | None
    """None: removes the retained message of the topic."""
    retain: bool = False
