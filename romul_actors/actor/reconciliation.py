"""Which attempts are nowhere: neither in a queue, nor with a worker, nor in a report.

That cannot happen while the server lives; it can when the server comes back from older data.
"""

from functools import lru_cache

from romul_actors.core.events import Expired, Failed, Released, Result
from romul_actors.core.population import Population
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_event, decode_trial
from romul_actors.store import Outstanding

REMEMBERED_BYTES = 1_024
"""Longest message whose attempt is remembered: an actor's memory must stay small."""


def missing_attempts(population: Population, outstanding: Outstanding) -> list[Released]:
    """Reports that give back every live attempt that is on no way.

    Args:
        population: at the same version as `outstanding`.
        outstanding: all messages on the way.
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
    """The attempt that a message for workers is about; None: it holds no trial."""
    # A trial is out for as long as it trains, and is looked at again and again meanwhile.
    return _remembered(body) if len(body) <= REMEMBERED_BYTES else _read(body)


def _read(body: bytes) -> tuple[str, int] | None:
    try:
        trial = decode_trial(body)
    except MessageError:
        return None
    return trial.id, trial.attempt


_remembered = lru_cache(maxsize=8_192)(_read)


def _reported(body: bytes) -> tuple[str, int] | None:
    """The attempt that a message for actors is about; None: it is about none."""
    try:
        event = decode_event(body)
    except MessageError:
        return None
    if isinstance(event, Result | Failed | Released | Expired):
        return event.trial, event.attempt
    return None
