"""Users of a Redis or Valkey server, one for each role: what each may do, and nothing else.

The server enforces it (Redis 7 or later, or any Valkey), whatever program uses the password. What
each role can and cannot do is listed in SECURITY.md and tried in tests/system/test_acl.py.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from romul_actors.errors import RomulError

_CONNECT = "+ping +hello +auth +info +time"
_SCRIPTS = "+evalsha +script|load"
_LOOK = (
    "+smembers +hget +hmget +hgetall +xrange +xrevrange +xlen +xpending +exists "
    "+evalsha_ro +eval_ro +zrangebyscore"
)
_WORK = "+xreadgroup +xclaim +xack +xdel +xadd +xgroup|delconsumer +hset +hdel +zrem"
_DECIDE = f"{_WORK} +xautoclaim +hincrby +zadd +set"
_OWN = "+xgroup|create +del +sadd +srem"

_COMMANDS: Mapping[str, str] = {
    # A worker reads no queue but the trials': no xrange.
    "worker": f"{_CONNECT} {_SCRIPTS} +smembers +hget +exists +xpending +zrangebyscore {_WORK}",
    "actor": f"{_CONNECT} {_SCRIPTS} {_LOOK} {_DECIDE}",
    "reader": f"{_CONNECT} +script|load {_LOOK}",
    "operator": f"{_CONNECT} {_SCRIPTS} {_LOOK} {_DECIDE} {_OWN}",
}
_KEYS: Mapping[str, Sequence[str]] = {
    "worker": (
        "%R~romul:experiments",
        "%R~{e}",
        "~{e}:trials",
        "~{e}:settled",
        "~{e}:workers",
        "~{e}:garbage",
        "%W~{e}:inbox",
        "%W~{e}:logs",
        "%W~{e}:dead",
    ),
    "actor": ("%R~romul:experiments", "~{e}", "~{e}:*"),
    "reader": ("%R~romul:experiments", "%R~{e}", "%R~{e}:*"),
    "operator": ("~romul:experiments", "~{e}", "~{e}:*"),
}
ROLES = tuple(_COMMANDS)
"""Worker, actor, reader (dashboard, status and so on) and operator (submit, pause, remove ...)."""


class AclError(RomulError, ValueError):
    """A user that cannot be made."""


def user(role: str, name: str, password: str, experiment: str = "*") -> str:
    """One line of an ACL file.

    Args:
        role: out of `ROLES`.
        name: the user's.
        password: only its hash stands in the line.
        experiment: the experiments that it is for, with * and ? as in a file name.

    Raises:
        AclError: there is no such role, or a name is not one.
    """
    if role not in _COMMANDS:
        raise AclError(f"role {role!r} is not one of {', '.join(ROLES)}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name == "default":
        raise AclError(f"{name!r} is no name for a user: letters, digits, - . _")
    if not re.fullmatch(r"[A-Za-z0-9_.*?-]+", experiment):
        raise AclError(f"{experiment!r} is no pattern of experiments' names")
    keys = " ".join(key.replace("{e}", f"romul:{{{experiment}}}") for key in _KEYS[role])
    digest = sha256(password.encode()).hexdigest()
    return f"user {name} on #{digest} resetchannels {keys} -@all {_COMMANDS[role]}"


NOBODY = "user default off"
"""The line that keeps out who shows no name."""
