"""How attempts end: with a result, with a failure, or released by the worker.

A result, or a failure that is not retried, ends the trial: the slot keeps the outcome, and its pool
may be decided. Any other end leads to another attempt, unless one is still running.
"""

from dataclasses import replace

from romul_actors.core.dispatch import retry
from romul_actors.core.events import Expired, Failed, Released, Result
from romul_actors.core.history import SearchFailed, TrialFailed, TrialReleased, TrialReported
from romul_actors.core.population import Best
from romul_actors.core.quorum import decide_after, every_slot_failed
from romul_actors.core.slot import Outcome, Slot, failed
from romul_actors.core.transition import Transition


def accept(transition: Transition, slot: Slot, event: Result) -> None:
    """End a trial with its result."""
    loss = -event.value if transition.settings.maximize else event.value
    outcome = Outcome(loss, slot.vector, event.checkpoint)
    if transition.best is None or loss < transition.best.loss:
        trained = transition.hyperparameters(slot)
        transition.best = Best(
            slot.trial, loss, trained, event.checkpoint, event.metrics, slot.vector
        )
    transition.count(reported=1)
    transition.record(
        TrialReported(
            at_ms=transition.at_ms,
            trial=event.trial,
            attempt=event.attempt,
            worker=event.worker,
            slot=slot.index,
            step=slot.step,
            value=event.value,
            checkpoint=event.checkpoint,
            seconds=event.seconds,
            metrics=event.metrics,
            in_effect=event.in_effect,
            left_out=event.left_out,
            provenance=event.provenance,
        )
    )
    end(transition, slot, outcome, seconds=event.seconds)


def fail(
    transition: Transition,
    slot: Slot,
    event: Result | Failed | Expired,
    reason: str,
    message: str,
) -> None:
    """Handle a failed attempt: retry the trial, or give it up.

    Args:
        transition: the population.
        slot: the slot of the trial.
        event: the report about the attempt.
        reason: one of `events.FailureReason`, or "lost" if the worker was lost.
        message: the reason in words.
    """
    settings = transition.settings
    transition.count_cause(reason)
    # If a partial checkpoint cannot be read, the trial restarts; this does not count as a failure.
    spared = reason == "lost_parent" and slot.partial is not None
    slot = replace(
        slot,
        lost_attempts=slot.lost_attempts + (reason == "lost"),
        failures=slot.failures + (reason != "lost" and not spared),
        partial=None if spared else slot.partial,
    )
    exhausted = (
        slot.failures >= settings.max_attempts or slot.lost_attempts >= settings.max_lost_attempts
    )
    # A loss that is not finite is caused by the hyperparameters: a retry would give the same.
    again = reason != "not_finite" and (len(slot.live_attempts) > 1 or not exhausted)
    transition.record(
        TrialFailed(
            at_ms=transition.at_ms,
            trial=event.trial,
            attempt=event.attempt,
            worker=event.worker,
            slot=slot.index,
            step=slot.step,
            reason=reason,
            message=message,
            again=again,
            seconds=event.seconds if isinstance(event, Failed) else 0.0,
        )
    )
    if again:
        give_back(transition, slot, event.attempt)
    else:
        transition.count(failed=1)
        end(transition, slot, failed(slot.vector), f"{reason}: {message}")


def release(transition: Transition, slot: Slot, event: Released) -> None:
    """Retry a trial that a worker released, from its partial checkpoint if there is one."""
    transition.count_cause(event.reason)
    budget = transition.settings.budget
    start = slot.position if slot.partial else slot.step * budget
    stop = (slot.step + 1) * budget
    kept = None
    if event.checkpoint is not None and event.at is not None and start < event.at < stop:
        kept = event.checkpoint
        slot = replace(slot, partial=kept, position=event.at)
    transition.record(
        TrialReleased(
            at_ms=transition.at_ms,
            trial=event.trial,
            attempt=event.attempt,
            worker=event.worker,
            reason=event.reason,
            message=event.message,
            checkpoint=kept,
            seconds=event.seconds,
            at=event.at,
        )
    )
    give_back(transition, slot, event.attempt)


def give_back(transition: Transition, slot: Slot, attempt: int) -> None:
    """End an attempt; begin another one, unless one is still running."""
    others = tuple(other for other in slot.live_attempts if other != attempt)
    if others:
        transition.change_slot(slot, live_attempts=others)
    else:
        retry(transition, slot)


def end(
    transition: Transition,
    slot: Slot,
    outcome: Outcome,
    fault: str = "",
    seconds: float | None = None,
) -> None:
    """End a trial with its outcome. The slot's next trial begins when its pool is decided.

    Args:
        transition: the population.
        slot: the slot of the trial.
        outcome: the outcome, which the slot keeps.
        fault: why the trial failed, in words.
        seconds: duration of the trial. None keeps the duration of the slot's previous trial.
    """
    last = slot.step + 1 >= transition.settings.steps
    parks = slot.parking and not last
    slot = transition.change_slot(
        slot,
        status="done" if last else "parked" if parks else "waiting",
        live_attempts=(),
        partial=None,
        parking=False,
        outcomes={**slot.outcomes, slot.step: outcome},
        since_ms=transition.at_ms,
        seconds=slot.seconds if seconds is None else seconds,
    )
    if outcome.failed and every_slot_failed(transition, slot.step):
        transition.status = "failed"
        transition.reason = f"every trial of step {slot.step} failed; the last one: {fault}"
        transition.record(SearchFailed(at_ms=transition.at_ms, reason=transition.reason))
    elif transition.status == "running":
        decide_after(transition, slot)
