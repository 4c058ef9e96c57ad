"""The methods that workers, actors and operators share, of the store on a server."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from romul_actors.store.keys import GROUPS, LEASES, bell_key, key
from romul_actors.store.redis.catalog import RedisCatalog
from romul_actors.store.redis.connection import Connection, reply
from romul_actors.store.roles import QueueStore
from romul_actors.store.values import MAX_DEAD, MAX_DEAD_BODY, Hold, Lease


async def run_beat(
    connection: Connection,
    name: str,
    worker: str,
    presence: Mapping[str, Any],
    entry_id: str = "",
    slot: int = 0,
    trial: str = "",
    stream: str = "trials",
) -> Any:
    """Run beat.lua, which records the worker's presence and, if given, extends its lease."""
    keys = [key(name, part) for part in ("workers", stream, "settled")]
    body = to_json(presence) if presence else b""
    return await connection.run("beat", keys, [worker, body, entry_id, slot, trial, key(name)])


class RedisQueues(RedisCatalog, QueueStore):
    """Sends messages to the inbox, ends leases, and stores dead letters and presence."""

    async def send(self, name: str, body: bytes) -> None:
        request = self.connection.client.xadd(key(name, "inbox"), {"m": body}, nomkstream=True)
        if await reply(request, key(name, "inbox")) is None:
            raise self.connection.unknown(name)

    async def settle(
        self, lease: Lease, slot: int, token: str, body: bytes, hold: Hold | None = None
    ) -> bool | None:
        name = lease.experiment
        keys = [key(name, lease.stream), key(name, "settled")]
        args: list[Any] = [lease.worker, lease.id, token, body, slot, key(name, "inbox")]
        if hold is not None:
            restored = "" if hold.warm is None else "warm" if hold.warm else "cold"
            args += [key(name, "affinity"), bell_key(name, lease.worker)]
            args += [hold.checkpoint, hold.for_ms, restored]
        ended = int(await self.connection.run("settle", keys, args))
        return None if ended < 0 else bool(ended)

    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        # If resubmitted, a message of either stream of leases goes into the queue of trials.
        origin = "trials" if queue in LEASES else queue
        args: list[Any] = [GROUPS[origin], origin, MAX_DEAD, key(name, "dead")]
        for entry_id, reason, body in unusable:
            args += [entry_id, reason, body[:MAX_DEAD_BODY], len(body)]
        return int(await self.connection.run("dead_letter", [key(name, queue)], args))

    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        for name in names:
            with self.connection.going_on_without(key(name, "workers")):
                await run_beat(self.connection, name, worker, presence)
