"""Passwords in files, as containers are given secrets: they may change meanwhile."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from romul_actors.errors import StoreError

REDIS, SENTINEL, MQTT = (f"ROMUL_{name}_PASSWORD_FILE" for name in ("REDIS", "SENTINEL", "MQTT"))
"""Variables of the environment that name a file."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file with a password.

    Attributes:
        path: the file.
        variable: what named it, for errors.
    """

    path: Path
    variable: str

    def read(self) -> str:
        """The password that the file holds now.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return self.path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.variable}: {error}") from None


def secret_file(variable: str) -> SecretFile | None:
    """The file that a variable of the environment names; None: it names none.

    Raises:
        StoreError: it cannot be read.
    """
    path = os.environ.get(variable)
    if path is None:
        return None
    file = SecretFile(Path(path), variable)
    file.read()
    return file


def password_file(url: str, variable: str) -> SecretFile | None:
    """The file with the password of a URL that has a user and no password; None: there is none.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # what takes the URL says why it is none
        return None
    return secret_file(variable) if "@" in parts.netloc and parts.password is None else None


def with_password(url: str, variable: str) -> str:
    """The URL with the password that lies in a file, for where the file is not.

    Raises:
        StoreError: the file cannot be read.
    """
    file = password_file(url, variable)
    if file is None:
        return url
    scheme, _, rest = url.partition("://")
    user, _, place = rest.partition("@")
    return f"{scheme}://{user}:{quote(file.read(), safe='')}@{place}"


def with_passwords(url: str) -> str:
    """The URL of a server with the passwords that lie in files, the Sentinels' own among them.

    Raises:
        StoreError: a file cannot be read.
    """
    url = with_password(url, REDIS)
    is_sentinel = url.partition("://")[0].endswith("+sentinel")
    own = secret_file(SENTINEL)
    if not is_sentinel or "sentinel_password=" in url or own is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}sentinel_password={quote(own.read(), safe='')}"
