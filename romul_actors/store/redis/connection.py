"""A connection to the server: scripts and reads of groups, with this project's exceptions."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    ClusterError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from romul_actors.errors import (
    AccessError,
    StoreError,
    StoreUnavailableError,
    UnknownExperimentError,
    WrongTypeError,
)
from romul_actors.store.keys import experiment_of, key
from romul_actors.store.redis.urls import connect, hide_password
from romul_actors.waiting import reraise_cancellation

log = logging.getLogger("romul.store")

_SCRIPTS = files("romul_actors.store") / "scripts"
_NAMED = re.compile(r"WRONGTYPE of (romul:\S+)")
"""A script's error for a key of a wrong type that is not among its declared keys."""
_DAMAGED = "DAMAGED "
"""Prefix of a script's error for the content of a key."""
MOST_NAMED = 5
"""Maximal number of keys that an error names."""
_OTHERS = "another key of that experiment"
"""Named in addition, because a script's error may concern a key that it does not name."""
CLIENT_ERRORS = (RedisError, RedisClusterException, OSError)
"""All exceptions of the client. The one for an unreachable Cluster is not a RedisError."""
_NO_NODE = "Cluster cannot be connected"
_LOGIN = re.compile("invalid username-password|Authentication required|AuthenticationError")
"""Texts in other errors that mean that a login was refused."""
_UNABLE = (OutOfMemoryError, ReadOnlyError, ClusterError, SlotNotCoveredError, TryAgainError)
_UNABLE_CODES = re.compile(r"(^|-)(OOM|READONLY|MISCONF|NOREPLICAS|BUSY) ")
"""Temporary refusals of a server. Before Redis 7, the code is inside the text of a script's
error."""
_NO_GROUP_PAUSE_S = 0.05
"""Pause after a read of a queue that does not exist, to avoid a busy loop."""
_PATTERN = "`romul acl --experiment PATTERN` sets the names that its users may access"
_RIGHTS = "use a user of another role; `romul acl` renews rights of an older version"
_NO_RIGHT = "ACL failure in script"
"""Part of the error of a script in which a command is not permitted."""
NO_ACCESS = "refuses access"
UNTRUSTED = "has a certificate that is not trusted here"


class NoGroupError(StoreError):
    """A queue does not exist: its experiment was removed in the meantime."""


def what_it_cannot(error: Exception) -> str | None:
    """The predicate "the server ..." for an error caused by the server's state, else None."""
    text = str(error)
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError) or _NO_NODE in text:
        if isinstance(error, AuthenticationError) or _LOGIN.search(text):
            return NO_ACCESS
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return UNTRUSTED
        return "does not speak TLS correctly" if "[SSL" in text else "does not answer"
    if isinstance(error, _UNABLE) or _UNABLE_CODES.search(text):
        return "cannot do it now"
    return None


def store_error(error: Exception, keys: Sequence[str] = ()) -> StoreError:
    """Convert an exception of the client; `keys` are those of the request."""
    if (what := what_it_cannot(error)) is not None:
        return StoreUnavailableError(f"the server {what}: {error}")
    if isinstance(error, NoPermissionError) or _NO_RIGHT in str(error):
        name = experiment_of(keys[0]) if keys else ""
        # Of a command the server says that there is no permission to run it.
        about_key = name and " access " in str(error)
        hint = f"experiment {name!r}; {_PATTERN}" if about_key else _RIGHTS
        return AccessError(f"the server refuses: {error} ({hint})")
    if "NOGROUP" in str(error):
        return NoGroupError(str(error))
    if str(error).startswith(_DAMAGED):
        what = str(error).removeprefix(_DAMAGED)
        return StoreError(f"{what}; see docs/redis.md for the expected content")
    if "WRONGTYPE" in str(error):
        return WrongTypeError(_NAMED.findall(str(error)) or keys, error)
    return StoreError(f"the server refuses: {error}")


@contextlib.contextmanager
def reading(key: str) -> Iterator[None]:
    """Convert a ValueError inside the block to a StoreError that names the key.

    Raises:
        StoreError: a ValueError was raised in the block.
    """
    try:
        yield
    except ValueError as error:
        raise StoreError(
            f"{key} cannot be read: {error}; see docs/redis.md for the expected content"
        ) from error


async def reply(request: Awaitable[Any] | Any, *keys: str) -> Any:
    """Await the reply to a request.

    Args:
        request: a request of the client.
        keys: keys that it concerns, for errors.

    Raises:
        StoreUnavailableError: the server does not answer.
        NoGroupError: a queue does not exist.
        StoreError: the server rejects the request.
    """
    try:
        with reraise_cancellation():
            return await request
    except CLIENT_ERRORS as error:
        raise store_error(error, keys) from error


