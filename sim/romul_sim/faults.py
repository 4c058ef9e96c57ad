"""A fault of a schedule, in virtual time (`chaos/`) and on real processes (`drill/`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; a schedule is a list of them.

    Attributes:
        at_s: when, in seconds from the start.
        kind: what breaks: a name out of `chaos.schedule.KINDS`, or of `drill.schedule.FAULTS`.
        pick: which of the parts that it may strike, in [0, 1).
        for_s: for how many seconds something stays frozen, down or full; how much of the store's
            last seconds is lost, for lost writes.
    """

    at_s: float
    kind: str
    pick: float
    for_s: float
