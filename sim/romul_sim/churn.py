"""When machines come and go, slow down and freeze: as values, and generated.

Files that say so are read and written by `trace_files.py`.
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
"""Length of a trace, at most."""
MOST_MACHINES = 200_000
"""Machines at a time, at most: each is a worker, which takes memory."""
MOST_CHANGES = 10_000_000
"""Changes of a trace, at most."""


class TraceError(RomulError, ValueError):
    """A trace file that cannot be used."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """Something happens to a machine.

    Attributes:
        at_s: when, in seconds from the start.
        machine: its name.
        what: `notice` is a warning that it will leave.
        zone: for an arrival: where it is.
        seconds: for a notice: how long before it leaves; for a freeze: how long it lasts.
        speed: for an arrival and a slowing down: relative to others; None: drawn.
        price: for an arrival: of an hour; None: the scenario's.
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
    """Changes that lead to `counts[t]` machines at time t * gap_s; the last to come goes first.

    Raises:
        TraceError: there are more machines, or more changes, than a trace may have.
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
    """Machines by time.

    Attributes:
        changes: in order of time; at its beginning there is no machine.
        span_s: how long it goes on.
    """

    changes: tuple[Change, ...]
    span_s: float


def with_notice(changes: Sequence[Change], notice_s: float) -> list[Change]:
    """Warn of every departure so long before it, where the trace has no warning of its own."""
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
    """The largest number of machines that are there at a time."""
    n = most = 0
    for change in changes:
        n += {"arrives": 1, "leaves": -1}.get(change.what, 0)
        most = max(most, n)
    return most


def machine_seconds(changes: Sequence[Change], span_s: float) -> float:
    """How many machine seconds a trace holds."""
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
    """Machines to be had.

    Attributes:
        machines: how many there are when none is missing.
        lifetime_s: mean life of a machine.
        span_s: length of the whole.
        zones: among how many zones they are spread.
        shape: of the Weibull law of lifetimes; 1: exponential, less: many die young.
        gap_s: mean time until a machine is replaced; None: a tenth of its life.
    """

    machines: int = 16
    lifetime_s: float = 4 * 3600.0
    span_s: float = 7 * DAY_S
    zones: int = 4
    shape: float = 1.0
    gap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """One machine from its arrival to its end."""

    zone: int
    begin_s: float
    end_s: float


def replaced(pool: Pool, rng: Generator) -> list[Life]:
    """Places whose machines live for Weibull times and are replaced after exponential ones."""
    lives = []
    # The mean of a Weibull law of scale 1 is gamma(1 + 1 / shape).
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
    """Arrivals at random times, `burst` at a time, so many that `machines` live on average."""
    lives, at_s = [], 0.0
    while at_s < pool.span_s:
        zone = int(rng.integers(pool.zones))
        lives_s = rng.exponential(pool.lifetime_s, burst).tolist()
        lives += [Life(zone, at_s, at_s + life_s) for life_s in lives_s]
        at_s += float(rng.exponential(pool.lifetime_s * burst / pool.machines))
    return lives


def without(lives: Iterable[Life], begin_s: float, end_s: float, zone: int | None) -> list[Life]:
    """No machine of a zone, or of any, between two times: an outage, or a drought."""
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
            # It comes back, or comes at last, when there are machines again.
            left.append(replace(life, begin_s=end_s))
    return left


def _weibull(pool: Pool, rng: Generator) -> list[Life]:
    return replaced(replace(pool, shape=0.6), rng)


def _poisson(pool: Pool, rng: Generator) -> list[Life]:
    return arriving(pool, rng)


def _bursts(pool: Pool, rng: Generator) -> list[Life]:
    return arriving(pool, rng, burst=max(1, pool.machines // 2))


def _zones(pool: Pool, rng: Generator) -> list[Life]:
    """Let a whole zone go at a time, for an hour, twice a day."""
    lives, at_s = replaced(pool, rng), 0.0
    while (at_s := at_s + float(rng.exponential(DAY_S / 2))) < pool.span_s:
        lives = without(lives, at_s, at_s + 3600.0, int(rng.integers(pool.zones)))
    return lives


def _drought(pool: Pool, rng: Generator) -> list[Life]:
    """Leave a sixth of the span, in the middle, without machines."""
    middle_s = pool.span_s / 2
    return without(
        replaced(pool, rng), middle_s - pool.span_s / 12, middle_s + pool.span_s / 12, None
    )


def _day(pool: Pool, rng: Generator) -> list[Life]:
    """Leave three zones of four without machines by day, when others pay more for them."""
    lives, zones = replaced(replace(pool, zones=4), rng), range(1, 4)
    for day in range(int(pool.span_s // DAY_S) + 1):
        for zone in zones:
            # They go one after the other, in the morning, and come back so in the evening.
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
"""Ways in which machines come and go, by name."""


def generate(name: str, pool: Pool, rng: Generator) -> Trace:
    """Make a trace.

    Raises:
        TraceError: there is no generator of that name, or it would make more machines than a trace
            may have.
    """
    if name not in GENERATORS:
        raise TraceError(f"churn {name!r} is not one of {', '.join(GENERATORS)}")
    # By day an outage may cut each life in two.
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
        # Rounded times stay within the span.
        begin_s, end_s = (min(round(s, 3), pool.span_s) for s in (life.begin_s, life.end_s))
        changes.append(Change(begin_s, machine, "arrives", zone=zone))
        if life.end_s < pool.span_s:
            changes.append(Change(end_s, machine, "leaves"))
    return Trace(tuple(sorted(changes, key=lambda change: change.at_s)), pool.span_s)
