"""The population, and the one pure function that changes it: `decide(population, event)`.

This is the heart of the system and knows nothing of queues, servers, clocks or workers' insides:
time comes with events, randomness from (seed, slot, step). The actor folds `decide` over what it
reads; the simulator and a replay do the same and must come to the same end.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from statistics import median
from typing import Any

from numpy.random import Generator, Philox

from romul_actors.events import (
    Control,
    Expired,
    Failed,
    Released,
    Result,
    Stamped,
    Submitted,
    Tick,
    Trial,
)
from romul_actors.optimizers.base import Move, View
from romul_actors.slot import Outcome, Slot, failed
from romul_actors.state import Best, Decision, Population

# What a generator is for: the first vectors and a decision must not share random numbers.
_START, _DECISION = 0, 1


def generator(seed: int, slot: int, step: int, purpose: int) -> Generator:
    """Generator of one decision: a counter-based stream of its own (Philox: Salmon et al. 2011)."""
    return Generator(Philox(key=seed, counter=[0, slot, step, purpose]))


def training_seed(seed: int, slot: int, step: int) -> int:
    """Seed of a trial's own randomness: 31 bits, the same for every attempt."""
    digest = blake2b(f"{seed}/{slot}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


def decide(population: Population, stamped: Stamped) -> Decision:
    """Fold one event into the population.

    An event that does not fit (a result of an old attempt, a second `submitted`) changes nothing:
    whatever the queue delivers twice or late, the population has it once.
    """
    turn = _Turn(population, stamped.at_ms)
    match stamped.event:
        case Submitted():
            turn.submitted()
        case Control(action=action, by=by):
            turn.control(action, by)
        case Tick(workers=workers):
            turn.tick(workers)
        case Result() | Failed() | Released() | Expired() as event:
            if population.status == "stopped" or not _counts(population, event):
                turn.note("stale", trial=event.trial, attempt=event.attempt, worker=event.worker)
            else:
                turn.report(event)
    return turn.decision()


def _counts(population: Population, event: Result | Failed | Released | Expired) -> bool:
    """Whether the event speaks of the attempt that counts (the fencing token)."""
    if not 0 <= event.slot < len(population.slots):
        return False
    slot = population.slots[event.slot]
    return (slot.status, slot.trial, slot.attempt) == ("queued", event.trial, event.attempt)


class _Turn:
    """One event being folded: collects changes on the way from one population to the next."""

    def __init__(self, population: Population, at_ms: int) -> None:
        self.settings = population.settings
        self.before = population
        self.at_ms = at_ms
        self.status = population.status
        self.reason = population.reason
        self.slots = list(population.slots)
        self.best = population.best
        self.counts = population.counts
        self.trials: list[Trial] = []
        self.history: list[Mapping[str, Any]] = []

    def decision(self) -> Decision:
        population = replace(
            self.before,
            status=self.status,
            reason=self.reason,
            slots=tuple(self.slots),
            best=self.best,
            counts=self.counts,
        )
        return Decision(population, tuple(self.trials), tuple(self.history))

    def note(self, event: str, **values: Any) -> None:
        self.history.append({"event": event, **values})

    # -- events ---------------------------------------------------------------------------------

    def submitted(self) -> None:
        if self.status != "submitted":
            return
        self.status = "running"
        self.note("started")
        settings = self.settings
        rng = generator(settings.seed, 0, 0, _START)
        starts = settings.optimizer.start(settings.space, settings.n_slots, rng)
        for index, start in enumerate(starts):
            vector = settings.initial[index] if index < len(settings.initial) else start.vector
            self.slots.append(Slot(index=index, tier=start.tier, vector=vector))
            self.queue(self.slots[index], {"rule": "drawn"})

    def control(self, action: str, by: str) -> None:
        if action == "pause" and self.status == "running":
            self.status, self.reason = "paused", f"paused by {by}" if by else "paused"
        elif action == "resume" and self.status in ("paused", "failed"):
            if self.status == "failed":
                self.retry_failed()
            self.status, self.reason = "running", ""
            self.settle_all()
        elif action == "stop" and self.status not in ("finished", "stopped"):
            self.status, self.reason = "stopped", f"stopped by {by}" if by else "stopped"
            queued = [slot for slot in self.slots if slot.status == "queued"]
            self.count(discarded=len(queued))
            self.slots = [replace(slot, status="done", since_ms=self.at_ms) for slot in self.slots]
        else:
            self.note("ignored", action=action, status=self.status, by=by)
            return
        self.note(action, by=by)

    def tick(self, workers: int) -> None:
        """Decide the groups that have waited too long for their quorum."""
        seconds = [slot.seconds for slot in self.slots if slot.seconds > 0]
        if self.status != "running" or workers < 1 or not seconds:
            return
        settings = self.settings
        rounds = math.ceil(settings.n_slots / workers)
        limit_s = max(settings.quorum_wait_min_s, settings.quorum_wait * median(seconds) * rounds)
        for slot in self.before.slots:
            if slot.status == "waiting" and self.at_ms - slot.since_ms > 1000 * limit_s:
                self.settle(slot, late=True)

    def report(self, event: Result | Failed | Released | Expired) -> None:
        slot = self.slots[event.slot]
        token = {"trial": event.trial, "attempt": event.attempt, "worker": event.worker}
        match event:
            case Result(value=value) if not math.isfinite(value):
                self.fail(slot, token, "not_finite", f"the metric is {value}")
            case Result():
                self.accept(slot, event, token)
            case Released():
                self.note("released", **token, reason=event.reason)
                self.again(slot, failures=slot.failures)
            case Expired():
                self.fail(slot, token, "lost", "the lease ended without a word from the worker")
            case Failed():
                self.fail(slot, token, event.reason, event.message)

    # -- how a trial ends -----------------------------------------------------------------------

    def accept(self, slot: Slot, event: Result, token: Mapping[str, Any]) -> None:
        loss = -event.value if self.settings.maximize else event.value
        outcome = Outcome(loss, slot.vector, event.checkpoint)
        if self.best is None or loss < self.best.loss:
            self.best = Best(slot.trial, loss, slot.vector, event.checkpoint, event.metrics)
        self.count(reported=1)
        told = {"metrics": dict(event.metrics), "in_effect": dict(event.in_effect)}
        self.note(
            "result",
            **token,
            slot=slot.index,
            step=slot.step,
            value=event.value,
            checkpoint=event.checkpoint,
            seconds=round(event.seconds, 6),
            **{name: values for name, values in told.items() if values},
        )
        self.end(replace(slot, seconds=event.seconds), outcome)

    def fail(self, slot: Slot, token: Mapping[str, Any], reason: str, message: str) -> None:
        # A loss that is not finite would be so again: the fault lies in the hyperparameters.
        again = reason != "not_finite" and slot.failures + 1 < self.settings.max_attempts
        self.note(
            "failed",
            **token,
            slot=slot.index,
            step=slot.step,
            reason=reason,
            message=message,
            again=again,
        )
        if again:
            self.again(slot, failures=slot.failures + 1)
            return
        self.count(failed=1)
        self.end(slot, failed(slot.vector), f"{reason}: {message}")

    def end(self, slot: Slot, outcome: Outcome, fault: str = "") -> None:
        """Keep the outcome; the next trial follows when the quorum is there."""
        last = slot.step + 1 >= self.settings.steps
        slot = replace(
            slot,
            status="done" if last else "waiting",
            outcomes={**slot.outcomes, slot.step: outcome},
            since_ms=self.at_ms,
        )
        self.slots[slot.index] = slot
        step = slot.step
        if all(step in peer.outcomes and peer.outcomes[step].failed for peer in self.slots):
            self.status = "failed"
            self.reason = f"every trial of step {step} failed; the last one: {fault}"
            self.note("gave up", reason=self.reason)
        elif all(peer.status == "done" for peer in self.slots):
            self.status = "finished"
            self.note("finished")
        elif self.status == "running":
            self.settle(slot)

    # -- how a trial begins ---------------------------------------------------------------------

    def settle_all(self) -> None:
        for slot in tuple(self.slots):
            if self.slots[slot.index].status == "waiting":
                self.settle(self.slots[slot.index])

    def settle(self, slot: Slot, *, late: bool = False) -> None:
        """Decide all that wait with `slot`, if the quorum is there or no longer waited for."""
        settings, step = self.settings, slot.step
        if self.slots[slot.index].status != "waiting" or self.slots[slot.index].step != step:
            return
        pool = settings.optimizer.pool(self.slots, slot, settings.steps)
        slots = self.slots
        known = {i: slots[i].outcomes[step] for i in pool if step in slots[i].outcomes}
        # While nobody has anything to continue from, the missing ones are worth waiting for.
        hopeless = len(known) < len(pool) and all(outcome.failed for outcome in known.values())
        if not late and (hopeless or len(known) < settings.optimizer.quorum(len(pool))):
            return
        due = [i for i in known if slots[i].status == "waiting" and slots[i].step == step]
        view = View(
            space=settings.space,
            slots=tuple(slots),
            pool=pool,
            step=step,
            steps=settings.steps,
            known=known,
            rng=lambda i: generator(settings.seed, i, step, _DECISION),
        )
        oldest = min((peer.step for peer in slots if peer.status != "done"), default=step)
        for move in settings.optimizer.decide(view, due):
            self.advance(view, move, oldest)

    def advance(self, view: View, move: Move, oldest: int) -> None:
        """Carry a move out. Outcomes older than any slot's step are of no more use to anybody."""
        slot = view.slots[move.slot]
        parent, checkpoint, line = slot.parent, slot.checkpoint, slot.vector
        if move.fresh:
            parent, checkpoint, line = None, None, move.vector
        elif move.source is not None:
            source = view.known[move.source]
            parent, checkpoint = f"{move.source}-{view.step}", source.checkpoint
            line = source.vector
        vector = move.vector
        if not all(self.settings.space.mutable):
            mutable = self.settings.space.mutable
            vector = tuple(
                new if free else held for new, held, free in zip(vector, line, mutable, strict=True)
            )
        outcomes = {step: known for step, known in slot.outcomes.items() if step >= oldest}
        following = Slot(
            index=slot.index,
            tier=slot.tier,
            step=slot.step + 1,
            vector=vector,
            parent=parent,
            checkpoint=checkpoint,
            memory=move.memory,
            outcomes=outcomes,
            seconds=slot.seconds,
        )
        self.queue(following, move.why)

    def queue(self, slot: Slot, why: Mapping[str, Any]) -> None:
        """Hand out a new trial of `slot`."""
        seed = training_seed(self.settings.seed, slot.index, slot.step)
        slot = replace(slot, since_ms=self.at_ms, seed=seed)
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

    def again(self, slot: Slot, *, failures: int) -> None:
        """Hand the same trial out once more: same vector, parent and seed, next attempt."""
        self.count(retried=1)
        self.hand_out(
            replace(
                slot,
                status="queued",
                attempt=slot.attempt + 1,
                failures=failures,
                since_ms=self.at_ms,
            )
        )

    def retry_failed(self) -> None:
        """Give the trials that failed for good at their slot's last step a new life."""
        for slot in tuple(self.slots):
            outcome = slot.outcomes.get(slot.step)
            if slot.status == "queued" or outcome is None or not outcome.failed:
                continue
            outcomes = {step: o for step, o in slot.outcomes.items() if step != slot.step}
            self.count(failed=-1)
            self.again(replace(slot, outcomes=outcomes), failures=0)

    def hand_out(self, slot: Slot) -> Trial:
        settings = self.settings
        self.slots[slot.index] = slot
        trial = Trial(
            id=slot.trial,
            slot=slot.index,
            step=slot.step,
            attempt=slot.attempt,
            hyperparameters=settings.space.decode(slot.vector),
            parent=slot.checkpoint,
            start=slot.step * settings.budget,
            stop=(slot.step + 1) * settings.budget,
            seed=slot.seed,
        )
        self.trials.append(trial)
        return trial

    def count(self, **changes: int) -> None:
        self.counts = replace(
            self.counts,
            **{name: getattr(self.counts, name) + change for name, change in changes.items()},
        )
