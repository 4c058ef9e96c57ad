"""Finds lost attempts: those neither in a queue, nor with a worker, nor in a report.

This happens if the server has been restored from older data, or if a worker has put aside a trial
that it could not read.
"""

from functools import lru_cache

from romul_actors.core.events import Expired, Failed, Released, Result
from romul_actors.core.population import Population
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_event, decode_trial
from romul_actors.store import Outstanding

REMEMBERED_BYTES = 1_024
"""Longest message whose attempt is cached; the limit keeps an actor's memory small."""


def missing_attempts(population: Population, outstanding: Outstanding) -> list[Released]:
    """`Released` events for all live attempts that are lost.

    Args:
        population: the population, at the same version as `outstanding`.
        outstanding: all queued, leased and reported messages.
    """
    known = {*map(_attempt, outstanding.trials), *map(_reported, outstanding.inbox)}
    return [
        Released(trial=slot.trial, slot=slot.index, attempt=attempt, worker="", reason="missing")
        for slot in population.slots
        if slot.status == "queued"
        for attempt in slot.live_attempts
        if (slot.trial, attempt) not in known
    ]


def _attempt(body: bytes) -> tuple[str, int] | None:
    """The attempt in a message for workers; None if it contains no trial."""
    # Cached: while a trial is in training, its message is read again and again.
    return _remembered(body) if len(body) <= REMEMBERED_BYTES else _read(body)


def _read(body: bytes) -> tuple[str, int] | None:
    try:
        trial = decode_trial(body)
    except MessageError:
        return None
    return trial.id, trial.attempt


_remembered = lru_cache(maxsize=8_192)(_read)


def _reported(body: bytes) -> tuple[str, int] | None:
    """The attempt in a message for actors; None if the message is not about an attempt."""
    try:
        event = decode_event(body)
    except MessageError:
        return None
    if isinstance(event, Result | Failed | Released | Expired):
        return event.trial, event.attempt
    return None
