"""From a URL to a store: Redis or Valkey, or one that an installed package adds."""

from romul_actors import plugins
from romul_actors.errors import StoreError
from romul_actors.secret_file import with_passwords
from romul_actors.store.redis import RedisStore
from romul_actors.store.roles import Store

REDIS = ("redis", "rediss", "unix")
"""Kinds of URLs that need no package; with +sentinel or +cluster too (see `redis.urls`)."""


def open_store(url: str) -> Store:
    """The store at a URL; it connects when it is first used.

    Raises:
        StoreError: no kind of store has such a URL.
    """
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in REDIS and (kind := plugins.find("stores", scheme)):
        store = kind(with_passwords(url))
        if not isinstance(store, Store):
            raise StoreError(f"the store {scheme!r} is a {type(store).__name__}, and no Store")
        return store
    return RedisStore(url)
