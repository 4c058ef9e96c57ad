"""The pure function that changes a population: `decide(population, event)`.

It knows nothing of queues, servers, clocks or the internals of workers: time comes with events, and
random numbers are derived from (seed, slot, step). The actor folds `decide` over the events that it
reads. The simulator and a replay do the same, and must arrive at the same result.

This module handles each kind of event. How a trial begins is in `dispatch`, how it ends in
`reports`, when slots are decided in `quorum`, which slots take part in `membership`, and an
operator's changes to the declaration in `amendments`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from romul_actors.core.amendments import add_missing_slots, change, change_bounds, extend
from romul_actors.core.dispatch import queue, retry
from romul_actors.core.elasticity import expected_steps
from romul_actors.core.events import (
    Control,
    Expired,
    Failed,
    Released,
    Result,
    Stamped,
    Submitted,
    Tick,
)
from romul_actors.core.history import (
    ControlIgnored,
    ReportStale,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    SearchStopped,
    SlotPinned,
    SlotUnpinned,
    WorkerDrained,
)
from romul_actors.core.limits import reached_limits, reason_of
from romul_actors.core.membership import follow, idle_workers
from romul_actors.core.population import Decision, Population, PopulationStatus
from romul_actors.core.quorum import decide_pool, decide_waiting
from romul_actors.core.reports import accept, fail, release
from romul_actors.core.rng import START, generator, training_seed
from romul_actors.core.slot import Slot
from romul_actors.core.transition import Transition

Report = Result | Failed | Released | Expired
"""An event about one attempt."""
QUORUM_WAIT = 5.0
"""Longest wait for a quorum, as a multiple of the time that the population needs for one step.

That time follows from the median trial and the numbers of slots and living workers."""


def decide(population: Population, stamped: Stamped) -> Decision:
    """Apply one event to the population.

    An event that does not fit (a result of an old attempt, a second `submitted`) changes nothing.
    So an event that the queue delivers late or twice is harmless.
    """
    return decide_all(population, (stamped,))


def decide_all(population: Population, events: Iterable[Stamped]) -> Decision:
    """Apply several events to the population, in order.

    The result is the same as calling `decide` for each, but the slots are copied only once.
    """
    transition = Transition(population)
    for stamped in events:
        match stamped.event:
            case Tick(workers=workers):
                if transition.status == "running":
                    _try_tick(transition, stamped.at_ms, workers)
            case event:
                transition.begin(stamped.at_ms)
                _fold(transition, event)
    return transition.decision()


def _try_tick(transition: Transition, at_ms: int, workers: int) -> None:
    """Apply a tick, and record it only if it changes something, which is rare."""
    before, n_lines = transition.freeze(), len(transition.history)
    transition.begin(at_ms)
    _tick(transition, workers)
    _after(transition)
    transition.end_tick(before, n_lines, workers)


def _fold(transition: Transition, event: Submitted | Control | Report) -> None:
    """Apply one event that is not a tick."""
    match event:
        case Submitted():
            _submitted(transition)
        case Control():
            _control(transition, event)
        case Result() | Failed() | Released() | Expired():
            _report(transition, event)
    _after(transition)


# -- submitted ------------------------------------------------------------------------------------


def _submitted(transition: Transition) -> None:
    """Start the search: create the first trial of every slot."""
    if transition.status != "submitted":
        return
    transition.status, transition.started_ms = "running", transition.at_ms
    transition.record(SearchStarted(at_ms=transition.at_ms))
    settings = transition.settings
    rng = generator(settings.seed, 0, 0, START)
    starts = settings.optimizer.start(settings.space, settings.n_slots, rng)
    for index, start in enumerate(starts):
        vector = start.vector
        if index < len(settings.initial):
            vector = settings.space.completed(settings.initial[index], vector)
        slot = Slot(
            index=index,
            tier=start.tier,
            vector=vector,
            since_ms=transition.at_ms,
            seed=training_seed(settings.seed, index, 0),
        )
        if index >= len(settings.inherited):
            queue(transition, slot, {"rule": "drawn"})
            continue
        first = settings.inherited[index]
        vector = settings.space.held(slot.vector, first.vector)
        slot = replace(slot, vector=vector, checkpoint=first.checkpoint)
        queue(transition, slot, {"rule": "inherited", "from": first.trial})


# -- control --------------------------------------------------------------------------------------


def _control(transition: Transition, event: Control) -> None:
    """Carry out an operator's request, if it fits the status of the search."""
    at_ms, by = transition.at_ms, event.by
    match event.action, transition.status:
        case "pause", "running":
            transition.record(SearchPaused(at_ms=at_ms, by=by))
            transition.status, transition.reason = "paused", f"paused by {by}" if by else "paused"
        case "resume", "paused" | "failed":
            transition.record(SearchResumed(at_ms=at_ms, by=by))
            _resume(transition)
        case "stop", status if status not in ("finished", "stopped"):
            transition.record(SearchStopped(at_ms=at_ms, by=by))
            _close(transition, "stopped", f"stopped by {by}" if by else "stopped")
        case "pin" | "unpin", _ if _can_be_pinned(transition, event.slot):
            _pin(transition, event, transition.slots[event.slot or 0])
        case "bounds", _:
            change_bounds(transition, event)
        case "extend", _:
            extend(transition, event)
        case "change", status if status not in ("finished", "stopped"):
            change(transition, event)
        case "drain", _:
            transition.record(WorkerDrained(at_ms=at_ms, worker=event.worker, by=by))
        case action, status:
            given = {"population": event.population or None, "constants": event.constants or None}
            given = {k: v for k, v in {**given, "slot": event.slot}.items() if v is not None}
            transition.record(
                ControlIgnored(at_ms=at_ms, action=action, status=status, by=by, given=given)
            )


