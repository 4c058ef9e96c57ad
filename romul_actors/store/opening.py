"""From a URL to a store: Redis or Valkey, or one that an installed package adds."""

from typing import Any

from romul_actors import plugins
from romul_actors.errors import RomulError
from romul_actors.secret_file import with_passwords
from romul_actors.store.redis import RedisStore
from romul_actors.store.redis.urls import hide_password
from romul_actors.store.roles import Store

REDIS = ("redis", "rediss", "unix")
"""Kinds of URLs that need no package; with +sentinel or +cluster too (see `redis.urls`)."""


def open_store(url: str) -> Store:
    """The store at a URL; it connects when it is first used.

    Raises:
        StoreError: no kind of store has such a URL.
        PluginError: an installed package adds its kind, and cannot open it.
    """
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in REDIS and (kind := plugins.find("stores", scheme)):
        return _opened(kind, scheme, with_passwords(url))
    return RedisStore(url)


def _opened(kind: Any, scheme: str, url: str) -> Store:
    """A store that an installed package adds.

    Raises:
        RomulError: as the package raises it.
        PluginError: it raises something else, or gives no store.
    """
    if not callable(kind):
        raise plugins.unusable("stores", scheme, f"is a {type(kind).__name__}: it cannot be called")
    try:
        store = kind(url)
    except RomulError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}".replace(url, hide_password(url))
        raise plugins.unusable("stores", scheme, f"cannot be opened: {said}") from error
    if not isinstance(store, Store):
        raise plugins.unusable("stores", scheme, f"gives a {type(store).__name__}, and no Store")
    return store
