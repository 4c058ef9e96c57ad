"""Schedules of faults in virtual time: draws, shrinks, writes and reads them."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from numpy.random import default_rng
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from romul_actors.protocol.mistakes import mistakes_of
from romul_sim.faults import DeclaredFault, Fault

KINDS = {
    "kill machine": 6,
    "notice to machine": 4,
    "freeze machine": 4,
    "slow machine": 2,
    "lose zone": 1,
    "crash actor": 5,
    "freeze actor": 2,
    "lossy network": 4,
    "store away": 2,
    "store loses writes": 2,
    "store loses trial": 1,
}
"""Kinds of faults, with their weights."""
MOST = 1000
"""Limit in a file: of machines, actors, slots and steps."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """The input of a simulation.

    Attributes:
        seed: seed of everything random except the faults.
        faults: the faults, in order of time.
        machines, zones, actors: number of each.
        population, steps: number of slots and PBT steps of the search.
    """

    seed: int
    faults: tuple[Fault, ...]
    machines: int = 6
    zones: int = 2
    actors: int = 2
    population: int = 6
    steps: int = 8


def draw(seed: int, n: int = 25, span_s: float = 240.0) -> Chaos:
    """Draw `n` faults within `span_s` seconds from a seed."""
    rng = default_rng([seed, 1])
    kinds, weights = list(KINDS), list(KINDS.values())
    chosen = rng.choice(kinds, n, p=[w / sum(weights) for w in weights])
    times = sorted(rng.uniform(0.0, span_s, n).tolist())
    faults = tuple(
        Fault(round(at, 3), str(kind), float(rng.random()), round(float(rng.exponential(8.0)), 3))
        for at, kind in zip(times, chosen, strict=True)
    )
    return Chaos(seed, faults)


def shrink(chaos: Chaos, broken: Callable[[Chaos], bool]) -> Chaos:
    """Reduce the faults to a list that still breaks an invariant (delta debugging, Zeller 1999).

    Args:
        chaos: a simulation that breaks an invariant.
        broken: runs a simulation, and returns whether it breaks an invariant.
    """
    faults, n = list(chaos.faults), 2
    while len(faults) >= 2:  # noqa: PLR2004
        size = math.ceil(len(faults) / n)
        parts = [faults[i : i + size] for i in range(0, len(faults), size)]
        for part in parts:
            rest = [fault for fault in faults if fault not in part]
            smaller = replace(chaos, faults=tuple(rest))
            if broken(smaller):
                faults, n = rest, max(2, n - 1)
                break
        else:
            if n >= len(faults):
                break
            n = min(len(faults), 2 * n)
    only = replace(chaos, faults=())
    return only if broken(only) else replace(chaos, faults=tuple(faults))


def to_json(chaos: Chaos) -> str:
    """A simulation as JSON, to run it again."""
    return json.dumps(asdict(chaos))


class _Chaos(BaseModel):
    """A simulation in a file; see `Chaos`, which has the defaults."""

    model_config = ConfigDict(extra="forbid", strict=True)
    seed: int = Field(ge=0, lt=2**64)
    faults: tuple[DeclaredFault, ...]
    machines: int = Field(MOST, ge=1, le=MOST)
    zones: int = Field(MOST, ge=1, le=MOST)
    actors: int = Field(MOST, ge=1, le=MOST)
    population: int = Field(MOST, ge=4, le=MOST)
    steps: int = Field(MOST, ge=1, le=MOST)


def from_json(text: str) -> Chaos:
    """Read a simulation from JSON, and sort its faults by time.

    Raises:
        ValueError: a key or a kind of fault is unknown, or a value is invalid.
    """
    try:
        read = _Chaos.model_validate_json(text, context=KINDS)
    except ValidationError as error:
        mistakes = "; ".join(map(str, mistakes_of(error, _Chaos)))
        raise ValueError(f"not a simulation: {mistakes}") from None
    faults = (fault.fault() for fault in read.faults)
    given = read.model_dump(exclude_unset=True) | {
        "faults": tuple(sorted(faults, key=lambda fault: fault.at_s))
    }
    return Chaos(**given)
