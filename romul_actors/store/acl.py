"""Access rules for users of a Redis or Valkey server, by role.

The server enforces them (Redis 7 or later, or any Valkey), whichever program uses the password.
SECURITY.md lists what each role can and cannot do, and tests/system/test_acl.py tests it. The
methods that each role needs are in `romul_actors.store.roles`.
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
"""Commands that take entries of a queue from other readers, and remove them."""
_WRITE = "+xadd +hset +hdel +hincrby +zrem"
_LEASES = f"(~{{e}}:trials ~{{e}}:targeted ~{{e}}:bell:* {_TAKE})"
"""A worker may take only trials: the inbox also contains reports of other workers."""
_AFFINITY = "(~{e}:targeted ~{e}:bell:* +xgroup|create +pexpire)"
"""A worker may use these commands only on keys that it creates: they could damage other queues."""
_TIMES = "(~{e}:tick +set) (~{e}:bell:* +pexpire)"
"""The same for an actor: these commands could replace or expire any key."""
_DECIDE = f"{_WRITE} {_TAKE} +xautoclaim +xinfo|consumers +zadd {_TIMES}"
_OPERATE = f"+xgroup|create +del (~{EXPERIMENTS} +smembers +sadd +srem)"
"""An operator may add names to the list of all experiments, which teams share, and remove them."""

_COMMANDS: Mapping[str, str] = {
    # A worker reads no queue except that of trials: no xrange.
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
    """The line for a user in an ACL file.

    Args:
        role: one of `ROLES`.
        name: name of the user.
        password: password of the user; the line contains only its hash.
        experiment: pattern for the names of experiments; * and ? are wildcards.

    Raises:
        AclError: there is no such role, or a name or the pattern is invalid.
    """
    if role not in _COMMANDS:
        raise AclError(f"role {role!r} is not one of {', '.join(ROLES)}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name == "default":
        raise AclError(
            f"{name!r} is not a valid user name: use letters, digits, - . _ (not 'default')"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.*?-]+", experiment):
        raise AclError(
            f"{experiment!r} is not a valid pattern for names: use letters, digits, - . _ * ?"
        )
    keys = " ".join(_KEYS[role])
    digest = sha256(password.encode()).hexdigest()
    rules = f"resetchannels {keys} -@all {_COMMANDS[role]}".replace("{e}", key(experiment))
    return f"user {name} on #{digest} {rules}"


NO_DEFAULT_USER = "user default off ~* &* +@all"
"""The line that disables connections without a user name.

Nobody can connect as a user that is off. It has all permissions because servers read their
append-only file as this user: without them, Redis 7 and 8 and Valkey before 9.1.2 drop all that
scripts have written, and start without it (valkey#3983, redis#14541).
"""


def user_of(line: str) -> str:
    """The user that a line of an ACL file defines; empty if it defines none."""
    words = line.split()
    return words[1] if len(words) > 1 and words[0] == "user" else ""


def reads_all(text: str) -> bool:
    """Whether the default user of an ACL file has the permissions of `NO_DEFAULT_USER`."""
    lines = [line.split() for line in text.splitlines() if user_of(line) == "default"]
    return {"~*", "&*", "+@all"}.issubset(word for line in lines for word in line)


def asks_for_a_user(text: str) -> bool:
    """Whether a server with this ACL file rejects connections without a user name."""
    lines = [line.split() for line in text.splitlines() if user_of(line) == "default"]
    switches = [word for line in lines for word in line if word in ("on", "off")]
    return switches[-1:] == ["off"]
