"""Users of an MQTT broker, one for each role: what each may say and hear.

The files are mosquitto's. What each role can and cannot do is listed in SECURITY.md and tried in
tests/system/test_acl.py.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import pbkdf2_hmac

from romul_actors.mqtt.connection import WORKERS

_TOPICS: Mapping[str, Sequence[str]] = {
    "worker": (
        f"write {WORKERS}/+/status",
        f"write {WORKERS}/+/notice",
        f"write {WORKERS}/+/heard",
        f"read {WORKERS}/+/control",
    ),
    # It hears of lost workers, and removes what was retained of them.
    "actor": (f"readwrite {WORKERS}/+/status", "write romul/+/events"),
    "reader": (f"read {WORKERS}/+/status", "read romul/+/events"),
    "operator": (f"write {WORKERS}/+/control", "read romul/#"),
}
_ITERATIONS = 20_000


def password_line(user: str, password: str) -> str:
    """One line of mosquitto's password file: PBKDF2 with SHA-512, a salt of its own."""
    salt = secrets.token_bytes(12)
    digest = pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{user}:$7${_ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def topics(users: Iterable[tuple[str, str]]) -> str:
    """Mosquitto's ACL file for pairs of a role and a user; who is not named may do nothing."""
    return "\n".join(
        "\n".join([f"user {user}", *(f"topic {topic}" for topic in _TOPICS[role]), ""])
        for role, user in users
    )
