"""A fault in a schedule, for virtual time (`chaos/`) and for real processes (`drill/`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; a schedule is a list of them.

    Attributes:
        at_s: when it strikes, in seconds from the start.
        kind: what breaks: a name in `chaos.schedule.KINDS` or `drill.schedule.FAULTS`.
        pick: selects one of the parts that it may strike, in [0, 1).
        for_s: how long something stays frozen, down or full, in seconds; for lost writes, how many
            of the store's last seconds are lost.
    """

    at_s: float
    kind: str
    pick: float
    for_s: float
