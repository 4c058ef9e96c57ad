"""What a decision actor may do on the server."""

from collections.abc import Sequence
from typing import Any, cast

import msgpack

from romul_actors.store.keys import GROUPS, key, slot_key
from romul_actors.store.redis.connection import NoGroupError, reply
from romul_actors.store.redis.queues import RedisQueues
from romul_actors.store.redis.reader import RedisReader
from romul_actors.store.redis.replies import flatten, read_entries, read_name
from romul_actors.store.roles import ActorStore
from romul_actors.store.values import Commit, Entry, Lease


class RedisActor(RedisReader, RedisQueues, ActorStore):
    """Reads of the inbox, commits, ticks, and sweeps of lost leases."""

    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        streams = {key(name, "inbox"): ">" for name in names}
        found = await self.connection.read_groups(GROUPS["inbox"], actor, streams, count, block_ms)
        return [entry for name, rows in found for entry in read_entries(name, rows)]

    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        streams = {key(name, "inbox"): "0"}
        found = await self.connection.read_group(GROUPS["inbox"], actor, streams, count, None)
        return [entry for _, rows in found for entry in read_entries(name, rows)]

    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        request = self.connection.client.xautoclaim(
            key(name, "inbox"), GROUPS["inbox"], actor, idle_ms, count=count
        )
        try:
            found = await reply(request)
        except NoGroupError:
            return []
        return read_entries(name, found[1])

    async def commit(self, name: str, actor: str, commit: Commit) -> str | None:
        parts = ("", "inbox", "trials", "history", "garbage")
        keys = [key(name, part) for part in parts]
        keys += [slot_key(name, index) for index in commit.slots]
        content = {
            "version": commit.version,
            "entries": commit.entries,
            "meta": flatten(commit.meta),
            "slots": [flatten(fields) for fields in commit.slots.values()],
            "trials": commit.trials,
            "history": commit.history,
            "keep": commit.history_keep,
            "garbage": commit.garbage,
            "nonce": commit.nonce,
        }
        # The old raw type: the server's own MessagePack does not know the newer binary one.
        packed = msgpack.packb(content, use_bin_type=False)
        version = await self.connection.run("commit", keys, [actor, packed])
        return None if version is None else cast("bytes", version).decode()

    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        keys = [key(name, "tick"), key(name, "inbox")]
        return bool(await self.connection.run("tick", keys, [every_ms, body]))

    async def sweep(
        self, name: str, actor: str, idle_ms: int, count: int, worker: str | None = None
    ) -> list[tuple[Lease, str]]:
        stream, group = key(name, "trials"), GROUPS["trials"]
        client = self.connection.client
        try:
            stale = await reply(
                client.xpending_range(
                    stream, group, "-", "+", count, consumername=worker, idle=idle_ms
                )
            )
        except NoGroupError:
            return []
        if not stale:
            return []
        last = {row["message_id"]: read_name(row["consumer"]) for row in stale}
        ids = cast("Any", list(last))
        rows = await reply(client.xclaim(stream, group, actor, idle_ms, ids))
        return [
            (Lease(name, entry_id.decode(), actor, (fields or {}).get(b"m", b"")), last[entry_id])
            for entry_id, fields in rows
        ]
