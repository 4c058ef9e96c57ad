"""The server, and the broker, that a URL or the folder of a local run stands for."""

from pathlib import Path

from romul_actors.errors import StoreError
from romul_actors.local import mqtt_broker
from romul_actors.local.redis_server import URL_FILE


def resolve(url: str) -> str:
    """URL of a server: `url` itself, or the URL stored in the folder of a local run.

    Raises:
        StoreError: there is no such folder, or its server is not up.
    """
    if "://" in url:
        return url
    file = Path(url) / URL_FILE
    if not file.is_file():
        if not Path(url).is_dir():
            raise StoreError(
                f"{url!r} is neither a URL nor the folder of a local run: a URL begins with a "
                "scheme, such as redis://HOST:6379/0"
            )
        raise StoreError(
            f"{url!r} is neither a URL nor the folder of a local run whose server is up "
            f"(no {file}); `romul serve {url}` starts the server of a run that has ended"
        )
    return file.read_text().strip()


def broker_url(url: str) -> str | None:
    """URL of the broker of the local run whose folder `url` is; None if there is none."""
    file = Path(url) / mqtt_broker.URL_FILE
    return file.read_text().strip() if "://" not in url and file.is_file() else None
