"""Reads and writes trace files of machines that come and go (docs/simulation.md).

Two formats are read, plain or compressed with gzip: counts of machines over time, as availability
studies publish them, and ROMUL's own format, JSON lines with a time, a machine and an event.
"""

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast, get_args

from romul_actors.errors import RomulError
from romul_actors.protocol.mistakes import shown, unknown_key, unreadable
from romul_sim.churn.trace import (
    LONGEST_S,
    MOST_CHANGES,
    MOST_MACHINES,
    Change,
    Trace,
    TraceError,
    What,
    from_counts,
)

FRAMES = ("record", "history")
"""Events in a record that do not belong to a machine (`records/record.py`)."""
LONGEST_LINE = 2**24
"""Most characters in a line, and in a file of counts."""
LONGEST_FILE = 2**30
"""Most characters in a file, after decompression."""
GREATEST: Mapping[str, float] = {
    "at": LONGEST_S,
    "seconds": LONGEST_S,
    "gap_seconds": LONGEST_S,
    "speed": 1e6,
    "price": 1e6,
}
"""Largest values of the numbers in a trace; the smallest is 0."""
KEYS: Mapping[What, tuple[str, ...]] = {
    "arrives": ("zone", "speed", "price"),
    "notice": ("seconds",),
    "leaves": (),
    "freezes": ("seconds",),
    "slows": ("speed",),
}
"""Further keys of a line, by event; they are required, except for arrivals."""
_DEFAULTS = {f.name: f.default for f in fields(Change) if f.default is not MISSING}
_GZIP = b"\x1f\x8b"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_FORMS = (
    'counts are {"metadata": {"gap_seconds": 300}, "data": [4, 4, 3]}, events a line of JSON each: '
    '{"at": 0, "machine": "a", "event": "arrives"}'
)


def numbered_lines(file: Path, error: type[RomulError]) -> Iterator[tuple[int, str]]:
    r"""Lines of a file that are not blank, each with its number from 1.

    Only "\n" ends a line, because JSON texts may contain other line separators. A byte order mark
    is skipped.

    Args:
        file: the file, which may be compressed with gzip.
        error: the type of exception to raise.

    Raises:
        RomulError: the file cannot be read, or is too long; of the given type.
    """
    total = 0
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(file.open("rb"))
            packed = raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
            stream: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="\n")
            for number in itertools.count(1):
                line = text.readline(LONGEST_LINE + 1)
                total += len(line)
                if len(line) > LONGEST_LINE:
                    raise error(f"{file}:{number}: a line of more than {LONGEST_LINE} characters")
                if total > LONGEST_FILE:
                    raise error(f"{file}: more than {LONGEST_FILE} characters")
                if not line:
                    return
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as found:
        raise error(f"{file}: cannot be read: {unreadable(found)}") from None
    except (EOFError, zlib.error) as found:
        raise error(f"{file}: cannot be read: {found}") from None


def read_trace(file: Path) -> Trace:
    """Read a trace in either format.

    The formats are {"metadata": {"gap_seconds": s}, "data": [n0, n1, ...]}, and JSON lines
    {"at": seconds, "machine": name, "event": one of `What`, ...}. A line that has only `at` gives
    the end of the trace. Other lines of a record are skipped.

    Raises:
        TraceError: the file cannot be read, has neither format, or has an invalid value; the
            message gives the line.
    """
    lines = numbered_lines(file, TraceError)
    first = next(lines, (1, ""))
    read = _events if _is_event(first[1]) else _counts
    return read(file, itertools.chain([first], lines))


