"""When machines come and go: read from a recorded trace, or generated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from numpy.random import Generator

from romul_actors.errors import RomulError


class TraceError(RomulError, ValueError):
    """A trace file that cannot be used."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A machine comes or goes, at a time in seconds from the start."""

    at_s: float
    machine: int
    what: Literal["arrives", "leaves"]


def from_counts(gap_s: float, counts: Sequence[int]) -> list[Change]:
    """Changes that lead to `counts[t]` machines at time t * gap_s; the last to come goes first."""
    changes: list[Change] = []
    alive: list[int] = []
    made = 0
    for tick, count in enumerate(counts):
        while len(alive) < count:
            alive.append(made)
            changes.append(Change(tick * gap_s, made, "arrives"))
            made += 1
        while len(alive) > count:
            changes.append(Change(tick * gap_s, alive.pop(), "leaves"))
    return changes


def read_trace(file: Path) -> list[Change]:
    """Read {"metadata": {"gap_seconds": s}, "data": [n0, n1, ...]}.

    Raises:
        TraceError: the file cannot be read or is not of that form.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        gap_s = float(content["metadata"]["gap_seconds"])
        counts = [int(count) for count in content["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{file}: not a trace of machine counts: {error!r}") from None
    if gap_s <= 0 or min(counts, default=-1) < 0:
        raise TraceError(f"{file}: gap_seconds must be above 0, and counts there and not below 0")
    return from_counts(gap_s, counts)


def poisson(machines: int, lifetime_s: float, span_s: float, rng: Generator) -> list[Change]:
    """Machines that live for exponential times and are replaced after a tenth of that, on average.

    Args:
        machines: how many there are when none is missing.
        lifetime_s: mean life of a machine.
        span_s: length of the whole.
        rng: where the times come from.
    """
    changes: list[Change] = []
    made = 0
    for _ in range(machines):
        at_s = 0.0
        while at_s < span_s:
            changes.append(Change(at_s, made, "arrives"))
            at_s += float(rng.exponential(lifetime_s))
            changes.append(Change(at_s, made, "leaves"))
            made += 1
            at_s += float(rng.exponential(lifetime_s / 10))
    return sorted(changes)
