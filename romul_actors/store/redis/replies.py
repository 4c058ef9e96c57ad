"""From the server's replies, which are bytes, to the records of `romul_actors.store.values`."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from romul_actors.store.keys import STREAMS
from romul_actors.store.values import DeadLetter, Entry, Glance, Lease, Output

LAST_MS = 2**53
"""A number beyond this one is no time."""


def flatten(fields: Mapping[str, str]) -> list[str]:
    """A hash's fields as arguments of HSET."""
    return [text for pair in fields.items() for text in pair]


def read_fields(flat: Sequence[bytes]) -> dict[str, str]:
    """A hash's fields from a script's reply of HGETALL."""
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def read_workers(rows: Iterable[tuple[bytes, bytes]], now_ms: int) -> dict[str, dict[str, Any]]:
    """Presence of each worker: a worker may have written anything, for a name as for a value."""
    return {name.decode(errors="backslashreplace"): _presence(body, now_ms) for name, body in rows}


def _presence(body: bytes, now_ms: int) -> dict[str, Any]:
    found: Any = None
    with contextlib.suppress(ValueError):
        found = from_json(body)
    presence: dict[str, Any] = found if isinstance(found, dict) else {}
    seen_ms = presence.pop("seen_ms", None)
    # A worker whose entry does not say when it was seen was never seen.
    known = type(seen_ms) in (int, float) and abs(seen_ms) < LAST_MS
    presence["age_ms"] = max(0, now_ms - int(seen_ms)) if known else now_ms
    return presence


def read_entries(name: str, rows: Sequence[Any]) -> list[Entry]:
    """Inbox entries; the body of a deleted one is empty."""
    return [
        Entry(
            name, entry_id.decode(), int(entry_id.partition(b"-")[0]), (fields or {}).get(b"m", b"")
        )
        for entry_id, fields in rows
    ]


def read_leases(found: Sequence[tuple[str, list[Any]]], worker: str) -> list[Lease]:
    """Leases of one worker, of several experiments."""
    return [
        Lease(name, entry_id.decode(), worker, fields.get(b"m", b""))
        for name, rows in found
        for entry_id, fields in rows
    ]


def read_dead_letter(entry_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    """A dead message."""
    return DeadLetter(
        entry_id.decode(),
        fields[b"origin"].decode(),
        fields[b"reason"].decode(),
        fields[b"body"],
        int(fields[b"size"]),
    )


def read_output(fields: Mapping[bytes, bytes]) -> Output:
    """What an attempt printed."""
    return Output(
        fields[b"trial"].decode(),
        int(fields[b"attempt"]),
        fields[b"worker"].decode(),
        fields[b"text"].decode(errors="replace"),
    )


def read_glance(found: Sequence[Any], fields: Sequence[str]) -> Glance:
    """The reply of glance.lua."""
    now, meta, slots, workers, depths, lines = found
    now_ms = int(now)
    return Glance(
        now_ms=now_ms,
        meta=read_fields(meta),
        slots=[
            {field: (value or b"").decode() for field, value in zip(fields, row, strict=True)}
            for row in slots
        ],
        workers=read_workers(zip(workers[::2], workers[1::2], strict=True), now_ms),
        depths=dict(zip(STREAMS, depths, strict=True)),
        history=[(entry_id.decode(), pairs[1].decode()) for entry_id, pairs in lines],
    )
