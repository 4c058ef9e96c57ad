"""Users of a Redis or Valkey server, one for each role: what each may do, and nothing else.

The server enforces it (Redis 7 or later, or any Valkey), whichever program uses the password. What
each role can and cannot do is listed in SECURITY.md and tried in tests/system/test_acl.py; the
calls that each role needs are `romul_actors.store.roles`.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from romul_actors.errors import AclError
from romul_actors.store.keys import EXPERIMENTS, key

_CONNECT = "+ping +hello +auth +info +time"
_SCRIPTS = "+evalsha +script|load"
_READ = (
    "+smembers +hget +hmget +hgetall +hlen +hexists +xrange +xrevrange +xlen +xpending +exists "
    "+evalsha_ro +eval_ro +zrangebyscore"
)
_TAKE = "+xreadgroup +xclaim +xack +xdel +xgroup|delconsumer"
"""What takes entries of a queue from others, and removes them."""
_WRITE = "+xadd +hset +hdel +hincrby +zrem"
_LEASES = f"(~{{e}}:trials ~{{e}}:targeted ~{{e}}:bell:* {_TAKE})"
"""A worker takes trials alone: reports in the inbox are other workers', too."""
_AFFINITY = "(~{e}:targeted ~{e}:bell:* +xgroup|create +pexpire)"
"""What a worker makes itself; a command that would remove other queues is for these keys alone."""
_TIMES = "(~{e}:tick +set) (~{e}:bell:* +pexpire)"
"""The same for an actor: with these commands it could replace or end any key."""
_DECIDE = f"{_WRITE} {_TAKE} +xautoclaim +xinfo|consumers +zadd {_TIMES}"
_OPERATE = f"+xgroup|create +del (~{EXPERIMENTS} +smembers +sadd +srem)"
"""Of the list of all experiments, which other teams have in common, names are added and removed."""

_COMMANDS: Mapping[str, str] = {
    # A worker reads no queue but that of trials: no xrange.
    "worker": f"{_CONNECT} {_SCRIPTS} +smembers +hget +exists +xpending +zrangebyscore "
    f"{_WRITE} {_LEASES} {_AFFINITY}",
    "actor": f"{_CONNECT} {_SCRIPTS} {_READ} {_DECIDE}",
    "reader": f"{_CONNECT} +script|load {_READ}",
    "operator": f"{_CONNECT} {_SCRIPTS} {_READ} {_DECIDE} {_OPERATE}",
}
_KEYS: Mapping[str, Sequence[str]] = {
    "worker": (
        f"%R~{EXPERIMENTS}",
        "%R~{e}",
        "~{e}:trials",
        "~{e}:settled",
        "~{e}:workers",
        "~{e}:garbage",
        "~{e}:affinity",
        "~{e}:offers",
        "~{e}:targeted",
        "~{e}:bell:*",
        "%W~{e}:inbox",
        "%W~{e}:logs",
        "%W~{e}:dead",
    ),
    "actor": (f"%R~{EXPERIMENTS}", "~{e}", "~{e}:*"),
    "reader": (f"%R~{EXPERIMENTS}", "%R~{e}", "%R~{e}:*"),
    "operator": ("~{e}", "~{e}:*"),
}
ROLES = tuple(_COMMANDS)
"""Worker, actor, reader (dashboard, status and so on) and operator (submit, pause, remove ...)."""


def user(role: str, name: str, password: str, experiment: str = "*") -> str:
    """One line of an ACL file.

    Args:
        role: out of `ROLES`.
        name: the user's name.
        password: the user's password; only its hash stands in the line.
        experiment: pattern of the experiments' names, with * and ? as in a file name.

    Raises:
        AclError: there is no such role, or a name is not one.
    """
    if role not in _COMMANDS:
        raise AclError(f"role {role!r} is not one of {', '.join(ROLES)}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name == "default":
        raise AclError(f"{name!r} is no name for a user: letters, digits, - . _")
    if not re.fullmatch(r"[A-Za-z0-9_.*?-]+", experiment):
        raise AclError(f"{experiment!r} is no pattern of experiments' names")
    keys = " ".join(_KEYS[role])
    digest = sha256(password.encode()).hexdigest()
    rules = f"resetchannels {keys} -@all {_COMMANDS[role]}".replace("{e}", key(experiment))
    return f"user {name} on #{digest} {rules}"


NO_DEFAULT_USER = "user default off"
"""The line that refuses connections without a user's name."""


def user_of(line: str) -> str:
    """The user that a line of an ACL file is for; "" where it is for none."""
    words = line.split()
    return words[1] if len(words) > 1 and words[0] == "user" else ""


def asks_for_a_user(text: str) -> bool:
    """Whether a server with this ACL file refuses connections without a user's name."""
    lines = [line.split() for line in text.splitlines() if user_of(line) == "default"]
    switches = [word for line in lines for word in line if word in ("on", "off")]
    return switches[-1:] == ["off"]
