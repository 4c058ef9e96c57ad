"""What names a server: a URL, whose password may lie in a file, or the folder of a local run."""

import os
import re
from pathlib import Path
from urllib.parse import quote

from romul_actors.errors import StoreError
from romul_actors.local.redis_server import URL_FILE


def resolve(url: str) -> str:
    """URL of the server that `url` names: itself, or what a local run's folder holds.

    A URL with a user and no password gets the one in the file that ROMUL_REDIS_PASSWORD_FILE names,
    as containers are given secrets. A Sentinel URL without `sentinel_password` gets that of
    ROMUL_SENTINEL_PASSWORD_FILE.

    Raises:
        StoreError: a folder without a server, or a password that cannot be read.
    """
    if "://" in url:
        return _with_sentinel_password(_with_password(url, "ROMUL_REDIS_PASSWORD_FILE"))
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
    user, at, _ = re.split("[/?]", rest, maxsplit=1)[0].rpartition("@")
    if not at or ":" in user or (password := _secret(variable)) is None:
        return url
    return f"{scheme}://{user}:{password}{rest.removeprefix(user)}"


def _with_sentinel_password(url: str) -> str:
    """The URL, with the Sentinels' own password where it lacks one."""
    is_sentinel = url.partition("://")[0].endswith("+sentinel")
    if not is_sentinel or "sentinel_password=" in url:
        return url
    password = _secret("ROMUL_SENTINEL_PASSWORD_FILE")
    if password is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}sentinel_password={password}"


def _secret(variable: str) -> str | None:
    """What the file holds that the variable names, quoted for a URL; None: it names none."""
    file = os.environ.get(variable)
    if file is None:
        return None
    try:
        return quote(Path(file).read_text(encoding="utf-8").strip(), safe="")
    except OSError as error:
        raise StoreError(f"{variable}: {error}") from None


def resolve_broker(url: str) -> str:
    """URL of the broker, with the password in the file that ROMUL_MQTT_PASSWORD_FILE names.

    Raises:
        StoreError: the file cannot be read.
    """
    return _with_password(url, "ROMUL_MQTT_PASSWORD_FILE")