class Connection:
    """The client and the scripts, which all roles share.

    Args:
        url: URL of the server; see `romul_actors.store.redis.urls`.

    Attributes:
        url: the URL.
        client: the client of redis-py.
        is_cluster: whether the server is a Cluster.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Any, because the client of a Cluster is another class.
        self.client: Any = connect(url)
        self.is_cluster = isinstance(self.client, RedisCluster)
        self._waits = 0
        self._left_out: dict[str, int] = {}
        self._refused: set[str] = set()
        self._scripts = {
            path.name.removesuffix(".lua"): self.client.register_script(path.read_text())
            for path in _SCRIPTS.iterdir()
            if path.name.endswith(".lua")
        }

    @property
    def place(self) -> str:
        """The URL without its password."""
        return hide_password(self.url)

    def unknown(self, name: str) -> UnknownExperimentError:
        """The error for an experiment that does not exist."""
        return UnknownExperimentError(f"no experiment {name!r} on {self.place}")

    def leave_out(self, key: str, faults: Sequence[str]) -> None:
        """Warn of entries of a key that are skipped, once for each new number of them."""
        if faults and self._left_out.get(key) != len(faults):
            log.warning(
                "%s: %d entries cannot be read and are skipped, the first: %s",
                key,
                len(faults),
                faults[0],
            )
        self._left_out[key] = len(faults)

    @contextlib.contextmanager
    def going_on_without(self, key: str) -> Iterator[None]:
        """Warn of a key of a wrong type instead of failing, once until it is correct again."""
        try:
            yield
        except WrongTypeError as error:
            # Different errors can mean the same fault: remember the key, not the text.
            if key not in self._refused:
                log.warning("%s: %s", experiment_of(key), error)
            self._refused.add(key)
        else:
            self._refused.discard(key)

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script."""
        return await reply(
            self._scripts[script](keys=list(keys), args=list(args)), *keys[:MOST_NAMED], _OTHERS
        )

    async def run_read_only(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script that writes nothing, as a user without write access."""
        known = self._scripts[script]
        try:
            with reraise_cancellation():
                return await self.client.evalsha_ro(known.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await reply(
                self.client.eval_ro(known.script, len(keys), *keys, *args),
                *keys[:MOST_NAMED],
                _OTHERS,
            )
        except ResponseError as error:
            # Before Redis 7 there is neither this command nor read-only access to keys.
            if "unknown command" not in str(error).lower():
                raise store_error(error, (*keys[:MOST_NAMED], _OTHERS)) from error
            return await self.run(script, keys, args)
        except CLIENT_ERRORS as error:
            raise store_error(error) from error

    async def read_groups(
        self,
        group: str,
        consumer: str,
        streams: Mapping[str, str],
        count: int,
        block_ms: int,
    ) -> list[tuple[str, list[Any]]]:
        """New entries by stream, of several experiments.

        On a Cluster, or if a stream was removed in the meantime, each experiment is read by itself.
        """
        if streams and not self.is_cluster:
            # A single missing stream makes the read of all fail.
            with contextlib.suppress(NoGroupError):
                return await self.read_streams(group, consumer, streams, count, block_ms)
        shards: dict[str, dict[str, str]] = {}
        for stream, after in streams.items():
            shards.setdefault(experiment_of(stream), {})[stream] = after
        if len(shards) <= 1:
            return await self.read_group(group, consumer, streams, count, block_ms)
        found: list[tuple[str, list[Any]]] = []
        for shard in shards.values():
            with contextlib.suppress(NoGroupError):
                found += await self.read_streams(group, consumer, shard, count, None)
        if not found:
            # Wait at one shard; the next call waits at the next shard.
            self._waits += 1
            shard = list(shards.values())[self._waits % len(shards)]
            wait_ms = max(10, block_ms // len(shards))
            found = await self.read_group(group, consumer, shard, count, wait_ms)
        return found

    async def read_group(
        self,
        group: str,
        consumer: str,
        streams: Mapping[str, str],
        count: int,
        block_ms: int | None,
    ) -> list[tuple[str, list[Any]]]:
        """New entries by stream; empty if a stream was removed in the meantime."""
        if not streams:
            await asyncio.sleep((block_ms or 0) / 1000)
            return []
        try:
            return await self.read_streams(group, consumer, streams, count, block_ms)
        except NoGroupError:
            await asyncio.sleep(_NO_GROUP_PAUSE_S)
            return []

    async def read_streams(
        self,
        group: str,
        consumer: str,
        streams: Mapping[str, str],
        count: int,
        block_ms: int | None,
    ) -> list[tuple[str, list[Any]]]:
        """New entries by stream.

        Raises:
            NoGroupError: a stream does not exist.
            WrongTypeError: a key is not a stream.
        """
        # BLOCK 0 would wait forever.
        found = await reply(
            self.client.xreadgroup(
                group, consumer, cast("Any", dict(streams)), count, block_ms or None
            ),
            *streams,
        )
        return [(stream.decode(), rows) for stream, rows in found or []]

    async def now_ms(self, experiment: str) -> int:
        """Time of the server that has the experiment, in milliseconds since the epoch."""
        if self.is_cluster:
            node = self.client.get_node_from_key(key(experiment))
            seconds, microseconds = await reply(self.client.time(target_nodes=node))
        else:
            seconds, microseconds = await reply(self.client.time())
        return int(seconds * 1000 + microseconds // 1000)

    async def info(self) -> list[Mapping[str, Any]]:
        """The reply of each server to INFO.

        Raises:
            CLIENT_ERRORS: a server does not answer, or denies access.
        """
        with reraise_cancellation():
            if self.is_cluster:
                by_node = await self.client.info(target_nodes=RedisCluster.PRIMARIES)
                return list(by_node.values())
            return [await self.client.info()]
