"""An operator's changes to the declaration of a running search: bounds, steps, slots, constants.

These functions change the settings; the actor then updates the stored declaration (`actor.batch`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from romul_actors.core.bounds import translated, with_bounds
from romul_actors.core.dispatch import dispatch
from romul_actors.core.elasticity import to_park
from romul_actors.core.events import Control
from romul_actors.core.history import (
    BoundsChanged,
    ControlIgnored,
    SearchChanged,
    SearchExtended,
)
from romul_actors.core.limits import reached_limits
from romul_actors.core.membership import front, join, park
from romul_actors.core.optimizers.options import configured
from romul_actors.core.quorum import decide_waiting
from romul_actors.core.settings import Settings
from romul_actors.core.slot import Slot
from romul_actors.core.space import Value
from romul_actors.core.transition import Transition
from romul_actors.errors import ExperimentError, OptimizerError, SpaceError

MAX_SLOTS = 100_000
"""Maximal number of slots of a population."""


def change_bounds(transition: Transition, event: Control) -> None:
    """Change the bounds of a hyperparameter. Trials that have begun keep their values."""
    parameter, low, high = event.parameter, event.low, event.high
    before = transition.settings.space
    try:
        space = with_bounds(before, parameter, low, high)
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
    axis: Any = before.axes[before.axes_of(parameter)[0]]
    transition.record(
        BoundsChanged(
            at_ms=transition.at_ms,
            parameter=parameter,
            low=low,
            high=high,
            by=event.by,
            before=(axis.low, axis.high),
        )
    )

    def move(vector: Sequence[float]) -> tuple[float, ...]:
        return translated(vector, before, space)

    for slot in tuple(transition.slots):
        begun = transition.hyperparameters(slot)
        outcomes = {
            step: replace(outcome, vector=move(outcome.vector))
            for step, outcome in slot.outcomes.items()
        }
        memory = transition.settings.optimizer.moved(slot.memory, move)
        vector = move(slot.vector)
        transition.change_slot(
            slot,
            vector=vector,
            outcomes=outcomes,
            memory=memory,
            hyperparameters=None if begun == space.decode(vector) else begun,
        )
    if transition.best is not None:
        transition.best = replace(transition.best, vector=move(transition.best.vector))
    transition.settings = replace(transition.settings, space=space)


def extend(transition: Transition, event: Control) -> None:
    """Extend a search to more steps, even if it has ended; a paused or failed one stays so.

    Slots that have ended their last step wait for a decision of that step, which uses the share of
    steps done that follows from the new number (source: this project). A limit that has ended the
    search is removed, since the search could not continue otherwise.
    """
    before, steps = transition.settings.steps, event.steps
    planned = transition.settings.planned_steps
    if steps <= before:
        transition.record(
            ControlIgnored(
                at_ms=transition.at_ms,
                action="extend",
                status=transition.status,
                why=f"steps: {steps} is not above the current {before}",
                by=event.by,
                given={"steps": steps},
            )
        )
        return
    has_ended = transition.status in ("finished", "stopped")
    lifted = _limits_in_the_way(transition) if has_ended else {}
    transition.record(
        SearchExtended(
            at_ms=transition.at_ms, steps=steps, before=before, by=event.by, lifted=lifted
        )
    )
    without: Any = dict.fromkeys(lifted)
    transition.settings = replace(transition.settings, steps=steps, **without)
    # A limit may make the horizon shorter than planned; more steps do not change it then.
    if transition.horizon == planned or lifted:
        transition.horizon = transition.settings.planned_steps
    if has_ended:
        transition.status, transition.reason = "running", ""
    furthest = max((slot.step for slot in transition.slots), default=0)
    for slot in tuple(transition.slots):
        if slot.status == "done":
            _reopen(transition, slot, furthest)
    if transition.status == "running":
        decide_waiting(transition)


def _limits_in_the_way(transition: Transition) -> Mapping[str, Any]:
    """Limits that have been reached, or that leave no time for another trial."""
    reached, deadline_ms = dict(reached_limits(transition)), transition.deadline_ms
    settings = transition.settings
    if deadline_ms is not None and transition.at_ms + 1000 * transition.trial_s > deadline_ms:
        name = "deadline_ms" if deadline_ms == settings.deadline_ms else "max_ms"
        reached[name] = getattr(settings, name)
    return reached


def _reopen(transition: Transition, slot: Slot, furthest: int) -> None:
    """Let a slot that was done take part again.

    Args:
        transition: the population.
        slot: the slot.
        furthest: the latest step of any slot.
    """
    if slot.step not in slot.outcomes:
        _try_again(transition, slot)
        return
    # A slot that is this far behind was parked; it resumes when there are workers for it.
    lead = transition.settings.optimizer.max_lead
    parked = lead is not None and furthest - slot.step > lead
    transition.change_slot(
        slot, status="parked" if parked else "waiting", since_ms=transition.at_ms
    )


def _try_again(transition: Transition, slot: Slot) -> None:
    """Begin another attempt at a trial that was discarded at the end of the search.

    The previous attempt may still be in the queue, or with a worker that does not know of the end
    yet. It stays live, and the first report of the two counts.
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


