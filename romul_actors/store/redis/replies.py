"""Converts the server's replies, which are bytes, to the records of `romul_actors.store.values`.

The data may come from other programs: even a user with the role of a worker can put anything into
the streams of outputs and dead letters, the presence of workers, and the list of garbage. For any
data, these functions either return a record or raise a ValueError with an explanation.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from pydantic_core import from_json

from romul_actors.store.values import DeadLetter, Entry, Lease, Output

A = TypeVar("A")
B = TypeVar("B")

LARGEST = 2**53
"""Exclusive upper bound of the numbers in a presence."""
MAX_DIGITS = 19
"""Numbers with this many digits are not accepted as sizes or counts."""
_PRESENCE: Mapping[str, type] = {"state": str, "trial": str, "host": str, "pid": int, "why": str}
"""Types of the texts and integers in a presence; each may be missing."""


def read_each(rows: Iterable[A], read: Callable[[A], B]) -> tuple[list[B], list[str]]:
    """Read many entries.

    Returns:
        The entries that can be read, and an error message for each of the others.
    """
    found: list[B] = []
    faults: list[str] = []
    for row in rows:
        try:
            found.append(read(row))
        except ValueError as error:
            faults.append(f"{row!r:.100}: {error}")
    return found, faults


def read_name(name: bytes) -> str:
    """Decode a name; invalid bytes are escaped."""
    return name.decode(errors="backslashreplace")


def flatten(fields: Mapping[str, str]) -> list[str]:
    """The fields of a hash as arguments of HSET."""
    return list(chain.from_iterable(fields.items()))


def read_fields(flat: Sequence[bytes]) -> dict[str, str]:
    """The fields of a hash from the reply of HGETALL in a script."""
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def read_workers(rows: Iterable[tuple[bytes, bytes]], now_ms: int) -> dict[str, dict[str, Any]]:
    """The presence of each worker; a worker whose entry is invalid counts as never seen."""
    found = {}
    for name, body in rows:
        try:
            found[read_name(name)] = read_presence(body, now_ms)
        except ValueError:
            found[read_name(name)] = {"age_ms": now_ms}
    return found


def read_before(body: bytes) -> dict[str, Any]:
    """A presence that another one has replaced; empty if there was none, or if it is invalid."""
    with contextlib.suppress(ValueError):
        presence = read_presence(body, 0)
        del presence["age_ms"]
        return presence
    return {}


def read_presence(body: bytes, now_ms: int) -> dict[str, Any]:
    """A worker's presence, with its age instead of its time."""
    presence = from_json(body)
    if not isinstance(presence, dict):
        raise ValueError("not a map")  # noqa: TRY004  (every error is a ValueError here)
    seen_ms = presence.pop("seen_ms", None)
    if not _finite(seen_ms):
        raise ValueError(f"seen_ms is {seen_ms!r:.40}")
    if not _finite(presence.get("at", 0)):
        raise ValueError(f"at is {presence['at']!r:.40}")
    for name, kind in _PRESENCE.items():
        if type(presence.get(name, kind())) is not kind:
            raise ValueError(f"{name} is {presence[name]!r:.40}")
    presence["age_ms"] = max(0, now_ms - int(seen_ms))
    return presence


def _finite(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) < LARGEST


def read_count(value: bytes | None) -> int:
    """A count for display only; invalid data, which a worker may have written, counts as 0."""
    return int(value) if value and value.isdigit() and len(value) < MAX_DIGITS else 0


def read_line(entry_id: bytes, fields: Mapping[bytes, bytes]) -> tuple[str, str]:
    """A line of history as a pair of id and JSON text."""
    if b"json" not in fields:
        raise ValueError(f"entry {entry_id.decode()} has no field 'json'")
    return entry_id.decode(), fields[b"json"].decode()


def read_entries(name: str, rows: Sequence[Any]) -> list[Entry]:
    """Inbox entries; the body of a deleted one is empty."""
    return [
        Entry(
            name, entry_id.decode(), int(entry_id.partition(b"-")[0]), (fields or {}).get(b"m", b"")
        )
        for entry_id, fields in rows
    ]


def read_leases(name: str, rows: Sequence[Any], worker: str) -> list[Lease]:
    """Leases of one worker."""
    return [
        Lease(name, entry_id.decode(), worker, (fields or {}).get(b"m", b""))
        for entry_id, fields in rows
    ]


def read_dead_letter(entry_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    """A dead letter; an incomplete one is listed too, so that it can be deleted."""
    body, size = fields.get(b"body", b""), fields.get(b"size", b"")
    return DeadLetter(
        id=entry_id.decode(),
        origin=read_name(fields.get(b"origin", b"unknown")),
        reason=read_name(fields.get(b"reason", b"unknown")),
        body=body,
        size=int(size) if size.isdigit() and len(size) < MAX_DIGITS else len(body),
    )


def read_output(fields: Mapping[bytes, bytes]) -> Output:
    """The output of an attempt."""
    missing = [name for name in (b"trial", b"attempt", b"worker", b"text") if name not in fields]
    if missing:
        raise ValueError(f"no field {missing[0].decode()!r}")
    return Output(
        fields[b"trial"].decode(),
        int(fields[b"attempt"]),
        fields[b"worker"].decode(),
        fields[b"text"].decode(errors="replace"),
    )
