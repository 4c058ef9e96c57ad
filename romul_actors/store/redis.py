"""The store on a Redis or Valkey server: streams, consumer groups, and one Lua script a step.

All keys of an experiment share the hash tag {NAME}, so that a Cluster keeps them on one shard.
What programs exchange is MessagePack; what people read is text.
"""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

import msgpack
from pydantic_core import from_json, to_json
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from romul_actors.errors import (
    ExperimentExistsError,
    StoreError,
    StoreUnavailableError,
    UnknownExperimentError,
)
from romul_actors.store.base import (
    MAX_DEAD,
    MAX_DEAD_BODY,
    MAX_LOG,
    MAX_LOGS,
    Beat,
    Commit,
    DeadLetter,
    Entry,
    Glance,
    Lease,
    Output,
    Outstanding,
    Store,
    Stored,
)
from romul_actors.store.connect import connect, hide_password
from romul_actors.waiting import reraise_cancellation


class _NoGroupError(StoreError):
    """A queue is not there: its experiment was removed meanwhile."""


EXPERIMENTS = "romul:experiments"
MIN_VERSION = (6, 2)
"""XAUTOCLAIM and XPENDING ... IDLE came with Redis 6.2."""
LAST_MS = 2**53
"""A number beyond this one is no time."""

_GROUPS = {"inbox": "actors", "trials": "workers"}
_SCRIPTS = files("romul_actors.store") / "scripts"


