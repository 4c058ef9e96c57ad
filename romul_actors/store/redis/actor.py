"""The actor's methods of the store on a server."""

from collections.abc import Sequence
from typing import Any, cast

import msgpack

from romul_actors.errors import StoreError
from romul_actors.store.keys import GROUPS, LEASES, experiment_of, key, slot_key
from romul_actors.store.redis.connection import NoGroupError, reply
from romul_actors.store.redis.queues import RedisQueues
from romul_actors.store.redis.reader import RedisReader
from romul_actors.store.redis.replies import flatten, read_entries, read_name
from romul_actors.store.roles import ActorStore
from romul_actors.store.values import Commit, Committed, Entry, Lease


class RedisActor(RedisReader, RedisQueues, ActorStore):
    """Reads the inbox, commits decisions, sends ticks, and sweeps lost leases."""

    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        streams = {key(name, "inbox"): ">" for name in names}
        found = await self.connection.read_groups(GROUPS["inbox"], actor, streams, count, block_ms)
        return [
            entry for stream, rows in found for entry in read_entries(experiment_of(stream), rows)
        ]

    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        streams = {key(name, "inbox"): "0"}
        found = await self.connection.read_group(GROUPS["inbox"], actor, streams, count, None)
        return [entry for _, rows in found for entry in read_entries(name, rows)]

    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        request = self.connection.client.xautoclaim(
            key(name, "inbox"), GROUPS["inbox"], actor, idle_ms, count=count
        )
        try:
            found = await reply(request, key(name, "inbox"))
        except NoGroupError:
            await self._check_removed(name, "inbox")
            return []
        return read_entries(name, found[1])

    async def _is_of(self, name: str, version: str) -> bool:
        """Whether a version belongs to the current experiment of that name, not to a former one."""
        epoch = await reply(self.connection.client.hget(key(name), "epoch"), key(name))
        return epoch is not None and read_name(epoch) == version.partition(".")[0]

    async def _check_removed(self, name: str, queue: str) -> None:
        """Check that the experiment of a missing queue does not exist either.

        Raises:
            StoreError: the experiment exists.
        """
        if await reply(self.connection.client.exists(key(name)), key(name)):
            raise StoreError(
                f"{key(name, queue)} is gone, or has no consumer group {GROUPS[queue]!r}: restore "
                "the server's data, or remove the experiment"
            )

    async def commit(self, name: str, actor: str, commit: Commit) -> Committed | None:
        parts = ("", "inbox", "trials", "history", "garbage")
        keys = [key(name, part) for part in parts]
        keys += [slot_key(name, index) for index in commit.slots]
        content = {
            "version": commit.version,
            "entries": commit.entries,
            "meta": flatten(commit.meta),
            "slots": [flatten(fields) for fields in commit.slots.values()],
            "trials": commit.trials,
            "parents": commit.parents,
            "history": commit.history,
            "keep": commit.history_keep,
            "garbage": commit.garbage,
            "nonce": commit.nonce,
        }
        # The server's MessagePack library does not know the binary type.
        packed = msgpack.packb(content, use_bin_type=False)
        done = await self.connection.run("commit", keys, [actor, packed])
        if done is None:
            return None
        version, release_ms = cast("tuple[bytes, int]", tuple(done))
        return Committed(version.decode(), None if release_ms < 0 else release_ms)

    async def release_offers(self, name: str) -> int | None:
        next_ms = await self._release(name, "")
        return None if next_ms < 0 else next_ms

    async def _release(self, name: str, gone: str) -> int:
        keys = [key(name, part) for part in ("offers", "trials", "affinity")]
        return int(await self.connection.run("release", keys, [gone]))

    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        keys = [key(name, "tick"), key(name, "inbox")]
        # The server rejects an expiry of 0 ms.
        return bool(await self.connection.run("tick", keys, [max(1, every_ms), body]))

    async def forget_readers(self, name: str, idle_ms: int, reader: str = "") -> None:
        keys = [key(name, part) for part in ("inbox", *LEASES)]
        await self.connection.run("forget_readers", keys, [idle_ms, reader])

    async def set_fault(self, name: str, fault: str) -> None:
        await self.connection.run("fault", [key(name)], [fault])

    async def sweep(
        self,
        name: str,
        actor: str,
        idle_ms: int,
        count: int,
        worker: str | None = None,
        version: str = "",
    ) -> list[tuple[Lease, str]]:
        if worker == "":
            # The server takes an empty name for all consumers.
            return []
        await self._release(name, worker or "")
        swept: list[tuple[Lease, str]] = []
        for stream in LEASES:
            if len(swept) < count:
                left = count - len(swept)
                swept += await self._sweep(name, stream, actor, idle_ms, left, worker, version)
        return swept

    async def _sweep(
        self,
        name: str,
        leases: str,
        actor: str,
        idle_ms: int,
        count: int,
        worker: str | None,
        version: str,
    ) -> list[tuple[Lease, str]]:
        stream, group = key(name, leases), GROUPS["trials"]
        client = self.connection.client
        try:
            stale = await reply(
                client.xpending_range(
                    stream, group, "-", "+", count, consumername=worker, idle=idle_ms
                ),
                stream,
            )
        except NoGroupError:
            # The stream of targeted leases exists only after the first offer.
            if leases in GROUPS:
                await self._check_removed(name, leases)
            return []
        if not stale or (version and not await self._is_of(name, version)):
            return []
        last = {row["message_id"]: read_name(row["consumer"]) for row in stale}
        ids = cast("Any", list(last))
        rows = await reply(client.xclaim(stream, group, actor, idle_ms, ids), stream)
        return [
            (
                Lease(name, entry_id.decode(), actor, (fields or {}).get(b"m", b""), leases),
                last[entry_id],
            )
            for entry_id, fields in rows
        ]
