"""Passwords in files, as containers receive secrets. A file may change while a process runs."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from romul_actors.errors import StoreError

REDIS, SENTINEL, MQTT = (f"ROMUL_{name}_PASSWORD_FILE" for name in ("REDIS", "SENTINEL", "MQTT"))
"""Environment variables that contain the path of a password file."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file with a password.

    Attributes:
        path: path of the file.
        variable: environment variable that contained the path, for error messages.
    """

    path: Path
    variable: str

    def read(self) -> str:
        """The password that is in the file now.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            return self.path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.variable}: {error}") from None


def secret_file(variable: str) -> SecretFile | None:
    """The password file that an environment variable names; None if the variable is not set.

    Raises:
        StoreError: the file cannot be read.
    """
    path = os.environ.get(variable)
    if path is None:
        return None
    file = SecretFile(Path(path), variable)
    file.read()
    return file


def password_file(url: str, variable: str) -> SecretFile | None:
    """The password file for a URL, if the URL has a user but no password; else None.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # the code that uses the URL reports what is wrong
        return None
    return secret_file(variable) if "@" in parts.netloc and parts.password is None else None


def with_password(url: str, variable: str) -> str:
    """Insert the password from a file into a URL, for use where the file is not accessible.

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
    """Insert the passwords from files into the URL of a server, including the Sentinels' own.

    Raises:
        StoreError: a file cannot be read.
    """
    url = with_password(url, REDIS)
    is_sentinel = url.partition("://")[0].endswith("+sentinel")
    own = secret_file(SENTINEL)
    if not is_sentinel or "sentinel_password=" in url or own is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}sentinel_password={quote(own.read(), safe='')}"
