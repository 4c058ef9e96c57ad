"""How trials begin: the next trial of a slot, a retry, and a second copy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from romul_actors.core.events import TrialMessage
from romul_actors.core.history import SecondCopyStarted, TrialCreated
from romul_actors.core.optimizers.base import Move, View
from romul_actors.core.rng import training_seed
from romul_actors.core.slot import Slot
from romul_actors.core.transition import Transition


def advance(transition: Transition, view: View, move: Move, oldest: int) -> None:
    """Carry out an optimizer's move: the slot begins its next step.

    Args:
        transition: the population.
        view: the view that the move was decided on.
        move: the decision for one slot.
        oldest: step before which outcomes are dropped, as no slot is compared there any more.
    """
    slot = view.slots[move.slot]
    outcomes = {step: known for step, known in slot.outcomes.items() if step >= oldest}
    if not transition.may_begin:
        transition.change_slot(slot, status="done", outcomes=outcomes, since_ms=transition.at_ms)
        return
    if slot.pinned and not view.known[slot.index].failed:
        own = view.known[slot.index].vector
        move = Move(slot.index, slot.index, own, slot.memory, {"rule": "pinned"})
    parent, checkpoint, inherited = slot.parent, slot.checkpoint, slot.vector
    if move.fresh:
        parent, checkpoint, inherited = None, None, move.vector
    elif move.source is not None:
        source = view.known[move.source]
        parent, checkpoint = f"{move.source}-{view.step}", source.checkpoint
        inherited = source.vector
    following = Slot(
        index=slot.index,
        tier=slot.tier if move.tier is None else move.tier,
        step=slot.step + 1,
        vector=transition.settings.space.held(move.vector, inherited),
        parent=parent,
        checkpoint=checkpoint,
        joined=slot.joined,
        pinned=slot.pinned,
        memory=move.memory,
        outcomes=outcomes,
        seconds=slot.seconds,
        since_ms=transition.at_ms,
        seed=training_seed(transition.settings.seed, slot.index, slot.step + 1),
    )
    queue(transition, following, move.why)


def queue(transition: Transition, slot: Slot, why: Mapping[str, Any]) -> None:
    """Begin a new trial of a slot.

    Args:
        transition: the population.
        slot: the slot, with its seed and time set.
        why: the optimizer's reasons, for the history.
    """
    transition.count(created=1)
    trial = dispatch(transition, slot)
    transition.record(
        TrialCreated(
            at_ms=transition.at_ms,
            trial=trial.id,
            slot=slot.index,
            step=slot.step,
            parent=slot.parent,
            hyperparameters=trial.hyperparameters,
            vector=slot.vector,
            seed=slot.seed,
            why=why,
        )
    )


def retry(transition: Transition, slot: Slot) -> None:
    """Begin another attempt at a trial, with the same hyperparameters, parent and seed."""
    transition.count(retried=1)
    attempt = slot.attempt + 1
    following = replace(
        slot,
        status="queued",
        attempt=attempt,
        live_attempts=(attempt,),
        since_ms=transition.at_ms,
    )
    dispatch(transition, following)


def start_second_attempt(transition: Transition, slot: Slot) -> None:
    """Begin a second copy of a trial that takes too long; the first result counts."""
    transition.count(retried=1)
    attempt = slot.attempt + 1
    transition.record(
        SecondCopyStarted(
            at_ms=transition.at_ms, trial=slot.trial, attempt=attempt, slot=slot.index
        )
    )
    live_attempts = (*slot.live_attempts, attempt)
    dispatch(transition, replace(slot, attempt=attempt, live_attempts=live_attempts))


def dispatch(transition: Transition, slot: Slot) -> TrialMessage:
    """Store a slot, and create the message with its attempt for a worker."""
    settings = transition.settings
    transition.put_slot(slot)
    start = slot.step * settings.budget if slot.partial is None else slot.position
    trial = TrialMessage(
        id=slot.trial,
        slot=slot.index,
        step=slot.step,
        attempt=slot.attempt,
        hyperparameters=transition.hyperparameters(slot),
        parent=slot.partial or slot.checkpoint,
        start=start,
        stop=(slot.step + 1) * settings.budget,
        seed=slot.seed,
        resumed=slot.partial is not None,
    )
    transition.trials.append(trial)
    return trial