class RedisStore(Store):
    """A store on one server, behind Sentinels or on a Cluster; see `Store` for the promises.

    Args:
        url: see `romul_actors.store.connect`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Typed as what it offers in both cases; a Cluster's client is a class of its own.
        self._redis: Any = connect(url)
        self._cluster = isinstance(self._redis, RedisCluster)
        self._turn = 0
        self._scripts = {
            path.name.removesuffix(".lua"): self._redis.register_script(path.read_text())
            for path in _SCRIPTS.iterdir()
            if path.name.endswith(".lua")
        }

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await _reply(self._scripts[script](keys=list(keys), args=list(args)))

    async def _look(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script that writes nothing, for users that may write nothing."""
        known = self._scripts[script]
        try:
            with reraise_cancellation():
                return await self._redis.evalsha_ro(known.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await _reply(self._redis.eval_ro(known.script, len(keys), *keys, *args))
        except ResponseError as error:
            # Before Redis 7 there is no such command, and no user that may only read a key.
            if "unknown command" not in str(error).lower():
                raise StoreError(f"the server refuses: {error}") from error
            return await self._run(script, keys, args)
        except (RedisError, OSError) as error:
            return await _reply(_raised(error))

    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        token = secrets.token_hex(8)
        keys = [_key(name), _key(name, "inbox"), _key(name, "trials")]
        created = await self._run("create", keys, [spec, submitted, token])
        # Also when it existed: a creator that was killed between the two calls is healed so.
        await _reply(self._redis.sadd(EXPERIMENTS, name))
        if not created:
            raise ExperimentExistsError(f"experiment {name!r} exists already")

    async def remove(self, name: str) -> bool:
        parts = (
            "inbox",
            "trials",
            "history",
            "dead",
            "workers",
            "settled",
            "garbage",
            "tick",
            "logs",
        )
        removed = await self._run("remove", [_key(name), *(_key(name, p) for p in parts)], [])
        await _reply(self._redis.srem(EXPERIMENTS, name))
        return bool(removed)

    async def experiments(self) -> dict[str, str]:
        names = sorted(n.decode() for n in await _reply(self._redis.smembers(EXPERIMENTS)))
        if not names:
            return {}
        if self._cluster:
            # Of several shards: no pipeline reaches them all.
            statuses = [await _reply(self._redis.hget(_key(name), "status")) for name in names]
        else:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hget(_key(name), "status")
                statuses = await _reply(pipeline.execute(raise_on_error=False))
        # Of those that this user may not read only the name is known.
        found = {n: s for n, s in zip(names, statuses, strict=True) if not _forbidden(s)}
        return {name: status.decode() for name, status in found.items() if status is not None}

    async def spec(self, name: str) -> str:
        text = await _reply(self._redis.hget(_key(name), "spec"))
        if text is None:
            raise UnknownExperimentError(f"no experiment {name!r} on {hide_password(self.url)}")
        return cast("bytes", text).decode()

    async def reported(self, name: str) -> int:
        return int(cast("bytes", await _reply(self._redis.hget(_key(name), "reported"))) or 0)

    async def load(self, name: str) -> Stored:
        found = await self._look("load", [_key(name)], [])
        if found is None:
            raise UnknownExperimentError(f"no experiment {name!r} on {hide_password(self.url)}")
        version, meta, slots = found
        return Stored(version.decode(), _fields(meta), [_fields(row) for row in slots])

    async def history(
        self, name: str, after: str = "0", count: int = 1000
    ) -> list[tuple[str, str]]:
        rows = await _reply(self._redis.xrange(_key(name, "history"), f"({after}", "+", count))
        return [(entry_id.decode(), fields[b"json"].decode()) for entry_id, fields in rows]

    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        parts = ("", "workers", "inbox", "trials", "history", "dead")
        keys = [_key(name, part) for part in parts]
        found = await self._look("glance", keys, [after, count, *fields])
        if found is None:
            raise UnknownExperimentError(f"no experiment {name!r} on {hide_password(self.url)}")
        now, meta, slots, workers, depths, lines = found
        now_ms = int(now)
        return Glance(
            now_ms,
            _fields(meta),
            [
                {field: (value or b"").decode() for field, value in zip(fields, row, strict=True)}
                for row in slots
            ],
            _workers(zip(workers[::2], workers[1::2], strict=True), now_ms),
            dict(zip(("inbox", "trials", "history", "dead"), depths, strict=True)),
            [(entry_id.decode(), pairs[1].decode()) for entry_id, pairs in lines],
        )

    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        rows = await _reply(self._redis.xrange(_key(name, "dead"), f"({after}", "+", count))
        return [
            DeadLetter(
                entry_id.decode(),
                fields[b"origin"].decode(),
                fields[b"reason"].decode(),
                fields[b"body"],
                int(fields[b"size"]),
            )
            for entry_id, fields in rows
        ]

    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        keys = [_key(name, "dead"), _key(name, dead.origin)]
        return bool(await self._run("resubmit", keys, [dead.id, dead.body]))

    async def drop(self, name: str, ids: Sequence[str]) -> int:
        return int(await _reply(self._redis.xdel(_key(name, "dead"), *ids))) if ids else 0

    async def send(self, name: str, body: bytes) -> None:
        key = _key(name, "inbox")
        if await _reply(self._redis.xadd(key, {"m": body}, nomkstream=True)) is None:
            raise UnknownExperimentError(f"no experiment {name!r} on {hide_password(self.url)}")

    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        streams = {_key(name, "inbox"): ">" for name in names}
        return [
            entry
            for name, rows in await self._read_many("actors", actor, streams, count, block_ms)
            for entry in _entries(name, rows)
        ]

    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        streams = {_key(name, "inbox"): "0"}
        found = await self._read_group("actors", actor, streams, count, None)
        return [entry for _, rows in found for entry in _entries(name, rows)]

    async def _read_many(
        self,
        group: str,
        consumer: str,
        streams: Mapping[str, str],
        count: int,
        block_ms: int,
    ) -> list[tuple[str, list[Any]]]:
        """New entries of several experiments; on a Cluster one shard is asked at a time."""
        if not self._cluster or len(streams) <= 1:
            return await self._read_group(group, consumer, streams, count, block_ms)
        found: list[tuple[str, list[Any]]] = []
        for key, after in streams.items():
            found += await self._read_group(group, consumer, {key: after}, count, None)
        if not found:
            # Each stream in its turn is the one that is waited for.
            self._turn += 1
            key = list(streams)[self._turn % len(streams)]
            wait_ms = max(10, block_ms // len(streams))
            found = await self._read_group(group, consumer, {key: streams[key]}, count, wait_ms)
        return found

    async def _read_group(
        self,
        group: str,
        consumer: str,
        streams: Mapping[str, str],
        count: int,
        block_ms: int | None,
    ) -> list[tuple[str, list[Any]]]:
        """New entries by experiment; nothing where a stream was removed meanwhile."""
        if not streams:
            await asyncio.sleep((block_ms or 0) / 1000)
            return []
        try:
            # BLOCK 0 would mean: for ever.
            found = await _reply(
                self._redis.xreadgroup(
                    group, consumer, cast("Any", dict(streams)), count, block_ms or None
                )
            )
        except _NoGroupError:
            await asyncio.sleep(0.05)
            return []
        return [(_name(key.decode()), rows) for key, rows in found or []]

    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        found = await self._claim(name, "inbox", actor, idle_ms, count)
        return _entries(name, found)

    async def _claim(
        self, name: str, queue: str, consumer: str, idle_ms: int, count: int
    ) -> list[Any]:
        try:
            found = await _reply(
                self._redis.xautoclaim(
                    _key(name, queue), _GROUPS[queue], consumer, idle_ms, count=count
                )
            )
        except _NoGroupError:
            return []
        return cast("list[Any]", found[1])

    async def commit(self, name: str, actor: str, commit: Commit) -> str | None:
        keys = [_key(name, part) for part in ("", "inbox", "trials", "history", "garbage")]
        keys += [_key(name, "slot", index) for index in commit.slots]
        content = {
            "version": commit.version,
            "entries": commit.entries,
            "meta": _flat(commit.meta),
            "slots": [_flat(fields) for fields in commit.slots.values()],
            "trials": commit.trials,
            "history": commit.history,
            "keep": commit.history_keep,
            "garbage": commit.garbage,
            "nonce": commit.nonce,
        }
        # The old raw type: the server's own MessagePack does not know the newer binary one.
        packed = msgpack.packb(content, use_bin_type=False)
        version = await self._run("commit", keys, [actor, packed])
        return None if version is None else cast("bytes", version).decode()

    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        args: list[Any] = [_GROUPS[queue], queue, MAX_DEAD, _key(name, "dead")]
        for entry_id, reason, body in unusable:
            args += [entry_id, reason, body[:MAX_DEAD_BODY], len(body)]
        return int(await self._run("dead_letter", [_key(name, queue)], args))

    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        keys = [_key(name, "tick"), _key(name, "inbox")]
        return bool(await self._run("tick", keys, [every_ms, body]))

    async def sweep(
        self, name: str, actor: str, idle_ms: int, count: int, worker: str | None = None
    ) -> list[tuple[Lease, str]]:
        key = _key(name, "trials")
        try:
            stale = await _reply(
                self._redis.xpending_range(
                    key, "workers", "-", "+", count, consumername=worker, idle=idle_ms
                )
            )
        except _NoGroupError:
            return []
        if not stale:
            return []
        last = {row["message_id"]: row["consumer"].decode() for row in stale}
        rows = await _reply(
            self._redis.xclaim(key, "workers", actor, idle_ms, cast("Any", list(last)))
        )
        return [
            (Lease(name, entry_id.decode(), actor, fields.get(b"m", b"")), last[entry_id])
            for entry_id, fields in rows
        ]

    async def outstanding(self, name: str) -> Outstanding:
        keys = [_key(name), _key(name, "trials"), _key(name, "inbox")]
        found = await self._look("outstanding", keys, [])
        if found is None:
            raise UnknownExperimentError(f"no experiment {name!r} on {hide_password(self.url)}")
        return Outstanding(found[0].decode(), found[1], found[2])

    async def lease(self, names: Sequence[str], worker: str, block_ms: int) -> Lease | None:
        # One experiment after the other first: a read of many streams takes one entry of each.
        for name in names:
            found = await self._read_group("workers", worker, {_key(name, "trials"): ">"}, 1, None)
            if found:
                return _leases(found, worker)[0]
        streams = {_key(name, "trials"): ">" for name in names}
        leases = _leases(await self._read_many("workers", worker, streams, 1, block_ms), worker)
        for extra in leases[1:]:
            keys = [_key(extra.experiment, "trials")]
            await self._run("put_back", keys, [worker, extra.id, extra.body])
        return leases[0] if leases else None

    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        kept, status, outdated = await self._beat(
            lease.experiment, lease.worker, presence, lease.id, slot, trial
        )
        return Beat(bool(kept), status.decode(), bool(outdated))

    async def _beat(
        self,
        name: str,
        worker: str,
        presence: Mapping[str, Any],
        entry_id: str = "",
        slot: int = 0,
        trial: str = "",
    ) -> Any:
        keys = [_key(name, part) for part in ("workers", "trials", "settled")]
        told = to_json(presence) if presence else b""
        return await self._run("beat", keys, [worker, told, entry_id, slot, trial, _key(name)])

    async def settle(self, lease: Lease, slot: int, token: str, body: bytes) -> bool:
        name = lease.experiment
        keys = [_key(name, part) for part in ("trials", "settled")]
        args = [lease.worker, lease.id, token, body, slot, _key(name, "inbox")]
        return bool(await self._run("settle", keys, args))

    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        for name in names:
            await self._beat(name, worker, presence)

    async def write_output(self, name: str, output: Output) -> None:
        if not await _reply(self._redis.exists(_key(name))):
            return
        fields: Any = {
            "trial": output.trial,
            "attempt": output.attempt,
            "worker": output.worker,
            "text": output.text[-MAX_LOG:],
        }
        await _reply(self._redis.xadd(_key(name, "logs"), fields, maxlen=MAX_LOGS))

    async def outputs(self, name: str, trial: str) -> list[Output]:
        rows = await _reply(self._redis.xrange(_key(name, "logs")))
        return [
            Output(
                trial,
                int(fields[b"attempt"]),
                fields[b"worker"].decode(),
                fields[b"text"].decode(errors="replace"),
            )
            for _, fields in rows
            if fields[b"trial"].decode() == trial
        ]

    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        seconds, microseconds = await _reply(self._time(name))
        limit = seconds * 1000 + microseconds // 1000 - older_ms
        found = await _reply(
            self._redis.zrangebyscore(_key(name, "garbage"), 0, limit, start=0, num=count)
        )
        return [checkpoint.decode() for checkpoint in found]

    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        if checkpoints:
            await _reply(self._redis.zrem(_key(name, "garbage"), *checkpoints))

    def _time(self, name: str) -> Any:
        """Ask the clock of the server that keeps the experiment."""
        if self._cluster:
            return self._redis.time(target_nodes=self._redis.get_node_from_key(_key(name)))
        return self._redis.time()

    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        rows = await _reply(self._redis.hgetall(_key(name, "workers")))
        seconds, microseconds = await _reply(self._time(name))
        now_ms = seconds * 1000 + microseconds // 1000
        return _workers(rows.items(), now_ms)

    async def leases(self, name: str) -> dict[str, str]:
        rows = await _reply(
            self._redis.xpending_range(_key(name, "trials"), "workers", "-", "+", 100_000)
        )
        return {row["message_id"].decode(): row["consumer"].decode() for row in rows}

    async def depths(self, name: str) -> dict[str, int]:
        queues = ("inbox", "trials", "history", "dead")
        async with self._redis.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.xlen(_key(name, queue))
            return dict(zip(queues, await _reply(pipeline.execute()), strict=True))

    async def info(self) -> list[Mapping[str, Any]]:
        """What each server says of itself."""
        with reraise_cancellation():
            if self._cluster:
                by_node = await self._redis.info(target_nodes=RedisCluster.PRIMARIES)
                return list(by_node.values())
            return [await self._redis.info()]

    async def now_ms(self) -> int:
        """The server's time, in milliseconds since the epoch."""
        seconds, microseconds = await _reply(self._time("any"))
        return int(seconds * 1000 + microseconds // 1000)

    async def check(self) -> list[str]:
        where = hide_password(self.url)
        try:
            infos = await self.info()
        except (AuthenticationError, NoPermissionError) as error:
            raise StoreError(f"{where}: access refused: {error}") from None
        except (RedisError, OSError) as error:
            raise StoreError(
                f"{where}: no Redis or Valkey server answers ({error}); "
                "is it running, and is the URL right?"
            ) from None
        warnings = [warning for info in infos for warning in self._check_one(where, info)]
        return list(dict.fromkeys(warnings))

    @staticmethod
    def _check_one(where: str, info: Mapping[str, Any]) -> list[str]:
        version = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_VERSION:
            raise StoreError(f"{where}: server version {version}: 6.2 or later is needed")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise StoreError(
                f"{where}: maxmemory-policy is {policy!r}: the server would throw parts of the "
                "population away when memory is short; set it to 'noeviction'"
            )
        if not info.get("aof_enabled"):
            return [f"{where}: appendonly is off: a crash of the server loses what was not saved"]
        return []

    async def close(self) -> None:
        await self._redis.aclose()


def _forbidden(reply: Any) -> bool:
    """Whether a reply of a pipeline says that the user may not do this.

    Raises:
        StoreError: it is another error.
    """
    if isinstance(reply, NoPermissionError):
        return True
    if isinstance(reply, RedisError):
        raise StoreError(f"the server refuses: {reply}") from reply
    return False


def _key(name: str, *parts: object) -> str:
    return ":".join(["romul", f"{{{name}}}", *(str(part) for part in parts if part != "")])


def _name(key: str) -> str:
    return key.partition("{")[2].partition("}")[0]


def _workers(rows: Iterable[tuple[bytes, bytes]], now_ms: int) -> dict[str, dict[str, Any]]:
    """Presence of each worker: a worker may have written anything, for a name as for a value."""
    return {name.decode(errors="backslashreplace"): _presence(text, now_ms) for name, text in rows}


def _presence(text: bytes, now_ms: int) -> dict[str, Any]:
    found: Any = None
    with contextlib.suppress(ValueError):
        found = from_json(text)
    presence: dict[str, Any] = found if isinstance(found, dict) else {}
    seen_ms = presence.pop("seen_ms", None)
    # A worker whose entry does not say when it was seen was never seen.
    known = type(seen_ms) in (int, float) and abs(seen_ms) < LAST_MS
    presence["age_ms"] = max(0, now_ms - int(seen_ms)) if known else now_ms
    return presence


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _fields(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _entries(name: str, rows: Sequence[Any]) -> list[Entry]:
    return [
        Entry(
            name, entry_id.decode(), int(entry_id.partition(b"-")[0]), (fields or {}).get(b"m", b"")
        )
        for entry_id, fields in rows
    ]


def _leases(found: Sequence[tuple[str, list[Any]]], worker: str) -> list[Lease]:
    return [
        Lease(name, entry_id.decode(), worker, fields.get(b"m", b""))
        for name, rows in found
        for entry_id, fields in rows
    ]


async def _raised(error: BaseException) -> Any:
    raise error


async def _reply(reply: Awaitable[Any] | Any) -> Any:
    """Await a reply, and turn the client's errors into this project's."""
    try:
        with reraise_cancellation():
            return await reply
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise StoreUnavailableError(f"the server does not answer: {error}") from error
    except RedisError as error:
        if "NOGROUP" in str(error):
            raise _NoGroupError(str(error)) from None
        raise StoreError(f"the server refuses: {error}") from error
