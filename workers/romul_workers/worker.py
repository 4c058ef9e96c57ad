"""The worker: leases a trial, has it trained, reports; gives it back when its machine must go.

It decides nothing. Whatever it is told comes from a queue and is validated; whatever it tells goes
into a queue, once. It needs the store and a trainer, and runs unchanged under simulated time.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from romul_actors.errors import ExperimentError, MessageError, StoreError, UnknownExperimentError
from romul_actors.events import MAX_TEXT, Failed, Released, ReleaseReason, Result, Trial
from romul_actors.experiment import Experiment, from_json
from romul_actors.messages import decode_trial, encode
from romul_actors.store import Lease, Store
from romul_workers.trainer import Ending, Failure, Stopped, Success, Trainer

log = logging.getLogger("romul.worker")

SHIPPED_TASKS = "romul_workers.tasks.*"
BLOCK_MS = 500
"""Longest wait for a trial at a time; also how soon a worker notices that it should stop."""
REFRESH_S = 1.0
"""How often the list of experiments is read again, and an idle worker says that it is there."""
FIRST_BEAT_S = 0.2
BACKOFF_S = 1.0
"""Pause before the store is tried again."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves.

    Attributes:
        name: unique among all workers that are alive.
        experiments: name patterns of the experiments that it serves.
        allow: patterns of the task modules that it may import.
        grace_s: how long a trial in training may take to end when the worker should stop.
        max_trials: trials after which it ends; None: no end.
    """

    name: str
    experiments: Sequence[str] = ("*",)
    allow: Sequence[str] = (SHIPPED_TASKS,)
    grace_s: float = 10.0
    max_trials: int | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


class _LostError(Exception):
    """The lease is somebody else's now."""


class _Gone(Exception):  # noqa: N818  (a reason to stop, no error)
    """The experiment was stopped or removed."""


