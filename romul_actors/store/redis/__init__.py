"""The store on a Redis or Valkey server: streams, consumer groups, and one Lua script a step.

One class a role, each whole by itself on a `Connection`; `RedisStore` is all of them. What programs
exchange is MessagePack; what people read is text.
"""

from romul_actors.store.redis.actor import RedisActor
from romul_actors.store.redis.connection import Connection
from romul_actors.store.redis.operator import RedisOperator
from romul_actors.store.redis.worker import RedisWorker
from romul_actors.store.roles import Store

__all__ = ["RedisStore"]


class RedisStore(RedisOperator, RedisActor, RedisWorker, Store):
    """A store on one server, behind Sentinels or on a Cluster; see `Store` for the promises.

    Args:
        url: see `romul_actors.store.redis.urls`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(Connection(url))