# -- slots and constants --------------------------------------------------------------------------


def change(transition: Transition, event: Control) -> None:
    """Change the number of slots or the constants of the optimizer.

    Excess slots are parked, the worst first. Missing slots are forked from good ones while the
    search runs (source: this project).
    """
    before, given = transition.settings, _given(event)
    try:
        settings = _changed(transition, event)
    except (ExperimentError, OptimizerError) as error:
        transition.record(
            ControlIgnored(
                at_ms=transition.at_ms,
                action="change",
                status=transition.status,
                why=str(error),
                by=event.by,
                given=given,
            )
        )
        return
    former: dict[str, Any] = {}
    if event.population:
        former["population"] = before.n_slots
    if event.constants:
        former["constants"] = {name: getattr(before.optimizer, name) for name in event.constants}
    transition.record(SearchChanged(at_ms=transition.at_ms, by=event.by, before=former, **given))
    transition.settings = settings
    if transition.horizon == before.planned_steps:
        transition.horizon = settings.planned_steps
    staying = [s for s in transition.slots if s.active and not s.parking]
    excess = max(0, len(staying) - settings.n_slots)
    for slot in to_park(staying, excess):
        park(transition, slot)
    if transition.status == "running":
        add_missing_slots(transition)


def _changed(transition: Transition, event: Control) -> Settings:
    """The changed settings.

    Raises:
        ExperimentError, OptimizerError: the change is not possible.
    """
    before = transition.settings
    settings = with_changes(before, event.population, event.constants)
    if transition.slots and settings.n_slots > before.n_slots and front(transition) is None:
        raise ExperimentError(
            "population: no trial has ended yet from which a new slot could continue"
        )
    return settings


def add_missing_slots(transition: Transition) -> None:
    """Fork new slots until there are as many as an operator has requested."""
    while 0 < len(transition.slots) < transition.settings.n_slots:
        if not join(transition, len(transition.slots)):
            return


def _given(event: Control) -> dict[str, Any]:
    """The requested changes, by name."""
    given = {"population": event.population, "constants": event.constants}
    return {name: value for name, value in given.items() if value}


def with_changes(settings: Settings, population: int, constants: Mapping[str, Value]) -> Settings:
    """Settings with another number of slots and other constants of the optimizer.

    Args:
        settings: the current settings.
        population: new number of slots; 0 keeps the old one.
        constants: the constants to change, by name.

    Raises:
        ExperimentError: the number of slots is not allowed.
        OptimizerError: the optimizer has no such constant, or does not accept its value.
    """
    if not 4 <= (n_slots := population or settings.n_slots) <= MAX_SLOTS:  # noqa: PLR2004
        raise ExperimentError(f"population: {population} is not between 4 and {MAX_SLOTS}")
    if settings.max_trials is not None and n_slots > settings.max_trials:
        raise ExperimentError(
            f"population: {n_slots} slots are more than max_trials = {settings.max_trials}"
        )
    elasticity, optimizer = settings.elasticity, settings.optimizer
    grows = elasticity.max_slots > settings.n_slots
    elasticity = replace(
        elasticity,
        min_slots=min(elasticity.min_slots, n_slots),
        max_slots=max(elasticity.max_slots, n_slots) if grows else n_slots,
    )
    if constants:
        known: Any = optimizer
        now = {field.name: getattr(optimizer, field.name) for field in fields(known)}
        optimizer = configured(type(optimizer), {**now, **constants})
    return replace(settings, n_slots=n_slots, elasticity=elasticity, optimizer=optimizer)