class Worker:
    """One worker.

    Args:
        store: where trials come from and reports go to.
        trainer: what trains.
        settings: see `WorkerSettings`.
    """

    def __init__(self, store: Store, trainer: Trainer, settings: WorkerSettings) -> None:
        self._store = store
        self._trainer = trainer
        self._settings = settings
        self._specs: dict[str, Experiment] = {}
        self._admitted: dict[str, str] = {}
        self._open: list[str] = []
        self._refused: set[str] = set()
        self._refreshed = float("-inf")
        self.trials = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then the trial in training ends within the grace period."""
        try:
            while not stop.is_set() and self.trials != self._settings.max_trials:
                try:
                    await self._turn(stop)
                except (StoreError, ExperimentError) as error:
                    log.warning("%s; trying again", error)
                    await _wait(stop, BACKOFF_S)
        finally:
            await self._leave()

    async def _turn(self, stop: asyncio.Event) -> None:
        await self._refresh()
        if not self._open:
            await _wait(stop, REFRESH_S / 2)
            return
        lease = await self._store.lease(self._open, self._settings.name, BLOCK_MS)
        if lease is None:
            return
        # Fair turns: the experiment just served is asked last.
        self._open.remove(lease.experiment)
        self._open.append(lease.experiment)
        await self._serve(lease, stop)

    async def _refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._refreshed < REFRESH_S:
            return
        self._refreshed = now
        before = self._admitted
        self._admitted = {
            name: status
            for name, status in (await self._store.experiments()).items()
            if status not in ("finished", "stopped") and await self._admits(name)
        }
        running = [name for name, s in self._admitted.items() if s in ("submitted", "running")]
        kept = [name for name in self._open if name in running]
        self._open = kept + [name for name in running if name not in kept]
        name = self._settings.name
        await self._store.present(list(self._admitted), name, self._presence("idle", ""))
        await self._store.present([e for e in before if e not in self._admitted], name, {})

    async def _admits(self, name: str) -> bool:
        """Whether this worker's own settings let it serve the experiment."""
        if not any(fnmatchcase(name, pattern) for pattern in self._settings.experiments):
            return False
        try:
            module = (await self._spec(name)).module
        except (ExperimentError, UnknownExperimentError) as error:
            return self._refuse(name, str(error))
        if any(fnmatchcase(module, pattern) for pattern in self._settings.allow):
            return True
        return self._refuse(name, f"task module {module!r} is not allowed here (see --allow)")

    def _refuse(self, name: str, why: str) -> bool:
        if name not in self._refused:
            log.warning("experiment %s is not served: %s", name, why)
            self._refused.add(name)
        return False

    async def _spec(self, name: str) -> Experiment:
        # By its text: an experiment of the same name may be another one meanwhile.
        text = await self._store.spec(name)
        if text not in self._specs:
            self._specs[text] = from_json(text)
        return self._specs[text]

    def _presence(self, state: str, trial: str) -> dict[str, str | int]:
        settings = self._settings
        return {"state": state, "trial": trial, "host": settings.host, "pid": settings.pid}

    # -- one trial ------------------------------------------------------------------------------

    async def _serve(self, lease: Lease, stop: asyncio.Event) -> None:
        try:
            trial = decode_trial(lease.body)
        except MessageError as error:
            log.warning("unusable trial of %s: %s", lease.experiment, error)
            await self._store.bury(lease.experiment, "trials", lease.id, str(error), lease.body)
            return
        experiment = await self._spec(lease.experiment)
        loop = asyncio.get_running_loop()
        began = loop.time()
        log.info("%s: trial %s, attempt %d", experiment.name, trial.id, trial.attempt)
        ending: Ending | ReleaseReason
        try:
            ending = await self._train(lease, experiment, trial, stop)
        except _LostError:
            log.warning("%s: trial %s was taken away", experiment.name, trial.id)
            return
        except _Gone:
            ending = "stopped"
        self.trials += 1
        report = self._report(trial, ending, loop.time() - began)
        accepted = await self._settle(lease, trial, report, stop)
        if not accepted:
            log.warning("%s: trial %s: the report came too late", experiment.name, trial.id)
            if isinstance(ending, Success):
                await self._trainer.discard(experiment, ending.checkpoint)

    async def _train(
        self, lease: Lease, experiment: Experiment, trial: Trial, stop: asyncio.Event
    ) -> Ending | ReleaseReason:
        """Train while heartbeats go out.

        Raises:
            _LostError: the lease was lost; the training is ended.
            _Gone: the experiment is no more.
        """
        loop = asyncio.get_running_loop()
        training = asyncio.create_task(self._trainer.train(experiment, trial))
        stopping = asyncio.create_task(stop.wait())
        deadline: float | None = None
        # A trial of an instant needs no heartbeat; a longer one is to be seen soon.
        limit_s = FIRST_BEAT_S
        try:
            while True:
                if deadline is not None:
                    limit_s = min(limit_s, max(0.0, deadline - loop.time()))
                waits = {training} if deadline is not None else {training, stopping}
                await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                if training.done():
                    ending = training.result()
                    return "drained" if isinstance(ending, Stopped) else ending
                if deadline is not None and loop.time() >= deadline:
                    return "drained"
                if deadline is None and stop.is_set():
                    deadline = loop.time() + self._settings.grace_s
                    self._trainer.ask_to_stop()
                await self._beat(lease, trial, draining=deadline is not None)
                limit_s = experiment.timeouts.lease_s / 3
        finally:
            stopping.cancel()
            training.cancel()
            await asyncio.gather(training, stopping, return_exceptions=True)

    async def _beat(self, lease: Lease, trial: Trial, *, draining: bool) -> None:
        presence = self._presence("draining" if draining else "training", trial.id)
        try:
            beat = await self._store.beat(lease, presence)
        except StoreError as error:
            # The trial goes on: the store may be back before the lease has ended.
            log.warning("no heartbeat: %s", error)
            return
        if beat.status in ("", "stopped"):
            raise _Gone
        if not beat.kept:
            raise _LostError

    def _report(
        self, trial: Trial, ending: Ending | ReleaseReason, seconds: float
    ) -> Result | Failed | Released:
        worker = self._settings.name
        match ending:
            case Success():
                return Result(
                    trial=trial.id,
                    slot=trial.slot,
                    attempt=trial.attempt,
                    worker=worker,
                    value=ending.value,
                    checkpoint=ending.checkpoint,
                    seconds=seconds,
                    metrics=ending.metrics,
                    in_effect=ending.in_effect,
                )
            case Failure(reason=reason, message=message):
                log.warning("trial %s failed: %s: %s", trial.id, reason, message)
                return Failed(
                    trial=trial.id,
                    slot=trial.slot,
                    attempt=trial.attempt,
                    worker=worker,
                    reason=reason,
                    message=message[-MAX_TEXT:],
                    seconds=seconds,
                )
            case Stopped():
                ending = "drained"
        return Released(
            trial=trial.id, slot=trial.slot, attempt=trial.attempt, worker=worker, reason=ending
        )

    async def _settle(
        self, lease: Lease, trial: Trial, report: Result | Failed | Released, stop: asyncio.Event
    ) -> bool:
        """Report, however often the store must be asked; False: the lease was lost before."""
        token = f"{trial.id}#{trial.attempt} {report.type} by {self._settings.name}"
        try:
            body = encode(report)
        except MessageError as error:
            failure = Failure("bad_result", f"the task's metrics are too long: {error}")
            body = encode(self._report(trial, failure, 0.0))
        give_up = None
        while True:
            try:
                return await self._store.settle(lease, trial.slot, token, body)
            except StoreError as error:
                now = asyncio.get_running_loop().time()
                if stop.is_set():
                    give_up = give_up or now + self._settings.grace_s
                    if now >= give_up:
                        log.warning("trial %s could not be reported: %s", trial.id, error)
                        return False
                log.warning("no report: %s; trying again", error)
                await asyncio.sleep(BACKOFF_S)

    async def _leave(self) -> None:
        await self._trainer.close()
        try:
            await self._store.present(list(self._admitted), self._settings.name, {})
        except StoreError as error:
            log.debug("no farewell: %s", error)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
