"""Opens the store at a URL: Redis, Valkey, or a store that a plugin adds."""

from typing import Any

from romul_actors import plugins
from romul_actors.errors import RomulError
from romul_actors.secret_file import with_passwords
from romul_actors.store.redis import RedisStore
from romul_actors.store.redis.urls import hide_password
from romul_actors.store.roles import Store

REDIS = ("redis", "rediss", "unix")
"""Built-in schemes of URLs; +sentinel or +cluster may follow (see `redis.urls`)."""


def open_store(url: str) -> Store:
    """The store at a URL. It connects when it is first used.

    Raises:
        StoreError: no store has such a URL.
        PluginError: the plugin for the URL cannot open the store.
    """
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in REDIS and (kind := plugins.find("stores", scheme)):
        return _opened(kind, scheme, with_passwords(url))
    return RedisStore(url)


def _opened(kind: Any, scheme: str, url: str) -> Store:
    """Open a store with a plugin.

    Raises:
        RomulError: as raised by the plugin.
        PluginError: the plugin raised another exception, or did not return a store.
    """
    if not callable(kind):
        raise plugins.unusable(
            "stores", scheme, f"is a {type(kind).__name__}, which is not callable"
        )
    try:
        store = kind(url)
    except RomulError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}".replace(url, hide_password(url))
        raise plugins.unusable("stores", scheme, f"cannot be opened: {said}") from error
    if not isinstance(store, Store):
        raise plugins.unusable(
            "stores", scheme, f"returns a {type(store).__name__} instead of a Store"
        )
    return store
