"""Traces of machines that come and go, slow down and freeze, and generators of such traces.

`trace_files.py` reads and writes them as files.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from numpy.random import Generator

from romul_actors.errors import RomulError

What = Literal["arrives", "notice", "leaves", "freezes", "slows"]
DAY_S = 24 * 3600.0
LONGEST_S = 100 * 365 * DAY_S
"""Longest trace, in seconds."""
MOST_MACHINES = 200_000
"""Most machines at a time; each has a worker, which needs memory."""
MOST_CHANGES = 10_000_000
"""Most changes in a trace."""


class TraceError(RomulError, ValueError):
    """A trace is invalid or too large."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A change of a machine.

    Attributes:
        at_s: time of the change, in seconds from the start.
        machine: name of the machine.
        what: kind of the change; `notice` is a warning that the machine will leave.
        zone: for an arrival: the machine's zone.
        seconds: for a notice: time until the machine leaves; for a freeze: its duration.
        speed: for an arrival or a change of speed: speed relative to others; None: drawn.
        price: for an arrival: price per hour; None: that of the scenario.
    """

    at_s: float
    machine: str
    what: What
    zone: str = ""
    seconds: float = 0.0
    speed: float | None = None
    price: float | None = None


# -- traces ---------------------------------------------------------------------------------------


def from_counts(gap_s: float, counts: Sequence[int]) -> list[Change]:
    """Changes that lead to `counts[t]` machines at time t * gap_s.

    The machine that arrived last leaves first.

    Raises:
        TraceError: there are more machines or more changes than a trace may have.
    """
    if (most := max(counts, default=0)) > MOST_MACHINES:
        raise TraceError(f"{most} machines at a time: at most {MOST_MACHINES}")
    steps = sum(abs(after - before) for before, after in itertools.pairwise((0, *counts)))
    if steps > MOST_CHANGES:
        raise TraceError(f"{steps} arrivals and departures: at most {MOST_CHANGES}")
    changes: list[Change] = []
    alive: list[str] = []
    names = (f"m{number}" for number in itertools.count())
    for tick, count in enumerate(counts):
        while len(alive) < count:
            alive.append(next(names))
            changes.append(Change(tick * gap_s, alive[-1], "arrives"))
        while len(alive) > count:
            changes.append(Change(tick * gap_s, alive.pop(), "leaves"))
    return changes


@dataclass(frozen=True, slots=True)
class Trace:
    """Machines over time.

    Attributes:
        changes: changes in order of time; at the beginning there is no machine.
        span_s: length of the trace, in seconds.
    """

    changes: tuple[Change, ...]
    span_s: float


def with_notice(changes: Sequence[Change], notice_s: float) -> list[Change]:
    """Add a notice `notice_s` before each departure that has no notice in the trace."""
    came: dict[str, float] = {}
    warned: set[str] = set()
    more = []
    for change in sorted(changes, key=lambda change: change.at_s):
        machine = change.machine
        if change.what == "arrives":
            came[machine] = change.at_s
            warned.discard(machine)
        elif change.what == "notice":
            warned.add(machine)
        elif change.what == "leaves" and machine not in warned:
            at_s = max(came.get(machine, 0.0), change.at_s - notice_s)
            more.append(Change(at_s, machine, "notice", seconds=change.at_s - at_s))
    return sorted([*changes, *more], key=lambda change: change.at_s)


def most_machines(changes: Sequence[Change]) -> int:
    """The largest number of machines at a time."""
    n = most = 0
    for change in changes:
        n += {"arrives": 1, "leaves": -1}.get(change.what, 0)
        most = max(most, n)
    return most


def machine_seconds(changes: Sequence[Change], span_s: float) -> float:
    """Total machine time of a trace, in seconds."""
    total, came = 0.0, {}
    for change in changes:
        if change.what == "arrives":
            came[change.machine] = change.at_s
        elif change.what == "leaves" and change.machine in came:
            total += change.at_s - came.pop(change.machine)
    return total + sum(max(0.0, span_s - at_s) for at_s in came.values())


# -- generators -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of machines, from which generators make traces.

    Attributes:
        machines: number of machines if none is missing.
        lifetime_s: mean lifetime of a machine, in seconds.
        span_s: length of the trace, in seconds.
        zones: number of zones over which the machines are spread.
        shape: shape of the Weibull distribution of lifetimes; 1: exponential; less: many machines
            have short lives.
        gap_s: mean time until a machine is replaced, in seconds; None: a tenth of `lifetime_s`.
    """

    machines: int = 16
    lifetime_s: float = 4 * 3600.0
    span_s: float = 7 * DAY_S
    zones: int = 4
    shape: float = 1.0
    gap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """One machine, from its arrival to its end."""

    zone: int
    begin_s: float
    end_s: float


def replaced(pool: Pool, rng: Generator) -> list[Life]:
    """Machines with Weibull lifetimes that are replaced after exponential times."""
    lives = []
    # The mean of a Weibull distribution of scale 1 is gamma(1 + 1 / shape).
    mean = math.gamma(1.0 + 1.0 / pool.shape)
    gap_s = pool.lifetime_s / 10 if pool.gap_s is None else pool.gap_s
    for place in range(pool.machines):
        at_s = 0.0
        while at_s < pool.span_s:
            end_s = at_s + pool.lifetime_s * float(rng.weibull(pool.shape)) / mean
            lives.append(Life(place % pool.zones, at_s, end_s))
            at_s = end_s + float(rng.exponential(gap_s))
    return lives


