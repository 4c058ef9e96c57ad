"""Users of an MQTT broker, one for each role: what each may publish and receive.

The files are mosquitto's. What each role can and cannot do is listed in SECURITY.md and tried in
tests/system/test_acl.py.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import pbkdf2_hmac

from romul_actors.mqtt.presence import EVERY_STATUS, WORKERS

_TOPICS: Mapping[str, Sequence[str]] = {
    "worker": (
        f"write {EVERY_STATUS}",
        f"write {WORKERS}/+/notice",
        f"write {WORKERS}/+/received",
        f"read {WORKERS}/+/control",
    ),
    # It learns of lost workers, and removes their retained status.
    "actor": (f"readwrite {EVERY_STATUS}", "write romul/+/events"),
    "reader": (f"read {EVERY_STATUS}", "read romul/+/events"),
    "operator": (f"write {WORKERS}/+/control", "read romul/#"),
}
_ITERATIONS = 20_000


def password_line(user: str, password: str) -> str:
    """One line of mosquitto's password file: PBKDF2 with SHA-512 and a fresh salt."""
    salt = secrets.token_bytes(12)
    digest = pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{user}:$7${_ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def topics(users: Iterable[tuple[str, str]], text: str = "") -> str:
    """Mosquitto's ACL file for pairs of a role and a user; other users may do nothing.

    Args:
        users: roles and names.
        text: what the file holds. A user's topics follow its name: those of `users` are replaced
            there, and every other line stays where it is.
    """
    new = {
        user: [f"user {user}", *(f"topic {topic}" for topic in _TOPICS[role])]
        for role, user in users
    }
    lines: list[str] = []
    made, owner = set(), ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "user":
            owner = rest.strip()
            if owner in new and owner not in made:
                lines += new[owner]
                made.add(owner)
        if owner not in new or word not in ("user", "topic"):
            lines.append(line)
    for user, block in new.items():
        if user not in made:
            lines += ["", *block] if lines else block
    return "\n".join(lines) + "\n"
