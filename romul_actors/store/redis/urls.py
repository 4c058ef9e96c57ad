"""Opens a client for a URL: a single server, a primary behind Sentinels, or a Cluster.

redis://[[user]:password@]host[:port][/db]                     one server; rediss:// with TLS
unix://path                                                    one server on this machine
redis+sentinel://[[user]:password@]host[:port],.../service[/db]
    ?sentinel_username=...&sentinel_password=...               rediss+sentinel:// with TLS
redis+cluster://[[user]:password@]host[:port],...[/0]          rediss+cluster:// with TLS

If a URL has a user but no password, the password may be in a file (`romul_actors.secret_file`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from romul_actors import secret_file
from romul_actors.errors import StoreError
from romul_actors.secret_file import SecretFile, password_file

SENTINEL_PORT, CLUSTER_PORT = 26379, 6379
RETRY_CAP_S = 1.0
"""Longest pause before a request is retried after its connection failed."""
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
"""Options of a Sentinel URL after "?": the Sentinels' own login."""
_UNQUOTED = "in a password, write / ? # & as %2F %3F %23 %26"


def hide_password(url: str) -> str:
    """`url` without its password, even if the password is not quoted correctly.

    Everything after "?" is hidden, because a misspelled option may contain a password.
    """
    place, asked, options = url.partition("?")
    if "@" in options:  # the "?" may be part of the password
        return re.sub(r"(://[^:@/]*).*", r"\1:***", url, flags=re.DOTALL)
    return re.sub(r"(://[^:@/]*):.*@", r"\1:***@", place, flags=re.DOTALL) + (asked and "?***")


class FileLogin(CredentialProvider):
    """A login that reads the password from its file for each connection, as it may change.

    Args:
        user: name of the user; None for the server's default user.
        file: file with the password.
    """

    def __init__(self, user: str | None, file: SecretFile) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The user, if any, and the password.

        Raises:
            AuthenticationError: the file cannot be read any more.
        """
        try:
            password = self._file.read()
        except StoreError as error:
            raise AuthenticationError(str(error)) from None
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same as `get_credentials`."""
        return self.get_credentials()


def connect(url: str) -> "Redis | RedisCluster":
    """Create a client that retries while the server does not answer for a short time.

    Raises:
        StoreError: the URL has none of the forms above, or its password cannot be read.
    """
    common: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "retry": Retry(ExponentialBackoff(cap=RETRY_CAP_S, base=0.05), retries=5),
        "health_check_interval": 30,
    }
    # ReadOnlyError: the primary has become a replica. A new connection may reach the new primary.
    again = [RedisConnectionError, RedisTimeoutError, ReadOnlyError]
    single = {**common, "retry_on_error": again}
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith("+sentinel"):
            return _sentinel(url, single)
        if scheme.endswith("+cluster"):
            return _cluster(url, common)
        if scheme in ("redis", "rediss"):
            _database(urlsplit(url).path.strip("/"))  # the client would take a wrong number for 0
        place = url
        if file := password_file(url, secret_file.REDIS):
            user, _, rest = url.partition("://")[2].partition("@")
            place = f"{scheme}://{rest}"
            single["credential_provider"] = FileLogin(unquote(user) or None, file)
        client: Redis = Redis.from_url(place, **single)
        # The client checks options after "?" only when it makes a connection.
        pool = client.connection_pool
        made = pool.connection_class(**pool.connection_kwargs)
        if isinstance(made, SSLConnection):
            _check_files(made)
    except (ValueError, TypeError, RedisError) as error:
        # The client would show the beginning of such a password, which it takes for a port.
        why = _UNQUOTED if re.search(r"://[^@]*[/?#].*@", url, re.DOTALL) else error
        raise StoreError(f"{hide_password(url)}: {why}") from None
    return client


def _check_files(connection: SSLConnection) -> None:
    """Check the certificates that a URL names; later, it would seem that no server answers.

    Raises:
        ValueError: a file does not exist, or is not a certificate or key.
    """
    tls = connection.ssl_context
    named = {
        "ssl_ca_certs": tls.ca_certs,
        "ssl_ca_path": tls.ca_path,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
    }
    given = {option: place for option, place in named.items() if place}
    for option, place in given.items():
        try:
            Path(place).stat()
        except OSError as error:
            raise ValueError(f"{option}: {place}: {error.strerror}") from None
    try:
        tls.get()
    except OSError as error:
        files = ", ".join(f"{option}={place}" for option, place in given.items())
        raise ValueError(f"{files or 'TLS'}: {error}") from None


