"""What names a server: a URL, or the folder of a local run."""

from pathlib import Path

from romul_actors.errors import StoreError
from romul_actors.local.redis_server import URL_FILE


def resolve(url: str) -> str:
    """URL of the server that `url` names: itself, or what a local run's folder holds.

    Raises:
        StoreError: a folder without a server.
    """
    if "://" in url:
        return url
    file = Path(url) / URL_FILE
    if not file.is_file():
        if not Path(url).is_dir():
            raise StoreError(
                f"{url!r} is neither a URL nor the folder of a local run: a URL begins with its "
                "scheme, as redis://HOST:6379/0 does"
            )
        raise StoreError(
            f"{url!r} is neither a URL nor the folder of a local run whose server is up "
            f"(no {file}); a finished run's server is started by `romul serve {url}`"
        )
    return file.read_text().strip()
