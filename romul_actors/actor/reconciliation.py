"""Which attempts are nowhere: neither in a queue, nor with a worker, nor in a report.

That cannot happen while the server lives; it can when the server comes back from older data.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from romul_actors.core.events import Expired, Failed, Released, Result
from romul_actors.core.population import Population
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_event, decode_trial
from romul_actors.store import Outstanding


def missing_attempts(population: Population, outstanding: Outstanding) -> list[Released]:
    """Reports that give back every live attempt that is on no way.

    Args:
        population: at the same version as `outstanding`.
        outstanding: all messages on the way.
    """
    known = {(trial.id, trial.attempt) for trial in _decoded(outstanding.trials, decode_trial)}
    known |= {
        (event.trial, event.attempt)
        for event in _decoded(outstanding.inbox, decode_event)
        if isinstance(event, Result | Failed | Released | Expired)
    }
    return [
        Released(trial=slot.trial, slot=slot.index, attempt=attempt, worker="", reason="missing")
        for slot in population.slots
        if slot.status == "queued"
        for attempt in slot.live_attempts
        if (slot.trial, attempt) not in known
    ]


def _decoded(bodies: Sequence[bytes], decode: Callable[[bytes], Any]) -> Iterator[Any]:
    """Messages of those bodies that hold one."""
    for body in bodies:
        with contextlib.suppress(MessageError):
            yield decode(body)
