"""One event being folded into a population: the moves from which every decision is made.

How a trial begins and ends, and when slots are decided; which event asks for what stands in
`population.py`. Pure: no I/O, no clock, no randomness but from (seed, slot, step).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.random.bit_generator import ISeedSequence

from romul_actors.core.elasticity import median_trial_s
from romul_actors.core.events import Result, Trial
from romul_actors.core.optimizers.base import Move, View
from romul_actors.core.population import Best, Counts, Decision, Population, PopulationStatus
from romul_actors.core.slot import Outcome, Slot, failed

# What a generator is for: no two decisions share random numbers.
START, DECISION, JOINING = 0, 1, 2


class _Key(ISeedSequence):
    """A seed as Philox's key of 128 bits, as it is.

    Philox's own `key` argument would do the same, and read the system's randomness in vain.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.array([seed % 2**64, seed >> 64], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        del n_words, dtype
        return self._words


_key = lru_cache(maxsize=256)(_Key)


def generator(seed: int, slot: int, step: int, purpose: int) -> Generator:
    """Generator of one decision: a counter-based stream of its own (Philox: Salmon et al. 2011)."""
    # numpy takes any ISeedSequence; its annotations know only its own.
    key: Any = _key(seed)
    return Generator(Philox(key, counter=[0, slot, step, purpose]))


def training_seed(seed: int, slot: int, step: int) -> int:
    """Seed of a trial's own randomness: 31 bits, the same for every attempt."""
    digest = blake2b(f"{seed}/{slot}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


def oldest(slots: Sequence[Slot]) -> tuple[int, int] | None:
    """Step of the active slots that are farthest behind, and their number; None: none is active."""
    # Asked often, hence without `Slot.active`.
    steps = [s.step for s in slots if s.status == "queued" or s.status == "waiting"]  # noqa: PLR1714
    step = min(steps, default=None)
    return None if step is None else (step, steps.count(step))


class Turn:
    """Collects changes on the way from one population to the next.

    Args:
        population: as it was.
        at_ms: when the event arrived, in milliseconds since the epoch.
    """

    def __init__(self, population: Population, at_ms: int) -> None:
        self.settings = population.settings
        self.before = population
        self.at_ms = at_ms
        self.status = population.status
        self.reason = population.reason
        self.slots = list(population.slots)
        self.best = population.best
        self.counts = population.counts
        self.causes = population.causes
        self.idle_since_ms = population.idle_since_ms
        self.crowded_since_ms = population.crowded_since_ms
        self.horizon = population.horizon or self.settings.steps
        self.last = population.oldest or oldest(population.slots)
        self.last_before = self.last
        self.ticked: int | None = None
        self._trial_s: float | None = None
        self.trials: list[Trial] = []
        self.history: list[Mapping[str, Any]] = []

    def decision(self) -> Decision:
        """What the event leads to."""
        population = Population(
            settings=self.settings,
            status=self.status,
            reason=self.reason,
            slots=tuple(self.slots),
            best=self.best,
            counts=self.counts,
            causes=self.causes,
            idle_since_ms=self.idle_since_ms,
            crowded_since_ms=self.crowded_since_ms,
            horizon=self.horizon,
            oldest=self.last,
        )
        if self.ticked is not None:
            # Most ticks change nothing; those that do are a part of what led to the rest.
            if population == self.before:
                return Decision(self.before)
            told = {"event": "tick", "at_ms": self.at_ms, "workers": self.ticked}
            self.history.insert(0, told)
        return Decision(population, tuple(self.trials), tuple(self.history))

    @property
    def trial_s(self) -> float:
        """Median duration of the slots' latest trials, in seconds; 0 before the first."""
        if self._trial_s is None:
            self._trial_s = median_trial_s(self.slots)
        return self._trial_s

    def note(self, event: str, **values: Any) -> None:
        """Tell people what happened, and a replay: `at_ms` is the event's own time."""
        self.history.append({"event": event, "at_ms": self.at_ms, **values})

    def count(
        self,
        *,
        created: int = 0,
        reported: int = 0,
        failed: int = 0,
        discarded: int = 0,
        retried: int = 0,
    ) -> None:
        """Change the trials' counts by so many."""
        before = self.counts
        self.counts = Counts(
            before.created + created,
            before.reported + reported,
            before.failed + failed,
            before.discarded + discarded,
            before.retried + retried,
        )

    def blame(self, cause: str) -> None:
        """Count an attempt that ended otherwise than well."""
        self.causes = {**self.causes, cause: self.causes.get(cause, 0) + 1}

    def change(self, slot: Slot, **changes: Any) -> Slot:
        """Put a slot's changed form in its place."""
        return self.put(replace(slot, **changes))

    def put(self, slot: Slot) -> Slot:
        """Put a slot into its place, or a new one into the next."""
        if slot.index == len(self.slots):
            self.slots.append(slot)
        else:
            self._lose(self.slots[slot.index])
            self.slots[slot.index] = slot
        if slot.active and self.last is not None:
            step, n = self.last
            if slot.step <= step:
                self.last = (slot.step, 1 if slot.step < step else n + 1)
        if self.last is None or not self.last[1]:
            self.last = oldest(self.slots)
        return slot

    def _lose(self, slot: Slot) -> None:
        if self.last is not None and slot.active and slot.step == self.last[0]:
            self.last = (slot.step, self.last[1] - 1)

    # -- how a trial ends -----------------------------------------------------------------------

    def accept(self, slot: Slot, event: Result, token: Mapping[str, Any]) -> None:
        """Take a trial's result."""
        loss = -event.value if self.settings.maximize else event.value
        outcome = Outcome(loss, slot.vector, event.checkpoint)
        if self.best is None or loss < self.best.loss:
            self.best = Best(slot.trial, loss, slot.vector, event.checkpoint, event.metrics)
        self.count(reported=1)
        told: dict[str, dict[str, Any]] = {
            "metrics": dict(event.metrics),
            "in_effect": dict(event.in_effect),
            "left_out": dict(event.left_out),
        }
        self.note(
            "result",
            **token,
            slot=slot.index,
            step=slot.step,
            value=event.value,
            checkpoint=event.checkpoint,
            seconds=event.seconds,
            **{name: values for name, values in told.items() if values},
        )
        self._trial_s = None
        self.end(slot, outcome, seconds=event.seconds)

    def fail(
        self, slot: Slot, token: Mapping[str, Any], reason: str, message: str, seconds: float = 0.0
    ) -> None:
        """Take the failure of one attempt: once more, or given up."""
        self.blame(reason)
        # A partial checkpoint that cannot be read costs what it held, not an attempt.
        spared = reason == "lost_parent" and slot.partial is not None
        slot = replace(
            slot,
            losses=slot.losses + (reason == "lost"),
            failures=slot.failures + (reason != "lost" and not spared),
            partial=None if spared else slot.partial,
        )
        tried = (
            slot.failures >= self.settings.max_attempts or slot.losses >= self.settings.max_losses
        )
        # A loss that is not finite would be so again: the fault lies in the hyperparameters.
        again = reason != "not_finite" and (len(slot.live) > 1 or not tried)
        self.note(
            "failed",
            **token,
            slot=slot.index,
            step=slot.step,
            reason=reason,
            message=message,
            again=again,
            **({"seconds": seconds} if seconds else {}),
        )
        if not again:
            self.count(failed=1)
            self.end(slot, failed(slot.vector), f"{reason}: {message}")
        else:
            self.give_back(slot, token["attempt"])

    def give_back(self, slot: Slot, attempt: int) -> None:
        """Hear no more of an attempt; hand the trial out again, unless a copy of it still runs."""
        others = tuple(other for other in slot.live if other != attempt)
        if others:
            self.change(slot, live=others)
        else:
            self.again(slot)

    def end(
        self, slot: Slot, outcome: Outcome, fault: str = "", seconds: float | None = None
    ) -> None:
        """Keep the outcome; the next trial follows when the quorum is there."""
        last = slot.step + 1 >= self.settings.steps
        parks = slot.parking and not last
        slot = self.change(
            slot,
            status="done" if last else "parked" if parks else "waiting",
            live=(),
            partial=None,
            parking=False,
            outcomes={**slot.outcomes, slot.step: outcome},
            since_ms=self.at_ms,
            seconds=slot.seconds if seconds is None else seconds,
        )
        if outcome.failed and self.nobody_is_left(slot.step):
            self.status = "failed"
            self.reason = f"every trial of step {slot.step} failed; the last one: {fault}"
            self.note("gave up", reason=self.reason)
        elif self.status == "running":
            self.settle(slot)

    def nobody_is_left(self, step: int) -> bool:
        """Whether all that may have come to `step` failed there."""
        judged = [peer for peer in self.slots if peer.can_report(step)]
        return all(step in peer.outcomes and peer.outcomes[step].failed for peer in judged)

    # -- when slots are decided -----------------------------------------------------------------

    def settle_all(self) -> None:
        """Decide whoever waits and need not wait."""
        for slot in tuple(self.slots):
            if self.slots[slot.index].status == "waiting":
                self.settle(self.slots[slot.index])

    def settle(self, slot: Slot, *, late: bool = False, idle: bool = False) -> None:
        """Decide all that wait with `slot`, if their peers are known or no longer waited for.

        Args:
            slot: one of those that wait.
            late: the quorum has been waited for long enough.
            idle: there are workers without a trial.
        """
        settings, step, slots = self.settings, slot.step, self.slots
        waits = slots[slot.index].status in ("waiting", "parked")
        if not waits or slots[slot.index].step != step:
            return
        optimizer = settings.optimizer
        peers = optimizer.pool(slots, slot, self.horizon)
        # Asked at every result, and mostly in vain: one look at each, without `can_report`.
        known: dict[int, Outcome] = {}
        pool: list[int] = []
        decided = False
        for i in peers:
            peer = slots[i]
            outcome = peer.outcomes.get(step)
            if outcome is not None:
                known[i] = outcome
                pool.append(i)
                decided = decided or peer.step > step
            elif peer.joined <= step and (peer.status == "queued" or peer.status == "waiting"):  # noqa: PLR1714
                pool.append(i)
        # While nobody has anything to continue from, the missing ones are worth waiting for.
        hopeless = len(known) < len(pool) and all(outcome.failed for outcome in known.values())
        quorum = optimizer.quorum(len(pool))
        if not late and (hopeless or len(known) < quorum):
            return
        # Whoever comes after his peers were decided waits for nobody.
        wanted = not late and optimizer.grace > 0 and len(known) < len(pool) and not decided
        if wanted and not idle:
            return
        due = [i for i in known if slots[i].status == "waiting" and slots[i].step == step]
        if wanted and not self.grace_is_over(due, quorum):
            return
        last = step if self.last is None else self.last[0]
        lead = optimizer.max_lead
        if not due or (lead is not None and not late and step + 1 - last > lead):
            return
        view = self.view(step, pool, known, DECISION)
        for move in optimizer.decide(view, due):
            self.advance(view, move, last)

    def grace_is_over(self, due: Sequence[int], quorum: int) -> bool:
        """Whether the quorum, all of whom wait, has been there for as long as idle workers wait."""
        since_ms = sorted(self.slots[i].since_ms for i in due)[:quorum]
        grace_ms = 1000 * self.settings.optimizer.grace * self.trial_s
        return bool(since_ms) and self.at_ms - since_ms[-1] >= grace_ms

    def view(self, step: int, pool: list[int], known: Mapping[int, Outcome], purpose: int) -> View:
        """What an optimizer may look at."""
        seed = self.settings.seed
        return View(
            space=self.settings.space,
            slots=tuple(self.slots),
            pool=pool,
            step=step,
            steps=self.horizon,
            known=known,
            rng=lambda i: generator(seed, i, step, purpose),
        )

    def advance(self, view: View, move: Move, oldest: int) -> None:
        """Carry a move out. Outcomes older than any slot's step are of no more use to anybody."""
        slot = view.slots[move.slot]
        outcomes = {step: known for step, known in slot.outcomes.items() if step >= oldest}
        if not self.time_is_left():
            self.change(slot, status="done", outcomes=outcomes, since_ms=self.at_ms)
            return
        if slot.pinned and not view.known[slot.index].failed:
            own = view.known[slot.index].vector
            move = Move(slot.index, slot.index, own, slot.memory, {"rule": "pinned"})
        parent, checkpoint, line = slot.parent, slot.checkpoint, slot.vector
        if move.fresh:
            parent, checkpoint, line = None, None, move.vector
        elif move.source is not None:
            source = view.known[move.source]
            parent, checkpoint = f"{move.source}-{view.step}", source.checkpoint
            line = source.vector
        following = Slot(
            index=slot.index,
            tier=slot.tier if move.tier is None else move.tier,
            step=slot.step + 1,
            vector=self.settings.space.held(move.vector, line),
            parent=parent,
            checkpoint=checkpoint,
            joined=slot.joined,
            pinned=slot.pinned,
            memory=move.memory,
            outcomes=outcomes,
            seconds=slot.seconds,
            since_ms=self.at_ms,
            seed=training_seed(self.settings.seed, slot.index, slot.step + 1),
        )
        self.queue(following, move.why)

    def time_is_left(self) -> bool:
        """Whether a trial that began now is expected to end before the deadline."""
        deadline_ms = self.settings.deadline_ms
        return deadline_ms is None or (self.at_ms + 1000 * self.trial_s <= deadline_ms)

    # -- how a trial begins ---------------------------------------------------------------------

    def queue(self, slot: Slot, why: Mapping[str, Any]) -> None:
        """Hand out a new trial of `slot`, which has its seed and the time."""
        self.count(created=1)
        trial = self.hand_out(slot)
        self.note(
            "trial",
            trial=slot.trial,
            slot=slot.index,
            step=slot.step,
            parent=slot.parent,
            hyperparameters=trial.hyperparameters,
            vector=slot.vector,
            seed=slot.seed,
            why=why,
        )

    def again(self, slot: Slot) -> None:
        """Hand the same trial out once more: same vector, parent and seed, next attempt."""
        self.count(retried=1)
        attempt = slot.attempt + 1
        self.hand_out(
            replace(
                slot,
                status="queued",
                attempt=attempt,
                live=(attempt,),
                since_ms=self.at_ms,
            )
        )

    def copy(self, slot: Slot) -> None:
        """Hand out a second copy of a trial that takes long; the first result wins."""
        self.count(retried=1)
        attempt = slot.attempt + 1
        self.note("second copy", trial=slot.trial, attempt=attempt, slot=slot.index)
        self.hand_out(replace(slot, attempt=attempt, live=(*slot.live, attempt)))

    def hand_out(self, slot: Slot) -> Trial:
        """Make the message for workers."""
        settings = self.settings
        self.put(slot)
        start = slot.step * settings.budget if slot.partial is None else slot.position
        trial = Trial(
            id=slot.trial,
            slot=slot.index,
            step=slot.step,
            attempt=slot.attempt,
            hyperparameters=settings.space.decode(slot.vector),
            parent=slot.partial or slot.checkpoint,
            start=start,
            stop=(slot.step + 1) * settings.budget,
            seed=slot.seed,
            resumed=slot.partial is not None,
        )
        self.trials.append(trial)
        return trial

    # -- how slots come and go ------------------------------------------------------------------

    def park(self, slot: Slot) -> None:
        """Set a slot aside, now or when its trial has ended."""
        self.note("parked", slot=slot.index, step=slot.step)
        if slot.status == "waiting":
            self.change(slot, status="parked", since_ms=self.at_ms)
        else:
            self.change(slot, parking=True)

    def unpark(self, slot: Slot) -> bool:
        """Take a parked slot in again: on its own line, or where the others are by now."""
        if slot.active:
            self.change(slot, parking=False)
        elif (front := self.front()) is None or slot.step > front:
            self.settle(self.change(slot, status="waiting", since_ms=self.at_ms))
        else:
            return self.join(slot.index)
        self.note("resumed", slot=slot.index, step=slot.step)
        return True

    def front(self) -> int | None:
        """The step that half of the slots have ended, parked ones not counted."""
        latest = sorted(
            max(slot.outcomes) for slot in self.slots if slot.status != "parked" and slot.outcomes
        )
        return latest[len(latest) // 2] if latest else None

    def join(self, index: int) -> bool:
        """Fork a good slot into slot `index`; False where there is none to fork, or no step left.

        `index` is a parked slot's, or the next free one.
        """
        settings, front = self.settings, self.front()
        if front is None or front + 1 >= settings.steps or not self.time_is_left():
            return False
        pool = [slot.index for slot in self.slots if front in slot.outcomes]
        known = {i: self.slots[i].outcomes[front] for i in pool}
        if all(outcome.failed for outcome in known.values()):
            return False
        tier, move = settings.optimizer.join(self.view(front, pool, known, JOINING), index)
        parked = self.slots[index] if index < len(self.slots) else None
        if parked is None:
            self.put(Slot(index=index, vector=move.vector, status="done"))
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
                step=front + 1,
                joined=front + 1,
                vector=settings.space.held(move.vector, source.vector),
                parent=f"{move.source}-{front}",
                checkpoint=source.checkpoint,
            )
        elif parked is not None:
            # From scratch, under numbers that were never used.
            slot = replace(slot, step=parked.step + 1, joined=parked.step + 1)
        seed = training_seed(settings.seed, index, slot.step)
        self.queue(replace(slot, since_ms=self.at_ms, seed=seed), move.why)
        return True

    def close(self, status: PopulationStatus, reason: str) -> None:
        """End the search: what is out is not waited for any more."""
        self.status, self.reason = status, reason
        self.count(discarded=sum(slot.status == "queued" for slot in self.slots))
        self.slots = [
            replace(
                slot,
                status="done",
                live=(),
                partial=None,
                since_ms=self.at_ms,
                # Nobody decides any more: the last checkpoint of each slot is what stays.
                outcomes={k: slot.outcomes[k] for k in sorted(slot.outcomes)[-1:]},
            )
            for slot in self.slots
        ]
        self.last = None
