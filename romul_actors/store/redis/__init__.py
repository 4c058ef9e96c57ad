"""The store on a Redis or Valkey server: streams, consumer groups, and Lua scripts.

Each role has a class, which works by itself on a `Connection`; `RedisStore` combines them. Messages
between programs are MessagePack; data for people is text.
"""

from romul_actors.store.redis.actor import RedisActor
from romul_actors.store.redis.connection import Connection
from romul_actors.store.redis.operator import RedisOperator
from romul_actors.store.redis.worker import RedisWorker
from romul_actors.store.roles import Store

__all__ = ["RedisStore"]


class RedisStore(RedisOperator, RedisActor, RedisWorker, Store):
    """A store on a single server, behind Sentinels, or on a Cluster; see `Store`.

    Args:
        url: URL of the server; see `romul_actors.store.redis.urls`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(Connection(url))
