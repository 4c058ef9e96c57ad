"""How often an actor does what no event triggers."""

import gc

from romul_actors.core.elasticity import median_trial_s
from romul_actors.core.population import Population

PACE_S = 0.5
"""Longest wait for an event at a time; also how soon an actor notices that it should stop."""
TAKE_OVER_MS = 5_000
"""An actor that leaves an entry pending for so long is taken for dead."""
RECONCILE_S = 30.0
"""How often it is checked that every trial is in a queue or with a worker; or once in a lease."""
TICKS_A_TRIAL = 20
"""A population receives so many ticks in a median trial, and one a second at most."""
LONGEST_TICK_S = 300.0
SILENT_MS = 1_000
"""A worker whose connection was lost and that sent no heartbeat for so long is taken for dead."""
SILENCE_S = 1.0
"""A store that answers so late was silent: meanwhile no heartbeat could renew a lease."""
FORGET_MS = 3_600_000
"""A worker that sent no heartbeat for so long is no longer listed; nor is any idle reader."""
BACKOFF_S = 1.0
GIVE_WAY_S = 1.0
"""So long an actor leaves a search to another one before it looks whether results were counted."""
GC_THRESHOLDS = (20_000, 20, 50)
"""When Python looks for garbage in cycles: by new objects, and by looks at younger ones."""


def collect_rarely() -> None:
    """Let this process look for garbage in cycles less often than Python does.

    A population, or a long history, is many objects that stay and hold no cycles; looking through
    them takes a part of a process's time that grows with it.
    """
    gc.set_threshold(*GC_THRESHOLDS)


def tick_every_s(population: Population | None, pace_s: float) -> float:
    """How often a population, None if it is not known, receives a tick, in seconds."""
    trial_s = median_trial_s(population.slots) if population is not None else 0.0
    return min(LONGEST_TICK_S, max(2 * pace_s, trial_s / TICKS_A_TRIAL))
