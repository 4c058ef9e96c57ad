"""From a URL to a client: one server, a primary behind Sentinels, or a Cluster.

redis://[[user]:password@]host[:port][/db]                     one server; rediss:// with TLS
unix://path                                                    one server on this machine
redis+sentinel://[[user]:password@]host[:port],.../service[/db]
    ?sentinel_username=...&sentinel_password=...               rediss+sentinel:// with TLS
redis+cluster://[[user]:password@]host[:port],...[/0]          rediss+cluster:// with TLS

A password that a URL with a user leaves out may lie in a file (`romul_actors.secret_file`).
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
"""Longest pause before a request is tried again, whose connection failed."""
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
"""What a Sentinel URL may say after "?": the Sentinels' own login."""
_UNQUOTED = "in a password / ? # & stand as %2F %3F %23 %26"


def hide_password(url: str) -> str:
    """`url` as it may stand in a log, also where its password is not quoted as it should be.

    What stands after "?" is hidden, whatever it is: a password may be under a name with a slip.
    """
    place, asked, options = url.partition("?")
    if "@" in options:  # it may end the login, with a "?" in the password
        return re.sub(r"(://[^:@/]*).*", r"\1:***", url, flags=re.DOTALL)
    return re.sub(r"(://[^:@/]*):.*@", r"\1:***@", place, flags=re.DOTALL) + (asked and "?***")


class FileLogin(CredentialProvider):
    """A login whose password is read from its file for each connection: it may change meanwhile.

    Args:
        user: None: the server's default user.
        file: holds the password.
    """

    def __init__(self, user: str | None, file: SecretFile) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """User, if there is one, and password.

        Raises:
            AuthenticationError: the file cannot be read any more.
        """
        try:
            password = self._file.read()
        except StoreError as error:
            raise AuthenticationError(str(error)) from None
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """As `get_credentials`."""
        return self.get_credentials()


def connect(url: str) -> "Redis | RedisCluster":
    """Make a client that tries again when the server does not answer for a moment.

    Raises:
        StoreError: the URL is none of the four kinds above, or its password cannot be read.
    """
    common: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "retry": Retry(ExponentialBackoff(cap=RETRY_CAP_S, base=0.05), retries=5),
        "health_check_interval": 30,
    }
    # A primary that has become a replica: its name may lead to the new one, on a new connection.
    again = [RedisConnectionError, RedisTimeoutError, ReadOnlyError]
    single = {**common, "retry_on_error": again}
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith("+sentinel"):
            return _sentinel(url, single)
        if scheme.endswith("+cluster"):
            return _cluster(url, common)
        if scheme in ("redis", "rediss"):
            _database(urlsplit(url).path.strip("/"))  # the client takes what is no number for 0
        place = url
        if file := password_file(url, secret_file.REDIS):
            user, _, rest = url.partition("://")[2].partition("@")
            place = f"{scheme}://{rest}"
            single["credential_provider"] = FileLogin(unquote(user) or None, file)
        client: Redis = Redis.from_url(place, **single)
        # What stands after "?" is looked at when a connection is made.
        pool = client.connection_pool
        made = pool.connection_class(**pool.connection_kwargs)
        if isinstance(made, SSLConnection):
            _check_files(made)
    except (ValueError, TypeError, RedisError) as error:
        # The client takes the beginning of such a password for a port, and says it.
        why = _UNQUOTED if re.search(r"://[^@]*[/?#].*@", url, re.DOTALL) else error
        raise StoreError(f"{hide_password(url)}: {why}") from None
    return client


def _check_files(connection: SSLConnection) -> None:
    """Read the certificates that a URL names: later it would look as if no server answered.

    Raises:
        ValueError: there is no such file, or it holds something else.
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
    """Sentinels that say in words why they name no primary; the client's own do it in code."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary.

        Raises:
            RedisConnectionError: no Sentinel names one: what each says.
        """
        said = []
        for sentinel in self.sentinels.copy():
            pool = sentinel.connection_pool
            try:
                # By name; a list only by the newer protocol.
                known: Any = await sentinel.sentinel_masters()
            except AuthenticationError as error:
                why = f"{error} (?sentinel_password= gives the Sentinels' own login)"
            except RedisError as error:
                why = str(error)
            else:
                state = known.get(service_name)
                if state and self.check_master_state(state, service_name):
                    # It is the first to be asked from now on.
                    self.sentinels.remove(sentinel)
                    self.sentinels.insert(0, sentinel)
                    return state["ip"], state["port"]
                others = ", ".join(map(repr, known)) or "no service at all"
                why = "is down" if state else f"is not known, but {others}"
                why = f"{service_name!r} {why}"
            finally:
                # They are asked where a connection is made, which is seldom.
                await pool.disconnect(inuse_connections=False)
            at = pool.connection_kwargs
            said.append(f"Sentinel {at['host']}:{at['port']}: {why}")
        raise RedisConnectionError("; ".join(said))


def _cluster(url: str, options: dict[str, Any]) -> RedisCluster:
    nodes, login, path = _parse(url, CLUSTER_PORT)
    if _database(path):
        raise ValueError(f"a Cluster has database 0 alone: leave out /{path}")
    startup = [ClusterNode(host, port) for host, port in nodes]
    return RedisCluster(startup_nodes=startup, **login, **options)


def _sentinel(url: str, options: dict[str, Any]) -> Redis:
    nodes, login, path = _parse(url, SENTINEL_PORT, SENTINEL_OPTIONS)
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("a Sentinel URL names its service: redis+sentinel://host/service")
    own = {name: login.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    file = secret_file.secret_file(secret_file.SENTINEL)
    if own["password"] is None and file is not None:
        own = {"credential_provider": FileLogin(own["username"], file)}
    # Another one is asked where one does not answer; all are asked again after a pause.
    own |= {"protocol": 2, "socket_timeout": 5, "retry": Retry(NoBackoff(), 0)}
    own["ssl"] = "ssl" in login
    sentinels = _Sentinels(nodes, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    client: Redis = sentinels.master_for(service, db=_database(db), **login, **options)
    return client


def _database(path: str) -> int:
    """Number of the database that stands at the end of a URL; 0 where none does."""
    if not re.fullmatch("[0-9]*", path):
        raise ValueError("what stands after the host is no number of a database, as /0 is")
    return int(path or 0)


def _parse(
    url: str, default_port: int, options: Sequence[str] = ()
) -> tuple[list[tuple[str, int]], dict[str, Any], str]:
    """Hosts with ports, login with what else is given of `options`, and path."""
    parts = urlsplit(url)
    _, _, hosts = parts.netloc.rpartition("@")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        if not name:
            raise ValueError("no host in it")
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
        if name not in options:  # it is not said: it may be a part of a password
            takes = " and ".join(options) or "nothing"
            raise ValueError(f'{parts.scheme}:// takes {takes} after "?"; {_UNQUOTED}')
        login[name] = unquote(value)
    return nodes, login, parts.path.strip("/")
