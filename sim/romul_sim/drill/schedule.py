"""Schedules of faults for real processes: draws, writes and reads them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from numpy.random import default_rng
from pydantic import ValidationError

from romul_actors.errors import RomulError
from romul_actors.protocol.mistakes import mistakes_of, unreadable
from romul_sim.faults import DeclaredFault, Fault

LEASE_S = 2.0
"""Lease in the searches of a drill, in seconds."""

FAULTS: Mapping[str, float] = {
    "kill worker": 6,
    "terminate worker": 4,
    "freeze worker": 4,
    "kill holder": 2,
    "freeze holder": 2,
    "kill storer": 2,
    "terminate storer": 2,
    "freeze storer": 2,
    "kill actor": 4,
    "terminate actor": 2,
    "freeze actor": 2,
    "kill server": 2,
    "kill broker": 2,
    "fill disk": 1,
    "damage checkpoint": 1,
    "garbage on queues": 1,
}
"""Kinds of faults, with their weights."""


def draw(n: int, mean_s: float, seed: int) -> list[Fault]:
    """Draw a schedule; each kind occurs at least once if there are enough faults.

    Args:
        n: number of faults.
        mean_s: mean time between two faults, in seconds.
        seed: the same seed gives the same schedule.
    """
    rng = default_rng(seed)
    chosen = list(FAULTS)[:n]
    total = sum(FAULTS.values())
    shares = [weight / total for weight in FAULTS.values()]
    chosen += rng.choice(list(FAULTS), n - len(chosen), p=shares).tolist()
    rng.shuffle(chosen)
    at_s, faults = 0.0, []
    for kind in chosen:
        at_s += float(rng.exponential(mean_s))
        # About half of the frozen processes thaw before their lease ends, half after it.
        for_s = float(rng.uniform(0.2, 2 * LEASE_S))
        faults.append(Fault(round(at_s, 3), kind, float(rng.random()), round(for_s, 3)))
    return faults


def read_schedule(file: Path) -> list[Fault]:
    """Read a schedule: JSON lines, as `write_schedule` writes them.

    Raises:
        RomulError: the file cannot be read, or a line is not a fault.
    """
    faults = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RomulError(f"{file}: cannot be read: {unreadable(error)}") from None
    for number, line in enumerate(lines, 1):
        try:
            faults.append(DeclaredFault.model_validate_json(line, context=FAULTS).fault())
        except ValidationError as error:
            mistakes = "; ".join(map(str, mistakes_of(error, DeclaredFault)))
            raise RomulError(f"{file}:{number}: not a fault: {mistakes}") from None
    return sorted(faults, key=lambda fault: fault.at_s)


def write_schedule(file: Path, faults: Sequence[Fault]) -> None:
    """Write a schedule, to run it again."""
    file.write_text("".join(json.dumps(asdict(fault)) + "\n" for fault in faults))
