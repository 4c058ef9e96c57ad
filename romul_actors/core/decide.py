"""The one pure function that changes a population: `decide(population, event)`.

This is the heart of the system and knows nothing of queues, servers, clocks or workers' insides:
time comes with events, randomness from (seed, slot, step). The actor folds `decide` over what it
reads; the simulator and a replay do the same and must come to the same end.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from romul_actors.core.elasticity import (
    expected_steps,
    overdue,
    to_park,
)
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
    BoundsChanged,
    ControlIgnored,
    ReportStale,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    SearchStopped,
    SlotPinned,
    SlotUnpinned,
    TrialReleased,
    WorkerDrained,
)
from romul_actors.core.population import Decision, Population
from romul_actors.core.slot import Slot
from romul_actors.core.transition import START, Turn, generator, training_seed
from romul_actors.errors import SpaceError


def decide(population: Population, stamped: Stamped) -> Decision:
    """Fold one event into the population.

    An event that does not fit (a result of an old attempt, a second `submitted`) changes nothing:
    whatever the queue delivers twice or late, the population has it once.
    """
    turn = _Events(population, stamped.at_ms)
    match stamped.event:
        case Submitted():
            turn.submitted()
        case Control() as event:
            turn.control(event)
        case Tick(workers=workers):
            turn.tick(workers)
        case Result() | Failed() | Released() | Expired() as event:
            if population.status == "stopped" or not _counts(population, event):
                turn.blame("stale")
                turn.record(
                    ReportStale(
                        at_ms=turn.at_ms,
                        trial=event.trial,
                        attempt=event.attempt,
                        worker=event.worker,
                    )
                )
            else:
                turn.report(event)
    turn.wind_up()
    return turn.decision()


def _counts(population: Population, event: Result | Failed | Released | Expired) -> bool:
    """Whether the event speaks of an attempt that counts (the fencing token)."""
    if not 0 <= event.slot < len(population.slots):
        return False
    slot = population.slots[event.slot]
    return slot.status == "queued" and slot.trial == event.trial and event.attempt in slot.live


class _Events(Turn):
    """What each kind of event asks for."""

    def submitted(self) -> None:
        if self.status != "submitted":
            return
        self.status = "running"
        self.record(SearchStarted(at_ms=self.at_ms))
        settings = self.settings
        rng = generator(settings.seed, 0, 0, START)
        starts = settings.optimizer.start(settings.space, settings.n_slots, rng)
        for index, start in enumerate(starts):
            vector = settings.initial[index] if index < len(settings.initial) else start.vector
            seed = training_seed(settings.seed, index, 0)
            slot = Slot(index=index, tier=start.tier, vector=vector, since_ms=self.at_ms, seed=seed)
            self.queue(slot, {"rule": "drawn"})

    def control(self, event: Control) -> None:
        action, by, status = event.action, event.by, self.status
        at_ms = self.at_ms
        if action == "pause" and status == "running":
            self.record(SearchPaused(at_ms=at_ms, by=by))
            self.status, self.reason = "paused", f"paused by {by}" if by else "paused"
        elif action == "resume" and status in ("paused", "failed"):
            self.record(SearchResumed(at_ms=at_ms, by=by))
            if status == "failed":
                self.retry_failed()
            self.status, self.reason = "running", ""
            self.settle_all()
        elif action == "stop" and status not in ("finished", "stopped"):
            self.record(SearchStopped(at_ms=at_ms, by=by))
            self.close("stopped", f"stopped by {by}" if by else "stopped")
        elif action in ("pin", "unpin") and 0 <= (slot := event.slot or 0) < len(self.slots):
            kind = SlotPinned if action == "pin" else SlotUnpinned
            self.record(kind(at_ms=at_ms, slot=slot, by=by))
            self.change(self.slots[slot], pinned=action == "pin")
        elif action == "bounds" and self.status not in ("finished", "stopped"):
            self.bounds(event)
        elif action == "drain":
            self.record(WorkerDrained(at_ms=at_ms, worker=event.worker, by=by))
        else:
            self.record(ControlIgnored(at_ms=at_ms, action=action, status=status, by=by))

    def bounds(self, event: Control) -> None:
        """Search a hyperparameter between other bounds; trials that are out end as they began."""
        parameter, low, high, by = event.parameter, event.low, event.high, event.by
        before = self.settings.space
        try:
            space = before.with_bounds(parameter, low, high)
        except SpaceError as error:
            self.record(
                ControlIgnored(
                    at_ms=self.at_ms,
                    action="bounds",
                    status=self.status,
                    why=str(error),
                    parameter=parameter,
                    low=low,
                    high=high,
                    by=by,
                )
            )
            return
        self.record(BoundsChanged(at_ms=self.at_ms, parameter=parameter, low=low, high=high, by=by))
        self.settings = replace(self.settings, space=space)

        def move(vector: Sequence[float]) -> tuple[float, ...]:
            return before.translate(vector, space)

        for slot in tuple(self.slots):
            outcomes = {
                step: replace(outcome, vector=move(outcome.vector))
                for step, outcome in slot.outcomes.items()
            }
            memory = self.settings.optimizer.moved(slot.memory, move)
            self.change(slot, vector=move(slot.vector), outcomes=outcomes, memory=memory)
        if self.best is not None:
            self.best = replace(self.best, vector=move(self.best.vector))

    def retry_failed(self) -> None:
        """Give the trials that failed for good at their slot's last step a new life."""
        for slot in tuple(self.slots):
            outcome = slot.outcomes.get(slot.step)
            if slot.status == "queued" or outcome is None or not outcome.failed:
                continue
            outcomes = {step: o for step, o in slot.outcomes.items() if step != slot.step}
            self.count(failed=-1)
            self.again(replace(slot, outcomes=outcomes, failures=0, losses=0))

    def report(self, event: Result | Failed | Released | Expired) -> None:
        slot = self.slots[event.slot]
        match event:
            case Result(value=value) if not math.isfinite(value):
                self.fail(slot, event, "not_finite", f"the metric is {value}")
            case Result():
                self.accept(slot, event)
            case Released():
                self.released(slot, event)
            case Expired():
                self.fail(slot, event, "lost", "the lease ended without a word from the worker")
            case Failed():
                self.fail(slot, event, event.reason, event.message, event.seconds)

    def released(self, slot: Slot, event: Released) -> None:
        """Hand a trial out again that was given back, from where it stood if that was kept."""
        self.blame(event.reason)
        start = slot.position if slot.partial else slot.step * self.settings.budget
        stop = (slot.step + 1) * self.settings.budget
        kept = None
        if event.checkpoint is not None and event.at is not None and start < event.at < stop:
            slot = replace(slot, partial=event.checkpoint, position=event.at)
            kept = event.checkpoint
        self.record(
            TrialReleased(
                at_ms=self.at_ms,
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
        self.give_back(slot, event.attempt)

    def tick(self, workers: int) -> None:
        """Time passed: waits end, and the population follows the workers."""
        if self.status != "running":
            return
        self.ticked = workers
        settings, one_s = self.settings, self.trial_s
        if settings.deadline_ms is not None:
            left_s = (settings.deadline_ms - self.at_ms) / 1000
            self.horizon = expected_steps(self.slots, workers, left_s, settings.steps)
        if workers < 1 or not one_s:
            self.idle_since_ms = self.crowded_since_ms = None
            return
        active = [s for s in self.slots if s.status == "queued" or s.status == "waiting"]  # noqa: PLR1714
        rounds = math.ceil(len(active) / workers)
        limit_s = max(settings.quorum_wait_min_s, settings.quorum_wait * one_s * rounds)
        idle = self.idle(workers) > 0
        asked = set()
        for slot in self.before.slots:
            if slot.status != "waiting":
                continue
            late = self.at_ms - slot.since_ms > 1000 * limit_s
            # All that wait together are asked for once.
            if late or (idle and (slot.tier, slot.step) not in asked):
                asked.add((slot.tier, slot.step))
                self.settle(slot, late=late, idle=idle)
        self.follow(workers, 1000 * one_s)

    def idle(self, workers: int) -> int:
        """How many workers have no trial."""
        return workers - sum([len(slot.live) for slot in self.slots if slot.status == "queued"])

    def follow(self, workers: int, patience_ms: float) -> None:
        """Park, resume, copy and grow, as the number of workers asks for."""
        settings, elasticity = self.settings, self.settings.elasticity
        staying = [s for s in self.slots if s.status != "parked" and not s.parking]
        room = elasticity.bound(workers, settings.n_slots) - len(staying)
        self.crowded_since_ms = self._since(self.crowded_since_ms, room < 0)
        if self._for_long(self.crowded_since_ms, patience_ms):
            for slot in to_park(staying, -room, settings.optimizer.spares):
                self.park(slot)
        apart = [s for s in self.slots if s.status == "parked" or s.parking]
        apart.sort(key=lambda s: (not s.parking, s.outcomes[max(s.outcomes)].loss))
        for slot in apart[: max(0, room)]:
            room -= self.unpark(slot)
        idle = self.idle(workers)
        self.idle_since_ms = self._since(self.idle_since_ms, idle > 0)
        if not self._for_long(self.idle_since_ms, patience_ms):
            return
        if elasticity.second_copy > 0:
            limit_ms = elasticity.second_copy * patience_ms
            for slot in overdue(self.slots, self.at_ms, limit_ms)[:idle]:
                self.copy(slot)
                idle -= 1
        for _ in range(min(idle, room)):
            if not self.join(len(self.slots)):
                break

    def _since(self, since_ms: int | None, holds: bool) -> int | None:  # noqa: FBT001
        """Since when something holds that holds now, or does not."""
        if not holds:
            return None
        return self.at_ms if since_ms is None else since_ms

    def _for_long(self, since_ms: int | None, patience_ms: float) -> bool:
        return since_ms is not None and self.at_ms - since_ms >= patience_ms

    def wind_up(self) -> None:
        """See to what any event may have brought about."""
        if self.status != "running" or not self.slots:
            return
        # Whoever was too far ahead of the last slot may go on when that has moved.
        before = self.last_before
        while self.last is not None and (before is None or self.last[0] != before[0]):
            before = self.last
            self.settle_all()
        settings = self.settings
        came = settings.deadline_ms is not None and self.at_ms >= settings.deadline_ms
        if came or self.last is None:
            early = any(slot.step + 1 < settings.steps for slot in self.slots)
            cut = early and settings.deadline_ms is not None
            self.close("finished", "at its deadline" if cut else "")
            self.record(SearchFinished(at_ms=self.at_ms, reason=self.reason))
