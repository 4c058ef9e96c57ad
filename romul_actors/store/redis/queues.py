"""What workers, actors and operators may all do on the server."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from romul_actors.store.keys import GROUPS, key
from romul_actors.store.redis.catalog import RedisCatalog
from romul_actors.store.redis.connection import Connection, reply
from romul_actors.store.roles import QueueStore
from romul_actors.store.values import MAX_DEAD, MAX_DEAD_BODY, Lease


async def run_beat(
    connection: Connection,
    name: str,
    worker: str,
    presence: Mapping[str, Any],
    entry_id: str = "",
    slot: int = 0,
    trial: str = "",
) -> Any:
    """Run beat.lua: the worker's presence and, with an entry, its lease."""
    keys = [key(name, part) for part in ("workers", "trials", "settled")]
    body = to_json(presence) if presence else b""
    return await connection.run("beat", keys, [worker, body, entry_id, slot, trial, key(name)])


class RedisQueues(RedisCatalog, QueueStore):
    """Messages to the inbox, ends of leases, dead messages and presence."""

    async def send(self, name: str, body: bytes) -> None:
        request = self.connection.client.xadd(key(name, "inbox"), {"m": body}, nomkstream=True)
        if await reply(request) is None:
            raise self.connection.unknown(name)

    async def settle(self, lease: Lease, slot: int, token: str, body: bytes) -> bool:
        name = lease.experiment
        keys = [key(name, "trials"), key(name, "settled")]
        args = [lease.worker, lease.id, token, body, slot, key(name, "inbox")]
        return bool(await self.connection.run("settle", keys, args))

    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        args: list[Any] = [GROUPS[queue], queue, MAX_DEAD, key(name, "dead")]
        for entry_id, reason, body in unusable:
            args += [entry_id, reason, body[:MAX_DEAD_BODY], len(body)]
        return int(await self.connection.run("dead_letter", [key(name, queue)], args))

    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        for name in names:
            await run_beat(self.connection, name, worker, presence)