def _can_be_pinned(transition: Transition, slot: int | None) -> bool:
    """Whether the slot exists and is not parked: a parked one may resume as a fork of another."""
    there = slot in range(len(transition.slots))
    return there and transition.slots[slot or 0].status != "parked"


def _pin(transition: Transition, event: Control, slot: Slot) -> None:
    """Pin or unpin a slot."""
    kind = SlotPinned if event.action == "pin" else SlotUnpinned
    transition.record(kind(at_ms=transition.at_ms, slot=slot.index, by=event.by))
    # Pinning cancels a planned parking.
    pinned = event.action == "pin"
    transition.change_slot(slot, pinned=pinned, parking=slot.parking and not pinned)


def _resume(transition: Transition) -> None:
    """Resume after a pause or a failed step."""
    if transition.status == "failed":
        _retry_failed(transition)
    transition.status, transition.reason = "running", ""
    decide_waiting(transition)
    add_missing_slots(transition)


def _retry_failed(transition: Transition) -> None:
    """Retry the failed trials of all slots' current steps, with a new count of attempts.

    Parked slots are skipped: they may resume as forks of other slots.
    """
    for slot in tuple(transition.slots):
        outcome = slot.outcomes.get(slot.step)
        if slot.status in ("queued", "parked") or outcome is None or not outcome.failed:
            continue
        outcomes = {step: o for step, o in slot.outcomes.items() if step != slot.step}
        transition.count(failed=-1)
        retry(transition, replace(slot, outcomes=outcomes, failures=0, lost_attempts=0))


# -- tick -----------------------------------------------------------------------------------------


def _tick(transition: Transition, workers: int) -> None:
    """Apply the passing of time: end waits, and adapt the population to the workers."""
    trial_s, deadline_ms = transition.trial_s, transition.deadline_ms
    if deadline_ms is not None:
        left_s, planned = (deadline_ms - transition.at_ms) / 1000, transition.settings.planned_steps
        transition.horizon = expected_steps(transition.slots, workers, left_s, planned)
    if workers < 1 or not trial_s:
        transition.idle_since_ms = transition.crowded_since_ms = None
        return
    _end_waits(transition, workers)
    follow(transition, workers, 1000 * trial_s)