def _is_event(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return '"at"' in line
    return isinstance(row, dict) and not row.keys() & {"metadata", "data"}


# -- counts ---------------------------------------------------------------------------------------


def _counts(file: Path, lines: Iterable[tuple[int, str]]) -> Trace:
    texts, total = [], 0
    for _, line in lines:
        total += len(line)
        if total > LONGEST_LINE:
            raise TraceError(f"{file}: counts of more than {LONGEST_LINE} characters")
        texts.append(line)
    try:
        content = json.loads("".join(texts))
        gap, data = content["metadata"]["gap_seconds"], content["data"]
    except _UNREADABLE as error:
        raise TraceError(f"{file}: not a trace ({error!r}): {_FORMS}") from None
    try:
        return _counted(gap, data)
    except ValueError as error:
        raise TraceError(f"{file}: {error}") from None


def _counted(gap: Any, data: Any) -> Trace:
    """Make the trace of counts.

    Raises:
        ValueError: a number is invalid, or there are too many machines.
    """
    gap_s = _number("gap_seconds", gap)
    if not isinstance(data, list) or not data:
        raise ValueError(f"data: {shown(data)} is not a list of counts")
    if not 0 < (span_s := gap_s * len(data)) <= LONGEST_S:
        raise ValueError(
            f"gap_seconds: {len(data)} counts last {span_s:g} s: not above 0 and up to "
            f"{LONGEST_S:g}"
        )
    counts = [_count(place, value) for place, value in enumerate(data)]
    return Trace(tuple(from_counts(gap_s, counts)), span_s)


def _count(place: int, value: Any) -> int:
    # Other programs may write integers as floats.
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise ValueError(f"data[{place}]: {shown(value)} is not a whole number from 0 on")
    return int(value)


# -- events ---------------------------------------------------------------------------------------


def _events(file: Path, lines: Iterable[tuple[int, str]]) -> Trace:
    found: list[tuple[int, Change]] = []
    end_s = 0.0
    for number, line in lines:
        try:
            at_s, change = _event(json.loads(line))
        except _UNREADABLE as error:
            reason = error if isinstance(error, ValueError) else repr(error)
            raise TraceError(f"{file}:{number}: not a line of a trace: {reason}") from None
        end_s = max(end_s, at_s)
        if change is not None:
            found.append((number, change))
        if len(found) > MOST_CHANGES:
            raise TraceError(f"{file}:{number}: more than {MOST_CHANGES} events")
    if not end_s <= LONGEST_S:
        raise TraceError(f"{file}: it goes on for more than {LONGEST_S:g} s")
    return Trace(tuple(_in_order(file, found)), end_s)


def _in_order(file: Path, found: Iterable[tuple[int, Change]]) -> Iterator[Change]:
    """Changes in order of time; changes at the same time in the order of the file.

    Raises:
        TraceError: a machine that is not there changes, a machine that is there arrives, or there
            are too many machines.
    """
    there: set[str] = set()
    for number, change in sorted(found, key=lambda pair: pair[1].at_s):
        machine, arrives = change.machine, change.what == "arrives"
        if (machine in there) == arrives:
            state = "is there already" if arrives else "is not there"
            raise TraceError(
                f"{file}:{number}: {change.what} at {change.at_s:g} s: machine {shown(machine)} "
                f"{state} then"
            )
        if arrives:
            there.add(machine)
            if len(there) > MOST_MACHINES:
                raise TraceError(f"{file}:{number}: more than {MOST_MACHINES} machines at a time")
        elif change.what == "leaves":
            there.remove(machine)
        yield change


def _event(row: Any) -> tuple[float, Change | None]:
    """The time of a line in ROMUL's format, and the change of a machine; None: there is none.

    Raises:
        ValueError: the line is invalid.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{shown(row)} is not an object")  # noqa: TRY004
    if row.get("event") in FRAMES:
        # Not checked: a server's clock may have gone back to before the beginning.
        return float(row["at"]), None
    at_s = _number("at", _given(row, "at"))
    return at_s, None if row.keys() == {"at"} else _change(at_s, row)


def _change(at_s: float, row: Mapping[str, Any]) -> Change:
    """The change of a machine in a line.

    Raises:
        ValueError: the line is invalid.
    """
    machine, what = _name("machine", _given(row, "machine")), _given(row, "event")
    if what not in get_args(What):
        raise ValueError(f"event: {shown(what)} is not one of {', '.join(get_args(What))}")
    keys = KEYS[cast("What", what)]
    for key in row:
        if key not in ("at", "machine", "event", *keys):
            raise ValueError(f"{what}: {shown(key)}: {unknown_key(key, keys)}")
    values: dict[str, Any] = {}
    for key in keys:
        if key in row or what != "arrives":
            values[key] = (_name if key == "zone" else _number)(key, _given(row, key))
    return Change(at_s, machine, what, **values)


def _given(row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise ValueError(f"{key}: not given")
    return row[key]


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: {shown(value)} is not a number")  # noqa: TRY004
    # This comparison also refuses NaN.
    if not 0 <= value <= GREATEST[key]:
        raise ValueError(f"{key}: {shown(value)} is not from 0 to {GREATEST[key]:g}")
    return float(value)


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: {shown(value)} is not text")  # noqa: TRY004
    return value


def line_of(change: Change) -> str:
    """A line in ROMUL's format: the required keys, and values that differ from the default."""
    row: dict[str, Any] = {"at": change.at_s, "machine": change.machine, "event": change.what}
    must = () if change.what == "arrives" else KEYS[change.what]
    for key, default in _DEFAULTS.items():
        value = getattr(change, key)
        if key in must or value != default:
            row[key] = value
    return json.dumps(row)


def write_trace(file: Path, trace: Trace) -> None:
    """Write a trace in ROMUL's format."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(line_of(change) + "\n" for change in trace.changes)
        if not trace.changes or trace.span_s > trace.changes[-1].at_s:
            out.write(json.dumps({"at": trace.span_s}) + "\n")
