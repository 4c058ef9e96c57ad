"""The reader's methods of the store on a server."""

from collections.abc import Sequence
from dataclasses import fields as fields_of
from typing import Any

from romul_actors.store.keys import GROUPS, LEASES, STREAMS, key
from romul_actors.store.redis.catalog import RedisCatalog
from romul_actors.store.redis.connection import NoGroupError, reading, reply
from romul_actors.store.redis.replies import (
    read_count,
    read_dead_letter,
    read_each,
    read_fields,
    read_line,
    read_name,
    read_output,
    read_workers,
)
from romul_actors.store.roles import ReaderStore
from romul_actors.store.values import (
    AffinityCounts,
    DeadLetter,
    Glance,
    Output,
    Outstanding,
    Stored,
)

MAX_LEASES = 100_000
"""Maximal number of leases that are listed."""


class RedisReader(RedisCatalog, ReaderStore):
    """Reads all data of experiments."""

    async def load(self, name: str) -> Stored:
        found = await self.connection.run_read_only("load", [key(name)], [])
        if found is None:
            raise self.connection.unknown(name)
        version, meta, slots = found
        with reading(f"{key(name)} or the hash of a slot"):
            return Stored(version.decode(), read_fields(meta), [read_fields(row) for row in slots])

    async def history(
        self, name: str, after: str = "0", count: int = 1000
    ) -> list[tuple[str, str]]:
        stream = key(name, "history")
        rows = await reply(self.connection.client.xrange(stream, f"({after}", "+", count), stream)
        with reading(stream):
            return [read_line(entry_id, fields) for entry_id, fields in rows]

    async def history_before(
        self, name: str, before: str = "", count: int = 1000
    ) -> list[tuple[str, str]]:
        stream, latest = key(name, "history"), f"({before}" if before else "+"
        rows = await reply(self.connection.client.xrevrange(stream, latest, "-", count), stream)
        with reading(stream):
            return [read_line(entry_id, fields) for entry_id, fields in rows]

    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        keys = [key(name), key(name, "workers"), *(key(name, stream) for stream in STREAMS)]
        found = await self.connection.run_read_only("glance", keys, [after, count, *fields])
        if found is None:
            raise self.connection.unknown(name)
        now, meta, slots, workers, depths, lines, undecided = found
        with reading(f"{key(name)}, its history or the hash of a slot"):
            return Glance(
                now_ms=int(now),
                meta=read_fields(meta),
                slots=[
                    {f: (value or b"").decode() for f, value in zip(fields, row, strict=True)}
                    for row in slots
                ],
                workers=read_workers(zip(workers[::2], workers[1::2], strict=True), int(now)),
                depths=dict(zip(STREAMS, depths, strict=True)),
                history=[
                    read_line(entry_id, dict(zip(pairs[::2], pairs[1::2], strict=True)))
                    for entry_id, pairs in lines
                ],
                # An id begins with the arrival time by the server's clock.
                undecided=[(int(at.partition(b"-")[0]), body) for at, body in undecided],
            )

    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        stream = key(name, "dead")
        rows = await reply(self.connection.client.xrange(stream, f"({after}", "+", count), stream)
        return [read_dead_letter(entry_id, fields) for entry_id, fields in rows]

    async def outstanding(self, name: str) -> Outstanding:
        keys = [key(name), key(name, "trials"), key(name, "inbox")]
        found = await self.connection.run_read_only("outstanding", keys, [])
        if found is None:
            raise self.connection.unknown(name)
        with reading(key(name)):
            return Outstanding(found[0].decode(), found[1], found[2])

    async def outputs(self, name: str, trial: str) -> list[Output]:
        stream = key(name, "logs")
        rows = await reply(self.connection.client.xrange(stream), stream)
        found, faults = read_each((fields for _, fields in rows), read_output)
        self.connection.leave_out(stream, faults)
        return [output for output in found if output.trial == trial]

    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        listed = key(name, "workers")
        rows = await reply(self.connection.client.hgetall(listed), listed)
        return read_workers(rows.items(), await self.connection.now_ms(name))

    async def leases(self, name: str) -> dict[str, str]:
        client, found = self.connection.client, {}
        for stream in LEASES:
            try:
                rows = await reply(
                    client.xpending_range(
                        key(name, stream), GROUPS["trials"], "-", "+", MAX_LEASES
                    ),
                    key(name, stream),
                )
            except NoGroupError:
                # Nothing has ever been offered to a single worker.
                continue
            for row in rows:
                entry_id = row["message_id"].decode()
                # Both streams may contain the same id.
                place = entry_id if stream == "trials" else f"{stream} {entry_id}"
                found[place] = read_name(row["consumer"])
        return found

    async def depths(self, name: str) -> dict[str, int]:
        async with self.connection.client.pipeline(transaction=False) as pipeline:
            for stream in STREAMS:
                pipeline.xlen(key(name, stream))
            pipeline.xlen(key(name, "targeted"))
            pipeline.hlen(key(name, "offers"))
            *lengths, targeted, offers = await reply(
                pipeline.execute(), *(key(name, part) for part in (*STREAMS, "targeted", "offers"))
            )
        depths = dict(zip(STREAMS, lengths, strict=True))
        return {**depths, "trials": depths["trials"] + targeted + offers}

    async def affinity(self, name: str) -> AffinityCounts:
        counts = [count.name for count in fields_of(AffinityCounts)]
        found = await reply(
            self.connection.client.hmget(key(name, "affinity"), counts), key(name, "affinity")
        )
        return AffinityCounts(*(read_count(value) for value in found))

    async def holds(self, name: str, worker: str) -> str:
        held = key(name, "affinity")
        found = await reply(self.connection.client.hget(held, f"w {worker}"), held)
        return read_name(found or b"")
