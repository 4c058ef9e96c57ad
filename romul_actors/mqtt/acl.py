"""Access rules for users of an MQTT broker, by role, in mosquitto's file formats.

SECURITY.md lists what each role can and cannot do, and tests/system/test_acl.py tests it.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import pbkdf2_hmac

from romul_actors.mqtt.topics import EVERY_STATUS, WORKERS

_TOPICS: Mapping[str, Sequence[str]] = {
    "worker": (
        f"write {EVERY_STATUS}",
        f"write {WORKERS}/+/notice",
        f"write {WORKERS}/+/received",
        f"read {WORKERS}/+/control",
    ),
    # An actor reads the status of lost workers, and removes it.
    "actor": (f"readwrite {EVERY_STATUS}", "write romul/+/events"),
    "reader": (f"read {EVERY_STATUS}", "read romul/+/events"),
    "operator": (f"write {WORKERS}/+/control", "read romul/#"),
}
_ITERATIONS = 20_000


def password_line(user: str, password: str) -> str:
    """A line of mosquitto's password file: PBKDF2 with SHA-512 and a random salt."""
    salt = secrets.token_bytes(12)
    digest = pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{user}:$7${_ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def with_users(users: Iterable[tuple[str, str]], text: str = "") -> str:
    """Add users to the text of mosquitto's ACL file. Users that are not in it have no access.

    Args:
        users: pairs of a role and a user name.
        text: current text of the file. Existing rules of the same users are replaced in place, and
            all other lines are kept.
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
