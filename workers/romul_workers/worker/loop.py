"""The worker: leases trials, has them trained and reports how they ended.

When its machine must go, the worker gives its trials back. It makes no decisions about the
population. Each trial comes from a queue and is validated; each report is queued exactly once. The
worker needs only a store and a trainer, and also runs in simulated time.

Its parts: `admission.py` (which experiments it serves), `affinity.py` (what its process has in
memory), `attempt.py` (one lease), `overlap.py` (the second lease), `reporting.py`, `backoff.py`
(pauses on a failing machine), `collection.py` (removal of checkpoints), `shutdown.py`.
"""

import asyncio
import logging

from romul_actors.core.events import ReleaseReason
from romul_actors.errors import (
    ExperimentError,
    MessageError,
    MessageVersionError,
    StoreError,
    StoreUnavailableError,
)
from romul_actors.protocol.messages import decode_trial, is_spoken
from romul_actors.protocol.trial_fit import check_fit
from romul_actors.store import REFUSES, Lease, WorkerStore
from romul_actors.waiting import RetryLog
from romul_workers.trainer import Failure, Success, Trainer
from romul_workers.worker.admission import Admission
from romul_workers.worker.affinity import Affinity
from romul_workers.worker.attempt import Attempt, LeaseLostError, Presence
from romul_workers.worker.backoff import STATES, Backoff
from romul_workers.worker.collection import Collector
from romul_workers.worker.overlap import LOOK_S, Overlap
from romul_workers.worker.reporting import BACKOFF_S, Reporter
from romul_workers.worker.settings import WorkerSettings
from romul_workers.worker.shutdown import Shutdown

log = logging.getLogger("romul.worker")

MAX_REASON = 400
"""Longest reason for a refusal that is shown, in characters."""
REFUSALS_S = 10.0
"""Time after which a worker shows all its refusals again, in seconds: there may be hundreds."""
FAREWELL_S = 2.0
"""How long the store may take to remove the worker's presence."""