class _Sentinels(Sentinel):
    """Sentinels whose error explains in words why no primary was found."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary.

        Raises:
            RedisConnectionError: no Sentinel names a primary; the message has the answer of each.
        """
        said = []
        for sentinel in self.sentinels.copy():
            pool = sentinel.connection_pool
            try:
                # A mapping by name, since the client uses protocol 2.
                known: Any = await sentinel.sentinel_masters()
            except AuthenticationError as error:
                why = f"{error} (set the Sentinels' own password with ?sentinel_password=)"
            except RedisError as error:
                why = str(error)
            else:
                state = known.get(service_name)
                if state and self.check_master_state(state, service_name):
                    # Ask this Sentinel first from now on.
                    self.sentinels.remove(sentinel)
                    self.sentinels.insert(0, sentinel)
                    return state["ip"], state["port"]
                others = ", ".join(map(repr, known)) or "none"
                why = "is down" if state else f"is unknown (known services: {others})"
                why = f"{service_name!r} {why}"
            finally:
                # Not kept open: Sentinels are asked only when a connection is made.
                await pool.disconnect(inuse_connections=False)
            at = pool.connection_kwargs
            said.append(f"Sentinel {at['host']}:{at['port']}: {why}")
        raise RedisConnectionError("; ".join(said))


def _cluster(url: str, options: dict[str, Any]) -> RedisCluster:
    nodes, login, path = _parse(url, CLUSTER_PORT)
    if _database(path):
        raise ValueError(f"a Cluster has only database 0: omit /{path}")
    startup = [ClusterNode(host, port) for host, port in nodes]
    return RedisCluster(startup_nodes=startup, **login, **options)


def _sentinel(url: str, options: dict[str, Any]) -> Redis:
    nodes, login, path = _parse(url, SENTINEL_PORT, SENTINEL_OPTIONS)
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("a Sentinel URL must name its service: redis+sentinel://host/service")
    own = {name: login.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    file = secret_file.secret_file(secret_file.SENTINEL)
    if own["password"] is None and file is not None:
        own = {"credential_provider": FileLogin(own["username"], file)}
    # No retries here: another Sentinel is asked instead, and all are asked again after a pause.
    own |= {"protocol": 2, "socket_timeout": 5, "retry": Retry(NoBackoff(), 0)}
    own["ssl"] = "ssl" in login
    sentinels = _Sentinels(nodes, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    client: Redis = sentinels.master_for(service, db=_database(db), **login, **options)
    return client


def _database(path: str) -> int:
    """Number of the database at the end of a URL; 0 if there is none."""
    if not re.fullmatch("[0-9]*", path):
        raise ValueError("the part after the host must be the number of a database, such as /0")
    return int(path or 0)


def _parse(
    url: str, default_port: int, options: Sequence[str] = ()
) -> tuple[list[tuple[str, int]], dict[str, Any], str]:
    """The hosts with ports, the login together with given `options`, and the path."""
    parts = urlsplit(url)
    _, _, hosts = parts.netloc.rpartition("@")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        if not name:
            raise ValueError("it has no host")
        nodes.append((name, int(port or default_port)))
    login: dict[str, Any] = {"ssl": True} if parts.scheme.startswith("rediss") else {}
    if file := password_file(url, secret_file.REDIS):
        login["credential_provider"] = FileLogin(unquote(parts.username or "") or None, file)
    elif parts.username:
        login["username"] = unquote(parts.username)
    if parts.password:
        login["password"] = unquote(parts.password)
    if parts.fragment:
        raise ValueError(_UNQUOTED)
    for option in filter(None, parts.query.split("&")):
        name, _, value = option.partition("=")
        if name not in options:  # not shown, because it may be part of a password
            takes = " and ".join(options) or "nothing"
            raise ValueError(f'{parts.scheme}:// takes {takes} after "?"; {_UNQUOTED}')
        login[name] = unquote(value)
    return nodes, login, parts.path.strip("/")
