"""The operator's methods of the store on a server."""

import logging
import secrets
from collections.abc import Sequence

from romul_actors.errors import ExperimentExistsError, StoreError
from romul_actors.store.keys import EXPERIMENTS, GROUPS, PARTS, key
from romul_actors.store.redis.connection import reply
from romul_actors.store.redis.queues import RedisQueues
from romul_actors.store.redis.reader import RedisReader
from romul_actors.store.roles import OperatorStore
from romul_actors.store.values import DeadLetter

log = logging.getLogger("romul.store")


class RedisOperator(RedisReader, RedisQueues, OperatorStore):
    """Creates and removes experiments; resubmits and deletes dead letters."""

    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        token = secrets.token_hex(8)
        keys = [key(name), key(name, "inbox"), key(name, "trials")]
        created = await self.connection.run("create", keys, [spec, submitted, token])
        if isinstance(created, bytes):
            raise StoreError(
                f"{created.decode()} already exists, but the experiment {name!r} is incomplete: "
                f"restore the server's data, or run `romul remove {name}`"
            )
        # Even if it existed: this completes a creation that was killed between the two calls.
        await reply(self.connection.client.sadd(EXPERIMENTS, name))
        if not created:
            raise ExperimentExistsError.of(name)

    async def remove(self, name: str) -> bool:
        keys = [key(name), *(key(name, part) for part in PARTS)]
        removed = await self.connection.run("remove", keys, [])
        client = self.connection.client
        # The name goes last: an interruption must not leave an experiment that is not listed.
        await reply(client.srem(EXPERIMENTS, name))
        if await reply(client.exists(key(name))):
            # Another experiment of that name was created in between.
            await reply(client.sadd(EXPERIMENTS, name))
        return bool(removed)

    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        if dead.origin not in GROUPS:
            log.warning("%s: dead letter %s has an unknown origin: %r", name, dead.id, dead.origin)
            return False
        keys = [key(name, "dead"), key(name, dead.origin)]
        return bool(await self.connection.run("resubmit", keys, [dead.id, dead.body]))

    async def drop(self, name: str, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        return int(await reply(self.connection.client.xdel(key(name, "dead"), *ids)))