class Worker:
    """One worker.

    Args:
        store: where trials come from and reports go to.
        trainer: trains the trials.
        settings: see `WorkerSettings`.

    Attributes:
        trials: number of attempts that ended with a report.
    """

    def __init__(self, store: WorkerStore, trainer: Trainer, settings: WorkerSettings) -> None:
        self._store = store
        self._trainer = trainer
        self._settings = settings
        self._shutdown = Shutdown(settings.grace_s, self._wake)
        self._backoff = Backoff(store)
        self._reporter = Reporter(store, trainer, settings.name, self._shutdown)
        self._affinity = Affinity(settings.affinity_s)
        self._overlap = Overlap(settings.overlap)
        self._admission = Admission(
            store, settings.name, settings.experiments, settings.allow, self._forget
        )
        self._collector = Collector(
            store, trainer, self._admission, settings.garbage_ms, settings.pace_s
        )
        self._refreshed = float("-inf")
        self._refused: tuple[float, dict[str, str]] = (float("-inf"), {})
        """When all refusals were last shown, and which refusals there were last."""
        self._attempts: list[Attempt] = []
        self._quick = False
        self._retries = RetryLog(log)
        self.trials = 0

    @property
    def state(self) -> str:
        """Its state: idle, training, storing, draining, no room, no storage, or failing."""
        states = {attempt.state for attempt in self._attempts}
        for state in ("draining", "training", "storing"):
            if state in states:
                return state
        states = {self._backoff.state(name, trains=False) for name in self._admission.claims}
        return next((state for state in STATES if state in states), "idle")

    @property
    def quick(self) -> bool:
        """Whether heartbeats are frequent, because no broker would notice the worker's death."""
        return self._quick

    @quick.setter
    def quick(self, quick: bool) -> None:
        if quick != self._quick:
            self._quick = quick
            for attempt in self._attempts:
                attempt.beat_quickly(quick=quick)

    def drain(self, why: ReleaseReason = "drained", grace_s: float | None = None) -> None:
        """Take no more trials, and end; trials in training have the grace period.

        Args:
            why: the reason with which a trial is given back if it does not end in time.
            grace_s: grace period in seconds. Default: that of the settings.
        """
        self._shutdown.begin(why, grace_s)

    def announce(self, seconds: float) -> None:
        """Prepare for the end of the machine in `seconds` seconds.

        The worker still takes trials that it expects to finish before the grace period begins. The
        grace period is part of the remaining time.
        """
        self._shutdown.announce(seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then end within the grace period.

        A few seconds after the grace period the worker ends whatever it waits for: see
        `shutdown.py`.
        """
        stopping = asyncio.create_task(self._stop_with(stop))
        try:
            async with self._shutdown.bounded():
                await self._work()
        finally:
            stopping.cancel()
            await self._overlap.close()
            await self._leave()

    async def _work(self) -> None:
        while self._overlap.busy or self._may_begin():
            try:
                await self._take_one()
                self._retries.worked()
            except (StoreError, ExperimentError) as error:
                if not isinstance(error, StoreUnavailableError):
                    # The offer for the checkpoint in memory may be what the store fails on.
                    self._affinity.leased()
                self._retries.failed(f"{error}; trying again")
                await self._shutdown.pause(BACKOFF_S)

    async def _stop_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._shutdown.begin("preempted")

    def _may_begin(self) -> bool:
        """Whether the worker may take another trial: it does not end, `max_trials` not reached."""
        n = self.trials + len(self._attempts)
        return not self._shutdown.begun and n != self._settings.max_trials

    def _wake(self) -> None:
        for attempt in self._attempts:
            attempt.wake()

    def _forget(self, experiment: str) -> None:
        self._backoff.forget(experiment)
        self._reporter.forget(experiment)
        self._affinity.forget(experiment)
        self._overlap.forget(experiment)

    async def _take_one(self) -> None:
        """Wait for a trial, for `pace_s` at most, and serve it."""
        self._overlap.reap()
        if not self._may_begin() or (self._overlap.busy and not self._trainer.has_room()):
            await self._overlap.wait(self._settings.pace_s)
            return
        await self._refresh()
        wanted = [name for name in self._admission.claims if not self._backoff.pauses(name)]
        names = [name for name in wanted if self._shutdown.has_time_for(name)]
        if not names and self._overlap.busy:
            await self._overlap.wait(self._settings.pace_s)
            return
        if not names:
            if wanted:
                # Another trial would not end before the machine goes.
                self._shutdown.begin("preempted")
            await self._shutdown.pause(self._settings.pace_s)
            return
        pace_s = self._settings.pace_s
        block_ms = int(1000 * (min(LOOK_S, pace_s) if self._overlap.busy else pace_s))
        lease = await self._store.lease(
            names, self._settings.name, block_ms, self._affinity.holding(names)
        )
        if lease is not None:
            number = self._affinity.leased()
            self._admission.claimed(lease.experiment)
            attempt = await self._open(lease)
            if attempt is not None:
                await self._overlap.serve(attempt, self._serve(attempt, number))
                if attempt in self._attempts:
                    self._affinity.stores(lease.experiment)

    async def _refresh(self) -> None:
        """From time to time: read the list of experiments, show presence, collect garbage."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed < 2 * self._settings.pace_s:
            return
        self._refreshed = now
        await self._admission.refresh()
        # Heartbeats show presence to experiments for which a checkpoint is being stored.
        stores = [attempt.experiment.name for attempt in self._attempts]
        names = [name for name in self._admission.served if name not in stores]
        by_state: dict[str, list[str]] = {}
        for name in names:
            by_state.setdefault(self._state_for(name), []).append(name)
        for alike in by_state.values():
            await self._store.present(alike, self._settings.name, self._presence(alike[0]))
        await self._show_refusals(now)
        await self._collector.collect(now)

    async def _show_refusals(self, now: float) -> None:
        """Show which experiments this worker refuses; it does not count as a worker of those."""
        shown, before = self._refused
        refused = self._admission.refused
        due = refused if now - shown >= REFUSALS_S else dict(refused.items() - before.items())
        for name, why in due.items():
            await self._store.present([name], self._settings.name, self._refusal(why))
        self._refused = (shown if due is not refused else now, refused)

    def _state_for(self, experiment: str) -> str:
        """The state that is shown to one experiment; other experiments' storage is left out."""
        if (state := self.state) == "draining":
            return state
        trains = any(attempt.experiment.name == experiment for attempt in self._attempts)
        hindered = self._backoff.state(experiment, trains=trains)
        # Also while a trial trains: its checkpoint may fail to be stored.
        if hindered in ("no room", "no storage") or not self._attempts:
            return hindered or "idle"
        return state

    def _presence(self, experiment: str) -> Presence:
        """The worker's presence in an experiment, with its trials of that experiment."""
        here, state = self._settings, self._state_for(experiment)
        if not self._attempts:
            return {"state": state, "trial": "", "host": here.host, "pid": here.pid}
        training: list[str] = []
        storing: list[str] = []
        for attempt in self._attempts:
            if attempt.experiment.name == experiment:
                (storing if attempt.storing else training).append(attempt.trial.id)
        at = self._trainer.at if training else None
        return {
            "state": state,
            "trial": " ".join(training),
            "host": here.host,
            "pid": here.pid,
            **({} if at is None else {"at": at}),
            **({"storing": " ".join(storing)} if storing else {}),
        }

    def _refusal(self, why: str) -> Presence:
        here = self._settings
        return {"state": REFUSES, "why": why[:MAX_REASON], "host": here.host, "pid": here.pid}

    async def _open(self, lease: Lease) -> Attempt | None:
        """Make the attempt for a lease; None: its trial is invalid, or may not be trained here."""
        try:
            trial = decode_trial(lease.body)
        except MessageError as error:
            await self._refuse_unread(lease, error)
            return None
        try:
            experiment = await self._admission.leased(lease.experiment)
        except ExperimentError as error:
            # The experiment has changed: it must be admitted again before the next lease.
            self._refreshed = float("-inf")
            await self._reporter.refuse(lease, trial, str(error))
            return None
        try:
            check_fit(trial, self._admission.parameters(lease.experiment))
        except MessageError as error:
            await self._refuse_unread(lease, error)
            return None
        return Attempt(
            self._store,
            self._trainer,
            lease,
            experiment,
            trial,
            self._shutdown,
            self._presence,
        )

    async def _refuse_unread(self, lease: Lease, error: MessageError) -> None:
        """Give back a trial if actors of another version made it; otherwise dead-letter it."""
        name = lease.experiment
        foreign = isinstance(error, MessageVersionError)
        if foreign and not is_spoken(await self._store.protocol(name)):
            # A worker of that version can train it; as a dead letter it would be queued again.
            await self._stay_away(lease, f"its trials are of {error}")
            return
        log.warning("invalid trial of %s: %s", name, error)
        await self._store.dead_letter(name, lease.stream, [(lease.id, str(error), lease.body)])

    async def _stay_away(self, lease: Lease, why: str) -> None:
        """Give a trial back that other workers can train, and refuse its experiment for a while."""
        await self._store.put_back(lease)
        self._admission.leave(lease.experiment, why)
        self._refreshed = float("-inf")

    async def _serve(self, attempt: Attempt, number: int) -> None:
        """Train a leased trial and store its checkpoint, and report how that ended.

        Args:
            attempt: the attempt.
            number: how many trials the worker has begun, this one included.
        """
        experiment, trial = attempt.experiment, attempt.trial
        loop = asyncio.get_running_loop()
        began = loop.time()
        log.info("%s: trial %s, attempt %d", experiment.name, trial.id, trial.attempt)
        self._attempts.append(attempt)
        attempt.beat_quickly(quick=self._quick)
        try:
            ending = await attempt.run()
        except LeaseLostError:
            log.warning("%s: trial %s was taken away", experiment.name, trial.id)
            return
        finally:
            self._attempts.remove(attempt)
        if isinstance(ending, Failure) and ending.elsewhere:
            log.error("%s: trial %s goes back: %s", experiment.name, trial.id, ending.message)
            await self._stay_away(attempt.lease, ending.message)
            return
        seconds = loop.time() - began
        ending = await self._backoff.outages.judge(experiment.name, trial.id, ending, seconds)
        message = await self._reporter.message(attempt, ending, seconds)
        ending = message.ending
        self.trials += 1
        self._overlap.took(experiment.name, attempt.stored_s)
        if isinstance(ending, Success) and not trial.resumed:
            self._shutdown.trained(experiment.name, seconds)
        hold = self._affinity.after(experiment.name, ending, number)
        if await self._reporter.deliver(attempt, message, hold):
            self._affinity.accepted(experiment.name, hold, number)
            for other in self._attempts:
                # The other attempt may be a second copy of this trial, and then is not needed.
                other.wake()
        await self._backoff.judge(experiment.name, ending)

    async def _leave(self) -> None:
        await self._trainer.close()
        try:
            async with asyncio.timeout(FAREWELL_S):
                names = [*self._admission.served, *self._admission.refused]
                await self._store.present(names, self._settings.name, {})
        except (StoreError, TimeoutError) as error:
            log.debug("no farewell: %r", error)
