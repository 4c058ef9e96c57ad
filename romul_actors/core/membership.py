"""Which slots take part: parks, resumes and adds slots as the number of workers changes.

`elasticity.py` contains the policy; this module carries it out.
"""

from dataclasses import replace

from romul_actors.core.dispatch import queue, start_second_attempt
from romul_actors.core.elasticity import overdue, to_park
from romul_actors.core.history import SlotParked, SlotResumed
from romul_actors.core.quorum import decide_pool, view_of
from romul_actors.core.rng import JOINING, training_seed
from romul_actors.core.slot import Slot
from romul_actors.core.transition import Transition


def follow(transition: Transition, workers: int, patience_ms: float) -> None:
    """Adapt the population to the workers: park, resume and add slots, and start second copies.

    Args:
        transition: the population.
        workers: number of living workers.
        patience_ms: how long there must be too many slots, or idle workers, before anything
            changes.
    """
    settings, elasticity = transition.settings, transition.settings.elasticity
    staying = [s for s in transition.slots if s.active and not s.parking]
    room = elasticity.bound(workers, settings.n_slots) - len(staying)
    transition.crowded_since_ms = _since(transition, transition.crowded_since_ms, holds=room < 0)
    if _lasts(transition, transition.crowded_since_ms, patience_ms):
        for slot in to_park(staying, -room):
            park(transition, slot)
    apart = [s for s in transition.slots if s.status == "parked" or s.parking]
    apart.sort(key=lambda s: (not s.parking, s.outcomes[max(s.outcomes)].loss))
    for slot in apart[: max(0, room)]:
        room -= unpark(transition, slot)
    idle = idle_workers(transition, workers)
    transition.idle_since_ms = _since(transition, transition.idle_since_ms, holds=idle > 0)
    if not _lasts(transition, transition.idle_since_ms, patience_ms):
        return
    if elasticity.second_copy > 0:
        limit_ms = elasticity.second_copy * patience_ms
        for slot in overdue(transition.slots, transition.at_ms, limit_ms)[:idle]:
            start_second_attempt(transition, slot)
            idle -= 1
    # Slots that are done count too, or there could be more than `max_slots`.
    room -= sum(slot.status == "done" for slot in transition.slots)
    for _ in range(min(idle, room)):
        if not join(transition, len(transition.slots)):
            break


def idle_workers(transition: Transition, workers: int) -> int:
    """Number of workers without a trial; if negative, the number of attempts without a worker."""
    queued = [len(s.live_attempts) for s in transition.slots if s.status == "queued"]
    return workers - sum(queued)


def _since(transition: Transition, since_ms: int | None, *, holds: bool) -> int | None:
    """The time since which a condition has held; None if it does not hold now."""
    if not holds:
        return None
    return transition.at_ms if since_ms is None else since_ms


def _lasts(transition: Transition, since_ms: int | None, patience_ms: float) -> bool:
    """Whether a condition has held for at least `patience_ms`."""
    return since_ms is not None and transition.at_ms - since_ms >= patience_ms


def park(transition: Transition, slot: Slot) -> None:
    """Park a slot: at once if it is waiting, else when its trial has ended."""
    transition.record(SlotParked(at_ms=transition.at_ms, slot=slot.index, step=slot.step))
    if slot.status == "waiting":
        transition.change_slot(slot, status="parked", since_ms=transition.at_ms)
    else:
        transition.change_slot(slot, parking=True)


def unpark(transition: Transition, slot: Slot) -> bool:
    """Resume a parked slot: from its own checkpoint if it is ahead of the others, else as a fork.

    Returns:
        Whether the slot takes part again.
    """
    if slot.active:
        transition.change_slot(slot, parking=False)
    elif (step := front(transition)) is None or slot.step > step:
        slot = transition.change_slot(slot, status="waiting", since_ms=transition.at_ms)
        decide_pool(transition, slot)
    else:
        return join(transition, slot.index)
    transition.record(SlotResumed(at_ms=transition.at_ms, slot=slot.index, step=slot.step))
    return True


def front(transition: Transition) -> int | None:
    """The step that half of the slots have ended, not counting parked ones."""
    latest = sorted(
        max(slot.outcomes) for slot in transition.slots if slot.status != "parked" and slot.outcomes
    )
    return latest[len(latest) // 2] if latest else None


def join(transition: Transition, index: int) -> bool:
    """Begin a trial in slot `index`, forked from a good slot at the front.

    Args:
        transition: the population.
        index: index of a parked slot, or the next free index.

    Returns:
        False if there is no slot to fork, or no step left.
    """
    settings, step = transition.settings, front(transition)
    if step is None or step + 1 >= settings.steps or not transition.may_begin:
        return False
    pool = [slot.index for slot in transition.slots if step in slot.outcomes]
    known = {i: transition.slots[i].outcomes[step] for i in pool}
    if all(outcome.failed for outcome in known.values()):
        return False
    view = view_of(transition, step, pool, known, JOINING)
    tier, move = settings.optimizer.join(view, index)
    parked = transition.slots[index] if index < len(transition.slots) else None
    if parked is None:
        transition.put_slot(Slot(index=index, vector=move.vector, status="done"))
    slot = Slot(
        index=index,
        tier=tier,
        vector=move.vector,
        memory=move.memory,
        outcomes=parked.outcomes if parked is not None else {},
        seconds=parked.seconds if parked is not None else 0.0,
    )
    if move.source is not None:
        source = known[move.source]
        slot = replace(
            slot,
            step=step + 1,
            joined=step + 1,
            vector=settings.space.held(move.vector, source.vector),
            parent=f"{move.source}-{step}",
            checkpoint=source.checkpoint,
        )
    elif parked is not None:
        # It starts from scratch, at a step number that was never used.
        slot = replace(slot, step=parked.step + 1, joined=parked.step + 1)
    seed = training_seed(settings.seed, index, slot.step)
    queue(transition, replace(slot, since_ms=transition.at_ms, seed=seed), move.why)
    return True