def arriving(pool: Pool, rng: Generator, burst: int = 1) -> list[Life]:
    """Arrivals at random times, `burst` at a time, with `machines` machines on average."""
    lives, at_s = [], 0.0
    while at_s < pool.span_s:
        zone = int(rng.integers(pool.zones))
        lives_s = rng.exponential(pool.lifetime_s, burst).tolist()
        lives += [Life(zone, at_s, at_s + life_s) for life_s in lives_s]
        at_s += float(rng.exponential(pool.lifetime_s * burst / pool.machines))
    return lives


def without(lives: Iterable[Life], begin_s: float, end_s: float, zone: int | None) -> list[Life]:
    """Remove all machines between two times, in one zone or, with None, in all zones."""
    left = []
    for life in lives:
        if zone not in (None, life.zone):
            left.append(life)
            continue
        if life.begin_s < begin_s:
            left.append(replace(life, end_s=min(life.end_s, begin_s)))
        elif life.begin_s >= end_s:
            left.append(life)
        if life.begin_s < end_s < life.end_s:
            # The machine comes back, or arrives late, at the end of the outage.
            left.append(replace(life, begin_s=end_s))
    return left


def _weibull(pool: Pool, rng: Generator) -> list[Life]:
    return replaced(replace(pool, shape=0.6), rng)


def _poisson(pool: Pool, rng: Generator) -> list[Life]:
    return arriving(pool, rng)


def _bursts(pool: Pool, rng: Generator) -> list[Life]:
    return arriving(pool, rng, burst=max(1, pool.machines // 2))


def _zones(pool: Pool, rng: Generator) -> list[Life]:
    """Remove one zone at a time for an hour, twice a day on average."""
    lives, at_s = replaced(pool, rng), 0.0
    while (at_s := at_s + float(rng.exponential(DAY_S / 2))) < pool.span_s:
        lives = without(lives, at_s, at_s + 3600.0, int(rng.integers(pool.zones)))
    return lives


def _drought(pool: Pool, rng: Generator) -> list[Life]:
    """Remove all machines for a sixth of the span, in its middle."""
    middle_s = pool.span_s / 2
    return without(
        replaced(pool, rng), middle_s - pool.span_s / 12, middle_s + pool.span_s / 12, None
    )


def _day(pool: Pool, rng: Generator) -> list[Life]:
    """Remove the machines of three of four zones by day, when other users pay more for them."""
    lives, zones = replaced(replace(pool, zones=4), rng), range(1, 4)
    for day in range(int(pool.span_s // DAY_S) + 1):
        for zone in zones:
            # One zone after the other leaves in the morning and comes back in the evening.
            shift_s = 3600.0 * zone
            begin_s, end_s = day * DAY_S + 8 * 3600.0 + shift_s, day * DAY_S + 20 * 3600.0 + shift_s
            lives = without(lives, begin_s, end_s, zone)
    return lives


GENERATORS: dict[str, Callable[[Pool, Generator], list[Life]]] = {
    "replaced": replaced,
    "weibull": _weibull,
    "poisson": _poisson,
    "bursts": _bursts,
    "zones": _zones,
    "drought": _drought,
    "day": _day,
}
"""Generators by name."""


def generate(name: str, pool: Pool, rng: Generator) -> Trace:
    """Generate a trace.

    Args:
        name: name of a generator in `GENERATORS`.
        pool: the pool of machines.
        rng: random generator.

    Raises:
        TraceError: there is no generator of that name, or the trace would be too large.
    """
    if name not in GENERATORS:
        raise TraceError(f"churn {name!r} is not one of {', '.join(GENERATORS)}")
    # An outage, one per day, may cut a life in two.
    lives_each = 1 + pool.span_s / pool.lifetime_s + pool.span_s / DAY_S
    n_changes = 2 * pool.machines * lives_each
    if pool.machines > MOST_MACHINES or not pool.span_s <= LONGEST_S or n_changes > MOST_CHANGES:
        raise TraceError(
            f"churn {name}: {pool.machines} machines for {pool.span_s / DAY_S:g} days, lives of "
            f"{pool.lifetime_s / 3600:g} h: too much for a simulation (at most {MOST_MACHINES} "
            f"machines, {MOST_CHANGES} arrivals and departures, {LONGEST_S / DAY_S:g} days)"
        )
    changes = []
    lives = sorted(GENERATORS[name](pool, rng), key=lambda life: (life.begin_s, life.end_s))
    for number, life in enumerate(lives):
        if life.begin_s >= pool.span_s or life.end_s <= life.begin_s:
            continue
        machine, zone = f"m{number}", f"zone-{life.zone}"
        # Rounding must not move a time beyond the span.
        begin_s, end_s = (min(round(s, 3), pool.span_s) for s in (life.begin_s, life.end_s))
        changes.append(Change(begin_s, machine, "arrives", zone=zone))
        if life.end_s < pool.span_s:
            changes.append(Change(end_s, machine, "leaves"))
    return Trace(tuple(sorted(changes, key=lambda change: change.at_s)), pool.span_s)
