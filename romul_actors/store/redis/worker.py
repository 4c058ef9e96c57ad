"""The worker's methods of the store on a server."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.errors import WrongTypeError
from romul_actors.store.keys import GROUPS, bell_key, experiment_of, key
from romul_actors.store.redis.connection import NoGroupError, reply
from romul_actors.store.redis.queues import RedisQueues, run_beat
from romul_actors.store.redis.replies import read_before, read_each, read_leases, read_name
from romul_actors.store.roles import WorkerStore
from romul_actors.store.values import MAX_LOG, MAX_LOGS, Beat, Lease, Output


class RedisWorker(RedisQueues, WorkerStore):
    """Leases, heartbeats, outputs of tasks, and garbage."""

    async def lease(
        self, names: Sequence[str], worker: str, block_ms: int, holding: Sequence[str] = ()
    ) -> Lease | None:
        for name in holding:
            if (lease := await self._take(name, worker)) is not None:
                return lease
        # A read of several streams takes an entry of each, and fails if one is not a stream.
        right: Sequence[str] = names
        if len(names) > 1:
            lease, right = await self._lease_from_first(names, worker)
            if lease is not None:
                return lease
        try:
            return await self._wait_for_trial(right, worker, block_ms, holding)
        except WrongTypeError:
            # Read each queue to find the one with the wrong type; if there is none, it is a bell.
            lease, readable = await self._lease_from_first(right, worker)
            if lease is None:
                if len(readable) == len(right):
                    raise
                await asyncio.sleep(block_ms / 1000)
            return lease

    async def _wait_for_trial(
        self, names: Sequence[str], worker: str, block_ms: int, holding: Sequence[str]
    ) -> Lease | None:
        """Wait for a trial in the queues of `names`, or an offer to this worker in `holding`.

        Raises:
            WrongTypeError: the key of a queue or a bell is not a stream.
        """
        streams = {key(name, "trials"): ">" for name in names}
        bells = {bell_key(name, worker): ">" for name in holding}
        found = await self.connection.read_groups(
            GROUPS["trials"], worker, streams | bells, 1, block_ms
        )
        leases: list[Lease] = []
        for stream, rows in found:
            name = experiment_of(stream)
            if stream in streams:
                leases += read_leases(name, rows, worker)
            elif (lease := await self._take(name, worker)) is not None:
                leases.insert(0, lease)
        for extra in leases[1:]:
            await self.put_back(extra)
        return leases[0] if leases else None

    async def _lease_from_first(
        self, names: Sequence[str], worker: str
    ) -> tuple[Lease | None, list[str]]:
        """Lease a trial from the first experiment that has one, without waiting.

        Returns:
            The lease, and the names of the experiments read so far whose queues are valid.
        """
        right = []
        for name in names:
            stream = key(name, "trials")
            # A missing queue was removed in the meantime, or is damaged; the actor reports that.
            with contextlib.suppress(NoGroupError), self.connection.going_on_without(stream):
                found = await self.connection.read_streams(
                    GROUPS["trials"], worker, {stream: ">"}, 1, None
                )
                right.append(name)
                for _, rows in found:
                    return read_leases(name, rows, worker)[0], right
        return None, right

    async def _take(self, name: str, worker: str) -> Lease | None:
        """Lease a trial that is offered to this worker."""
        keys = [key(name, part) for part in ("offers", "targeted", "affinity")]
        found = await self.connection.run("take", [*keys, bell_key(name, worker)], [worker])
        if found is None:
            return None
        return Lease(name, found[0].decode(), worker, found[1], "targeted")

    async def put_back(self, lease: Lease) -> bool:
        keys = [key(lease.experiment, lease.stream), key(lease.experiment, "trials")]
        args = [lease.worker, lease.id, lease.body]
        return bool(await self.connection.run("put_back", keys, args))

    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        kept, status, outdated, before = await run_beat(
            self.connection,
            lease.experiment,
            lease.worker,
            presence,
            lease.id,
            slot,
            trial,
            lease.stream,
        )
        return Beat(bool(kept), read_name(status), bool(outdated), read_before(before))

    async def write_output(self, name: str, output: Output) -> None:
        client = self.connection.client
        if not await reply(client.exists(key(name))):
            return
        fields: Any = {
            "trial": output.trial,
            "attempt": output.attempt,
            "worker": output.worker,
            "text": output.text[-MAX_LOG:],
        }
        await reply(client.xadd(key(name, "logs"), fields, maxlen=MAX_LOGS), key(name, "logs"))

    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        client, listed = self.connection.client, key(name, "garbage")
        limit = await self.connection.now_ms(name) - older_ms
        while True:
            rows = await reply(client.zrangebyscore(listed, 0, limit, start=0, num=count), listed)
            found, faults = read_each(rows, bytes.decode)
            self.connection.leave_out(listed, faults)
            if found or not faults:
                return found
            # Invalid names would block the list forever.
            await reply(client.zrem(listed, *rows))

    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        if checkpoints:
            await reply(
                self.connection.client.zrem(key(name, "garbage"), *checkpoints),
                key(name, "garbage"),
            )
