"""Determines when the waiting slots of a pool are decided: at a quorum, or after a limited wait.

The optimizer defines pools, quorum and grace, and makes the decisions; this module only determines
their time.
"""

from collections.abc import Mapping, Sequence

from romul_actors.core.dispatch import advance
from romul_actors.core.optimizers.base import Move, View
from romul_actors.core.rng import DECISION, generator
from romul_actors.core.slot import Outcome, Slot
from romul_actors.core.transition import Transition, progress_of
from romul_actors.errors import OptimizerError


def decide_waiting(transition: Transition) -> None:
    """Decide all waiting slots that need not wait any longer."""
    for slot in tuple(transition.slots):
        if transition.slots[slot.index].status == "waiting":
            decide_pool(transition, transition.slots[slot.index])


def decide_after(transition: Transition, slot: Slot) -> None:
    """Decide the pool of a slot that has a new outcome, and other pools whose quorum is now met.

    Even if the slot is decided alone, its outcome counts for the quorum of slots that wait for
    others at the same step.
    """
    decide_pool(transition, slot)
    optimizer, step = transition.settings.optimizer, slot.step
    lead, oldest = optimizer.max_lead, transition.oldest
    if lead is None or oldest is None or step + 1 - oldest[0] > lead:
        return
    if len(optimizer.pool(transition.slots, slot, transition.horizon)) > 1:
        return
    progress = transition.progress(step)
    # A cheap test first: thousands of slots may end the same step, each with a scan of all slots.
    if progress.waiting and progress.known >= optimizer.quorum(progress.known + progress.missing):
        for other in tuple(transition.slots):
            if other.status == "waiting" and other.step == step:
                decide_pool(transition, other)


def decide_pool(
    transition: Transition, slot: Slot, *, late: bool = False, idle: bool = False
) -> None:
    """Decide all slots that wait together with `slot`, if they need not wait any longer.

    Args:
        transition: the population.
        slot: one of the waiting slots.
        late: whether the longest wait for a quorum is over.
        idle: whether there are workers without a trial.
    """
    optimizer, step, slots = transition.settings.optimizer, slot.step, transition.slots
    waits = slots[slot.index].status in ("waiting", "parked")
    if not waits or slots[slot.index].step != step:
        return
    oldest = step if transition.oldest is None else transition.oldest[0]
    lead = optimizer.max_lead
    if lead is not None and not late and step + 1 - oldest > lead:
        return
    # Called at every result, mostly in vain: for a pool of all slots, the counts are cached.
    places = optimizer.pool(slots, slot, transition.horizon)
    whole = places == range(len(slots))
    progress = transition.progress(step) if whole else progress_of((slots[i] for i in places), step)
    n_pool = progress.known + progress.missing
    # A quorum above the size of the pool would never be met.
    quorum = min(n_pool, optimizer.quorum(n_pool))
    # If all known outcomes are failures, wait for the missing ones.
    hopeless = progress.missing > 0 and not progress.sound
    if not progress.waiting or (not late and (hopeless or progress.known < quorum)):
        return
    # A slot that arrives after its pool was decided does not wait.
    graced = not (late or progress.decided) and optimizer.grace > 0 and progress.missing > 0
    if graced and not idle:
        return
    pool = [i for i in places if slots[i].can_report(step)]
    known = {i: slots[i].outcomes[step] for i in pool if step in slots[i].outcomes}
    due = [i for i in known if slots[i].status == "waiting" and slots[i].step == step]
    if graced and not _grace_is_over(transition, due, quorum):
        return
    view = view_of(transition, step, pool, known, DECISION)
    # The method of a plugin may be a generator.
    moves = list(optimizer.decide(view, due))
    _check(moves, view, due, optimizer.name)
    for move in moves:
        advance(transition, view, move, oldest)


def _check(moves: Sequence[Move], view: View, due: Sequence[int], name: str) -> None:
    """Check that moves can be carried out; the optimizer may be a plugin.

    In particular, a slot without a move would wait forever.

    Raises:
        OptimizerError: a move is missing or invalid; the message names the optimizer.
    """
    if [move.slot for move in moves] != due:
        slots = [move.slot for move in moves]
        raise OptimizerError(
            f"optimizer {name!r}: returned moves for slots {slots} instead of {due}"
        )
    for move in moves:
        if not (move.source is None or move.source in view.known):
            raise OptimizerError(
                f"optimizer {name!r}: slot {move.slot} would continue from {move.source!r}, which "
                f"has no known result of step {view.step}"
            )
        if not (isinstance(move.vector, tuple) and len(move.vector) == len(view.space)):
            raise OptimizerError(
                f"optimizer {name!r}: slot {move.slot}: the vector {move.vector!r} is not a tuple "
                f"of {len(view.space)} numbers"
            )
        if not all(0.0 <= place <= 1.0 for place in move.vector):
            raise OptimizerError(
                f"optimizer {name!r}: slot {move.slot}: {move.vector!r} is not within [0, 1]"
            )


def _grace_is_over(transition: Transition, due: Sequence[int], quorum: int) -> bool:
    """Whether a quorum of slots has been waiting for at least the optimizer's grace."""
    since_ms = sorted(transition.slots[i].since_ms for i in due)[:quorum]
    grace_ms = 1000 * transition.settings.optimizer.grace * transition.trial_s
    return bool(since_ms) and transition.at_ms - since_ms[-1] >= grace_ms


def view_of(
    transition: Transition,
    step: int,
    pool: list[int],
    known: Mapping[int, Outcome],
    purpose: int,
) -> View:
    """The view that an optimizer bases a decision on.

    Args:
        transition: the population.
        step: the step that is judged.
        pool: indices of the slots that are compared with each other.
        known: their outcomes at that step, by slot index.
        purpose: purpose of the random numbers; one of the constants in `rng`.
    """
    seed = transition.settings.seed
    return View(
        space=transition.settings.space,
        slots=tuple(transition.slots),
        pool=pool,
        step=step,
        steps=transition.horizon,
        known=known,
        rng=lambda i: generator(seed, i, step, purpose),
    )


def every_slot_failed(transition: Transition, step: int) -> bool:
    """Whether every trial of `step` has failed, and no slot is beyond that step."""
    progress = transition.progress(step)
    alive = progress.missing or progress.sound
    # The outcomes of slots that are ahead may have been dropped already.
    ahead = (slot for slot in transition.slots if slot.step > step and slot.status != "parked")
    return not alive and next(ahead, None) is None
