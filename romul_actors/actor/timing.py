"""Intervals and limits of an actor's periodic work, and of Python's garbage collector."""

import gc

from romul_actors.core.elasticity import median_trial_s
from romul_actors.core.population import Population

PACE_S = 0.5
"""Longest wait for an event; an actor notices a stop signal within this time."""
TAKE_OVER_MS = 5_000
"""An actor that leaves an entry pending for this long is considered dead."""
RECONCILE_S = 30.0
"""Interval at which lost trials are looked for, or the length of a lease if that is longer."""
TICKS_A_TRIAL = 20
"""Number of ticks that a population receives in a median trial, but at most one per second."""
LONGEST_TICK_S = 300.0
SILENT_MS = 1_000
"""A worker that lost its connection and sent no heartbeat for this long is considered dead."""
SILENCE_S = 1.0
"""A store that answers this late was silent: heartbeats could not renew leases meanwhile."""
FORGET_MS = 3_600_000
"""Workers without a heartbeat, and readers that are idle, for this long are no longer listed."""
BACKOFF_S = 1.0
GIVE_WAY_S = 1.0
"""How long an actor leaves a search to another one before it checks for counted results."""
GC_THRESHOLDS = (20_000, 20, 50)
"""Thresholds of Python's cyclic garbage collector, as for `gc.set_threshold`."""


def collect_rarely() -> None:
    """Make the cyclic garbage collector run less often in this process.

    A population or a long history consists of many long-lived objects without cycles. Scanning them
    takes a share of the process's time that grows with their number.
    """
    gc.set_threshold(*GC_THRESHOLDS)


def tick_every_s(population: Population | None, pace_s: float) -> float:
    """Interval between ticks of a population (None if it is not known), in seconds."""
    trial_s = median_trial_s(population.slots) if population is not None else 0.0
    return min(LONGEST_TICK_S, max(2 * pace_s, trial_s / TICKS_A_TRIAL))
