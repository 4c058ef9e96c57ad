"""Golden records: one SHA-256 of a whole history, which shows whether any decision has changed.

A canonical form of each line is hashed: no wall-clock fields, rounded floats, sorted keys.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from romul_actors.core.history import Line, to_json

CLOCK = frozenset({"at_ms", "seconds"})
"""Fields that depend on a clock: the time of the event, and the duration of a trial."""
DIGITS = 9
"""Significant digits of a float. Rounding hides the order of a sum, but no decision."""


def canonical(line: Mapping[str, Any]) -> str:
    """The canonical form of a line of history.

    Args:
        line: JSON values; tuples count as lists. numpy's numbers are not allowed.

    Returns:
        JSON in one line: keys sorted, no field of `CLOCK`, floats with `DIGITS` significant digits
        and without a negative zero. Integers, floats and booleans remain distinct.

    Raises:
        TypeError: a value is not a JSON value.
    """
    kept = {key: _rounded(value) for key, value in line.items() if key not in CLOCK}
    return _JSON.encode(kept)


# `json.dumps` would make a new encoder for each line.
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def _rounded(value: Any) -> Any:
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    return value


class HistoryHash:
    """The hash of a history, computed line by line."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, line: Line, search: str = "") -> None:
        """Add a line; `search` is the name of its search, if several are hashed together."""
        self._sha256.update(f"{search}\t{canonical(to_json(line))}\n".encode())

    def hexdigest(self) -> str:
        """The SHA-256 of all lines so far, in hexadecimal digits."""
        return self._sha256.hexdigest()
