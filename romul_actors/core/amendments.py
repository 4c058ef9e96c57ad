"""What an operator changes of the declaration in the middle of a search: bounds, steps.

The settings change; the actor writes them into the stored declaration (`actor.batch`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from romul_actors.core.dispatch import dispatch
from romul_actors.core.events import Control
from romul_actors.core.history import BoundsChanged, ControlIgnored, SearchExtended
from romul_actors.core.limits import reached_limits
from romul_actors.core.quorum import decide_waiting
from romul_actors.core.slot import Slot
from romul_actors.core.transition import Transition
from romul_actors.errors import SpaceError


def change_bounds(transition: Transition, event: Control) -> None:
    """Search a hyperparameter between other bounds; queued trials keep their values."""
    parameter, low, high = event.parameter, event.low, event.high
    before = transition.settings.space
    try:
        space = before.with_bounds(parameter, low, high)
    except SpaceError as error:
        transition.record(
            ControlIgnored(
                at_ms=transition.at_ms,
                action="bounds",
                status=transition.status,
                why=str(error),
                parameter=parameter,
                low=low,
                high=high,
                by=event.by,
            )
        )
        return
    transition.record(
        BoundsChanged(at_ms=transition.at_ms, parameter=parameter, low=low, high=high, by=event.by)
    )
    transition.settings = replace(transition.settings, space=space)

    def move(vector: Sequence[float]) -> tuple[float, ...]:
        return before.translate(vector, space)

    for slot in tuple(transition.slots):
        outcomes = {
            step: replace(outcome, vector=move(outcome.vector))
            for step, outcome in slot.outcomes.items()
        }
        memory = transition.settings.optimizer.moved(slot.memory, move)
        transition.change_slot(slot, vector=move(slot.vector), outcomes=outcomes, memory=memory)
    if transition.best is not None:
        transition.best = replace(transition.best, vector=move(transition.best.vector))


def extend(transition: Transition, event: Control) -> None:
    """Go on to more steps, also from the end of a search; a paused or failed one stays so.

    Slots that have ended their last step wait for a decision of that step again, with the share
    of steps done that follows from the new number (source: this project). A limit that has been
    reached no longer counts: the search could not go on.
    """
    before, steps, planned = (
        transition.settings.steps,
        event.steps,
        transition.settings.planned_steps,
    )
    if steps <= before:
        transition.record(
            ControlIgnored(
                at_ms=transition.at_ms,
                action="extend",
                status=transition.status,
                why=f"steps: {steps} is not above the {before} that it has",
                by=event.by,
                steps=steps,
            )
        )
        return
    lifted = _limits_in_the_way(transition)
    transition.record(
        SearchExtended(
            at_ms=transition.at_ms, steps=steps, before=before, by=event.by, lifted=lifted
        )
    )
    without: Any = dict.fromkeys(lifted)
    transition.settings = replace(transition.settings, steps=steps, **without)
    # With a limit fewer steps may be expected; then more of them change nothing.
    if transition.horizon == planned or lifted:
        transition.horizon = transition.settings.planned_steps
    if transition.status in ("finished", "stopped"):
        transition.status, transition.reason = "running", ""
    furthest = max((slot.step for slot in transition.slots), default=0)
    for slot in tuple(transition.slots):
        if slot.status == "done":
            _reopen(transition, slot, furthest)
    if transition.status == "running":
        decide_waiting(transition)


def _limits_in_the_way(transition: Transition) -> Mapping[str, Any]:
    """Limits that have been reached, and that of time where no trial could end before it."""
    reached, deadline_ms = dict(reached_limits(transition)), transition.deadline_ms
    settings = transition.settings
    if deadline_ms is not None and transition.at_ms + 1000 * transition.trial_s > deadline_ms:
        name = "deadline_ms" if deadline_ms == settings.deadline_ms else "max_ms"
        reached[name] = getattr(settings, name)
    return reached


def _reopen(transition: Transition, slot: Slot, furthest: int) -> None:
    """Let a slot take part again that was done: `furthest` is the last step of any slot."""
    if slot.step not in slot.outcomes:
        _try_again(transition, slot)
        return
    # A slot as far behind as that was parked; it takes part when there are workers for it.
    lead = transition.settings.optimizer.max_lead
    parked = lead is not None and furthest - slot.step > lead
    transition.change_slot(
        slot, status="parked" if parked else "waiting", since_ms=transition.at_ms
    )


def _try_again(transition: Transition, slot: Slot) -> None:
    """Begin the next attempt at a trial that was discarded at the end of the search.

    The last one may still be in the queue, or with a worker that has not heard of the end: it
    counts too, and the first report of the two is taken.
    """
    attempt = slot.attempt + 1
    transition.count(discarded=-1, retried=1)
    dispatch(
        transition,
        replace(
            slot,
            status="queued",
            attempt=attempt,
            live_attempts=(slot.attempt, attempt),
            since_ms=transition.at_ms,
        ),
    )