def _end_waits(transition: Transition, workers: int) -> None:
    """Decide slots that have waited long enough, or that hold up idle workers."""
    settings = transition.settings
    # Called at every tick, hence without `Slot.active`.
    active = [s for s in transition.slots if s.status == "queued" or s.status == "waiting"]  # noqa: PLR1714
    rounds = math.ceil(len(active) / workers)
    limit_s = max(settings.quorum_wait_min_s, QUORUM_WAIT * transition.trial_s * rounds)
    idle = idle_workers(transition, workers) > 0
    looked_at = set()
    for slot in tuple(transition.slots):
        if slot.status != "waiting":
            continue
        late = transition.at_ms - slot.since_ms > 1000 * limit_s
        # Slots that wait together are decided together: one of them is enough.
        if late or (idle and (slot.tier, slot.step) not in looked_at):
            looked_at.add((slot.tier, slot.step))
            decide_pool(transition, slot, late=late, idle=idle)


# -- reports --------------------------------------------------------------------------------------


def _report(transition: Transition, event: Report) -> None:
    """Handle the report of an attempt; a stale report is only counted and recorded."""
    if transition.status == "stopped" or not _counts(transition.slots, event):
        transition.count_cause("stale")
        transition.record(
            ReportStale(
                at_ms=transition.at_ms,
                trial=event.trial,
                attempt=event.attempt,
                worker=event.worker,
            )
        )
        return
    slot = transition.slots[event.slot]
    match event:
        case Result(value=value) if not math.isfinite(value):
            fail(transition, slot, event, "not_finite", f"the metric is {value}")
        case Result():
            accept(transition, slot, event)
        case Failed():
            fail(transition, slot, event, event.reason, event.message)
        case Expired():
            message = "the lease ended without a word from the worker"
            fail(transition, slot, event, "lost", message)
        case Released():
            release(transition, slot, event)


def _counts(slots: Sequence[Slot], event: Report) -> bool:
    """Whether a report is about a live attempt, by its fencing token."""
    if not 0 <= event.slot < len(slots):
        return False
    slot = slots[event.slot]
    return (
        slot.status == "queued"
        and slot.trial == event.trial
        and event.attempt in slot.live_attempts
    )


# -- after any event ------------------------------------------------------------------------------


def _after(transition: Transition) -> None:
    """Do what can become necessary after any event."""
    if transition.status == "running" and transition.slots:
        _decide_slots_held_back(transition)
        _finish_if_over(transition)


def _decide_slots_held_back(transition: Transition) -> None:
    """Decide slots that were too far ahead of the last one, once that one has advanced."""
    before = transition.oldest_before
    while transition.oldest is not None and (before is None or transition.oldest[0] != before[0]):
        before = transition.oldest
        decide_waiting(transition)


def _finish_if_over(transition: Transition) -> None:
    """End the search when no slot is active any more, or a limit has been reached."""
    reached = reached_limits(transition)
    # After `max_trials`, trials that have begun still end.
    if transition.oldest is not None and not reached.keys() - {"max_trials"}:
        return
    early = any(slot.step + 1 < transition.settings.steps for slot in transition.slots)
    reason = reason_of(transition, reached) if early else ""
    _close(transition, "finished", reason)
    transition.record(SearchFinished(at_ms=transition.at_ms, reason=reason))


def _close(transition: Transition, status: PopulationStatus, reason: str) -> None:
    """End the search: discard queued trials, and keep only the last outcome of each slot.

    A slot whose trial is discarded keeps its parent, so that `amendments.extend` can retry it.
    """
    transition.status, transition.reason = status, reason
    transition.count(discarded=sum(slot.status == "queued" for slot in transition.slots))
    transition.put_slots(
        replace(
            slot,
            status="done",
            live_attempts=(),
            partial=None,
            since_ms=transition.at_ms,
            # Enough to extend the search later: the last checkpoint of each slot is kept.
            outcomes={k: slot.outcomes[k] for k in sorted(slot.outcomes)[-1:]},
        )
        for slot in transition.slots
    )
