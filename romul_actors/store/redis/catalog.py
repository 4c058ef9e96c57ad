"""The methods of all roles of the store on a server."""

import logging
import os
import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from romul_actors.errors import StoreError, StoreUnavailableError, TlsError
from romul_actors.store.keys import EXPERIMENTS, key
from romul_actors.store.redis.connection import (
    CLIENT_ERRORS,
    NO_ACCESS,
    UNTRUSTED,
    Connection,
    reading,
    reply,
    store_error,
    what_it_cannot,
)
from romul_actors.store.redis.replies import read_each
from romul_actors.store.roles import CatalogStore
from romul_actors.waiting import reraise_cancellation

log = logging.getLogger("romul.store")

MIN_VERSION = (6, 2)
"""XAUTOCLAIM and XPENDING ... IDLE require Redis 6.2."""
_TLS = re.compile("CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER")
"""Permanent TLS errors. Others may come from a server that is shutting down."""
_INCOMPLETE = re.compile(r"(?i)missing \w+ key|key usage|basic constraints|not marked critical")
"""Errors of certificates that only OpenSSL's strict mode refuses: Python's default since 3.13."""


def _remedy(place: str, error: Exception) -> str:
    """Advice for the case that no server answers, or that it is not trusted."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _remedy_of_certificate(str(error))
    if place.startswith("rediss"):
        return "is it running, does it speak TLS, and is the URL right?"
    if "closed by server" in str(error) and place.startswith("redis"):
        return "does it require TLS? Then the URL must begin with rediss"
    return "is it running, and is the URL right?"


def _remedy_of_certificate(error: str) -> str:
    """Advice for the case that the server's certificate is refused."""
    if "certificate is not valid for" in error:
        return "the host in the URL must be a name that the server's certificate is for"
    if _INCOMPLETE.search(error):
        return "make it anew: Python 3.13 and later require all that RFC 5280 does of a certificate"
    if "has expired" in error or "not yet valid" in error:
        return "renew the server's certificate, or set the clock of this machine"
    file = os.environ.get("SSL_CERT_FILE")
    if file and not Path(file).is_file():
        return f"the environment variable SSL_CERT_FILE names {file}, but no file is there"
    return (
        "for a certificate authority of your own, set the environment variable SSL_CERT_FILE "
        "to the file with its certificate"
    )


def _refusal(error: ResponseError) -> str:
    """The server's refusal, with advice if the URL causes it."""
    if "DB index" not in str(error):
        return str(error)
    return f"{error}; check the number of the database at the end of the URL"


