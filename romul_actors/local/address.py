"""What names a server: a URL, whose password may lie in a file, or the folder of a local run."""

import os
from pathlib import Path
from urllib.parse import quote

from romul_actors.errors import StoreError
from romul_actors.local.redis_server import URL_FILE


def resolve(url: str) -> str:
    """URL of the server that `url` names: itself, or what a local run's folder holds.

    A URL with a user and no password gets the one in the file that ROMUL_REDIS_PASSWORD_FILE names,
    as containers are given secrets.

    Raises:
        StoreError: a folder without a server, or a password that cannot be read.
    """
    if "://" in url:
        return _with_password(url, "ROMUL_REDIS_PASSWORD_FILE")
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


def _with_password(url: str, variable: str) -> str:
    """The URL, with the password in the file that the variable names where it lacks one."""
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    secret = os.environ.get(variable)
    if secret is None or not at or ":" in user:
        return url
    try:
        password = Path(secret).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StoreError(f"{variable}: {error}") from None
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"


def resolve_broker(url: str) -> str:
    """URL of the broker, with the password in the file that ROMUL_MQTT_PASSWORD_FILE names.

    Raises:
        StoreError: the file cannot be read.
    """
    return _with_password(url, "ROMUL_MQTT_PASSWORD_FILE")
