"""Golden records: one SHA-256 of a whole history, which says whether any decision has moved.

What is hashed is a canonical form of each line: no wall-clock fields, floats rounded, keys sorted.
Knows nothing of how the lines were decided.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from romul_actors.core.history import Line, to_json

CLOCK = frozenset({"at_ms", "seconds"})
"""Fields of a line that depend on a clock: when its event came, and how long a trial took."""
DIGITS = 9
"""Significant digits of a float: what is lost is the order of a sum, not a decision."""


def canonical(line: Mapping[str, Any]) -> str:
    """The canonical form of a line of history.

    Args:
        line: JSON values; tuples count as lists. numpy's numbers are none of them.

    Returns:
        JSON in one line: keys sorted, no field of `CLOCK`, floats to `DIGITS` significant digits
        and without a negative zero. Whole numbers, floats and booleans stay apart.

    Raises:
        TypeError: a value is not of JSON.
    """
    kept = {key: _rounded(value) for key, value in line.items() if key not in CLOCK}
    return _JSON.encode(kept)


# `json.dumps` would make another one for each line.
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
    """The hash of a history whose lines come one by one."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, line: Line, search: str = "") -> None:
        """Add a line; `search` is the name of its search, where several are hashed together."""
        self._sha256.update(f"{search}\t{canonical(to_json(line))}\n".encode())

    def hexdigest(self) -> str:
        """The SHA-256 of all lines so far, in hexadecimal digits."""
        return self._sha256.hexdigest()
