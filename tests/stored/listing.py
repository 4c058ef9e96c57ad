"""All keys of a server as JSON, and back, so that a commit can read what an older one stored.

DUMP and RDB files are not used because they depend on the version of the server.
"""

import base64
import json
from pathlib import Path


def _portable(value):
    """Text as it is; MessagePack and other bytes in base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _stored(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def _portable_fields(fields):
    return {key.decode(): _portable(value) for key, value in fields.items()}


def _stored_fields(fields):
    return {key: _stored(value) for key, value in fields.items()}


def dump(client):
    """All keys of a server.

    Args:
        client: without `decode_responses`, in protocol 2.

    Returns:
        By key its type and value, as JSON values. A stream's consumer groups have what each
        consumer holds; a lease's age is not kept.

    Raises:
        ValueError: a key has a type that is not listed here.
    """
    return {key.decode(): _dump_key(client, key) for key in sorted(client.keys("*"))}


def _dump_key(client, key):
    kind = client.type(key).decode()
    if kind == "string":
        value = _portable(client.get(key))
    elif kind == "set":
        value = sorted(_portable(member) for member in client.smembers(key))
    elif kind == "hash":
        value = _portable_fields(client.hgetall(key))
    elif kind == "zset":
        ranked = client.zrange(key, 0, -1, withscores=True)
        value = [[_portable(member), score] for member, score in ranked]
    elif kind == "stream":
        value = _dump_stream(client, key)
    else:
        raise ValueError(f"{key}: a {kind} is not listed")
    lives_ms = client.pttl(key)
    return {"type": kind, "value": value, **({"lives_ms": lives_ms} if lives_ms > 0 else {})}


def _dump_stream(client, key):
    groups = []
    for group in client.xinfo_groups(key):
        held = client.xpending_range(key, group["name"], "-", "+", 100_000)
        groups.append(
            {
                "name": group["name"].decode(),
                "last": group["last-delivered-id"].decode(),
                "held": [
                    [row["message_id"].decode(), row["consumer"].decode(), row["times_delivered"]]
                    for row in held
                ],
            }
        )
    return {
        "last": client.xinfo_stream(key)["last-generated-id"].decode(),
        "entries": [[entry.decode(), _portable_fields(f)] for entry, f in client.xrange(key)],
        "groups": groups,
    }


def load(client, keys):
    """Write all keys of a listing to an empty server."""
    for key, row in keys.items():
        kind, value = row["type"], row["value"]
        if kind == "string":
            client.set(key, _stored(value))
        elif kind == "set":
            client.sadd(key, *map(_stored, value))
        elif kind == "hash":
            client.hset(key, mapping=_stored_fields(value))
        elif kind == "zset":
            client.zadd(key, {_stored(member): score for member, score in value})
        else:
            _load_stream(client, key, value)
        if "lives_ms" in row:
            client.pexpire(key, row["lives_ms"])


def _load_stream(client, key, value):
    for entry, fields in value["entries"]:
        client.xadd(key, _stored_fields(fields), id=entry)
    for group in value["groups"]:
        client.xgroup_create(key, group["name"], id=group["last"], mkstream=True)
        for entry, consumer, deliveries in group["held"]:
            client.xclaim(
                key, group["name"], consumer, 0, [entry], force=True, retrycount=deliveries
            )
    client.execute_command("XSETID", key, value["last"])


def read_folder(folder: Path, pattern: str):
    """The text files under a folder that match a pattern, by path."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def write_folder(folder: Path, texts):
    """Write files into a folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def to_text(search):
    """A listing as text: one line for each key or file, so that diffs are readable."""
    parts = [
        json.dumps(name)
        + ": {\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in part.items())
        + "\n}"
        for name, part in search.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"