class RedisCatalog(CatalogStore):
    """Reads the list of experiments and their declarations.

    Args:
        connection: connection to the server, as a user of any role.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._names: list[str] = []
        self._unlisted: list[str] = []

    async def experiments(self) -> dict[str, str]:
        client = self.connection.client
        if self.connection.is_cluster:
            listed = self._read_names(await reply(client.smembers(EXPERIMENTS)))
            # The keys are on several shards, which one pipeline cannot reach.
            known = {
                name: await _reply_or_refusal(client.hget(key(name), "status"))
                for name in {*listed, *self._names}
            }
            names = self._names = self._with_unlisted(listed, known)
            statuses = [known[name] for name in names]
        else:
            # The names are usually the same as before: then one call is enough.
            asked = self._names
            found, *statuses = await self._statuses(asked)
            known = dict(zip(asked, statuses, strict=True))
            names = self._with_unlisted(self._read_names(found), known)
            if names != asked:
                self._names = names
                _, *statuses = await self._statuses(names)
        pairs, faults = read_each(zip(names, statuses, strict=True), _read_status)
        self.connection.leave_out("status of an experiment", faults)
        return {name: status for name, status in pairs if status is not None}

    def _with_unlisted(self, listed: Sequence[str], statuses: Mapping[str, Any]) -> list[str]:
        """The listed names, and known names that are not listed although the experiment exists.

        Teams share the list, and every operator may remove names. That must not stop a search.
        """
        there = [name for name, status in statuses.items() if isinstance(status, bytes)]
        kept = sorted({*there}.difference(listed))
        for name in kept:
            if name not in self._unlisted:
                log.warning(
                    "experiment %s exists, but %s does not list it: run `SADD %s %s` on the server "
                    "so that other programs find it again",
                    *(name, EXPERIMENTS, EXPERIMENTS, name),
                )
        self._unlisted = kept
        return sorted([*listed, *kept])

    async def _statuses(self, names: Sequence[str]) -> list[Any]:
        """The set of all names, then the status of each of `names`, or an error in its place."""
        async with self.connection.client.pipeline(transaction=False) as pipeline:
            pipeline.smembers(EXPERIMENTS)
            for name in names:
                pipeline.hget(key(name), "status")
            found: list[Any] = await reply(pipeline.execute(raise_on_error=False))
        if isinstance(found[0], RedisError):
            raise store_error(found[0]) from found[0]
        return found

    def _read_names(self, found: Iterable[bytes]) -> list[str]:
        names, faults = read_each(found, bytes.decode)
        self.connection.leave_out(EXPERIMENTS, faults)
        return sorted(names)

    async def spec(self, name: str) -> str:
        text = await reply(self.connection.client.hget(key(name), "spec"), key(name))
        if text is None:
            raise self.connection.unknown(name)
        with reading(key(name)):
            return cast("bytes", text).decode()

    async def protocol(self, name: str) -> str:
        found = await reply(self.connection.client.hget(key(name), "protocol"), key(name))
        with reading(key(name)):
            return cast("bytes", found or b"").decode()

    async def reported(self, name: str) -> int:
        found = await reply(self.connection.client.hget(key(name), "reported"), key(name))
        with reading(key(name)):
            return int(cast("bytes", found) or 0)

    async def info(self) -> list[Mapping[str, Any]]:
        """The reply of each server to INFO."""
        return await self.connection.info()

    async def now_ms(self) -> int:
        """The server's time, in milliseconds since the epoch."""
        return await self.connection.now_ms("any")

    async def check(self) -> list[str]:
        place = self.connection.place
        try:
            infos = await self.info()
        except CLIENT_ERRORS as error:
            what = what_it_cannot(error)
            if what == NO_ACCESS or isinstance(error, NoPermissionError):
                raise StoreError(f"{place}: access refused: {error}") from None
            if what is None and isinstance(error, ResponseError):
                raise StoreError(f"{place}: the server refuses: {_refusal(error)}") from None
            said = (
                f"the server {what}" if what == UNTRUSTED else "no Redis or Valkey server answers"
            )
            kind = TlsError if _TLS.search(str(error)) else StoreUnavailableError
            raise kind(f"{place}: {said} ({error}); {_remedy(place, error)}") from None
        warnings = [warning for info in infos for warning in _check_server(place, info)]
        return list(dict.fromkeys(warnings))

    async def close(self) -> None:
        await self.connection.client.aclose()


async def _reply_or_refusal(request: Awaitable[Any]) -> Any:
    """The reply to a request, or the error if the server rejects it, as in a pipeline."""
    try:
        with reraise_cancellation():
            return await request
    except ResponseError as error:
        return error
    except CLIENT_ERRORS as error:
        raise store_error(error) from error


def _read_status(pair: tuple[str, Any]) -> tuple[str, str | None]:
    """Name and status of an experiment; None: it is gone, or this user may not read it.

    Raises:
        ValueError: the status cannot be read.
        StoreError: the server rejected the request for another reason.
    """
    name, status = pair
    if status is None or isinstance(status, NoPermissionError):
        return name, None
    if "WRONGTYPE" in str(status):
        raise ValueError("not a hash")
    if isinstance(status, RedisError):
        raise store_error(status) from status
    return name, status.decode()


def _check_server(place: str, info: Mapping[str, Any]) -> list[str]:
    """Warnings about the configuration of one server.

    Raises:
        StoreError: the server is too old, or its configuration would lose data.
    """
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_VERSION:
        raise StoreError(f"{place}: server version {version}: 6.2 or later is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreError(
            f"{place}: maxmemory-policy is {policy!r}: the server would discard parts of the "
            "population when memory runs out; set it to 'noeviction'"
        )
    if not info.get("aof_enabled"):
        what = "appendonly is off: if the server crashes, unsaved data is lost"
        remedy = "run CONFIG SET appendonly yes, and set it in the configuration file"
        return [f"{place}: {what}; {remedy}"]
    return []
