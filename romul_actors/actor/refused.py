"""What is decided of a search of which this version refuses a part.

It ends, or it goes on without the optimizer's options that are refused. All else waits for that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from romul_actors.core.decide import decide_all
from romul_actors.core.events import Control, Event, Stamped
from romul_actors.core.history import SearchChanged
from romul_actors.core.population import Decision, Population
from romul_actors.errors import MessageError, RefusedError
from romul_actors.protocol.messages import decode_event
from romul_actors.protocol.refused import Readable
from romul_actors.protocol.stored_fields import EXTENDABLE


@dataclass(frozen=True, slots=True)
class Refused:
    """What is refused of a stored declaration.

    Attributes:
        why: in words, with what to do.
        options: of the optimizer, those that have to be taken out, with their values; empty:
            nothing helps but an end.
    """

    why: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, found: Readable) -> "Refused | None":
        """What is refused of a declaration; None: nothing is."""
        if not found.refusal:
            return None
        return cls(found.refusal, found.options if found.mendable else {})

    def is_answered_by(self, body: bytes) -> bool:
        """Whether a message of the inbox ends the search, or takes out what is refused."""
        try:
            return self.ends_with(decode_event(body))
        except MessageError:
            return False

    def ends_with(self, event: Event) -> bool:
        """Whether an event ends the search, or takes out what is refused."""
        if not isinstance(event, Control):
            return False
        return event.action == "stop" or self.is_taken_out_by(event)

    def is_taken_out_by(self, event: Control) -> bool:
        """Whether an event takes out what is refused."""
        taken_out = {name for name, value in event.constants.items() if value is None}
        return event.action == "change" and bool(self.options) and {*self.options} <= taken_out


def decide_refused(refused: Refused, population: Population, events: Sequence[Stamped]) -> Decision:
    """Decide what an optimizer's options do not matter for.

    Args:
        refused: what is refused.
        population: of the search, its optimizer without the refused options.
        events: they are decided if the search has ended, and goes on to be; or a single one, if it
            ends the search or takes out what is refused.

    Raises:
        RefusedError: they are others.
    """
    event = events[0].event if len(events) == 1 else None
    if isinstance(event, Control) and refused.is_taken_out_by(event):
        return _mended(refused, population, event, events[0].at_ms)
    if population.status in EXTENDABLE or (event is not None and refused.ends_with(event)):
        decision = decide_all(population, events)
        same = decision.population.settings is population.settings
        if decision.population.status in EXTENDABLE and same:
            return decision
    raise RefusedError(refused.why)


def _mended(refused: Refused, population: Population, event: Control, at_ms: int) -> Decision:
    """The search without what is refused, then with whatever else the event changes."""
    line = SearchChanged(
        at_ms=at_ms,
        by=event.by,
        constants=dict.fromkeys(refused.options),
        before={"constants": refused.options},
    )
    # Other settings, although they are equal: the declaration is to be written without the options.
    population = replace(population, settings=replace(population.settings))
    rest = {name: value for name, value in event.constants.items() if name not in refused.options}
    if not rest and not event.population:
        return Decision(population, (), (line,))
    decision = decide_all(population, [Stamped(replace(event, constants=rest), at_ms)])
    return replace(decision, history=(line, *decision.history))
