"""One attempt at a trial: it is trained and stored while heartbeats keep its lease.

An attempt knows only its own lease. It ends when its checkpoint is stored, when the worker's grace
period is over, or when the lease is lost. `reporting.py` decides what is reported.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from romul_actors.core.events import ReleaseReason, TrialMessage
from romul_actors.errors import StoreError
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Lease, WorkerStore
from romul_actors.waiting import RetryLog, Wakeup, cancel
from romul_workers.trainer import Ending, Trainer
from romul_workers.worker.shutdown import Shutdown

log = logging.getLogger("romul.worker")

FIRST_BEAT_S = 0.2
QUICK_BEAT_S = 0.4
"""Time between heartbeats while there is no connection to the broker, which otherwise notices a
worker's death."""

Presence = Mapping[str, str | int | float]


class LeaseLostError(Exception):
    """The lease now belongs to another worker, or to the actor."""


class Attempt:
    """One leased trial.

    Args:
        store: the store that holds the lease.
        trainer: trains the trial.
        lease: the lease.
        experiment: the trial's experiment.
        trial: the trial.
        shutdown: the worker's shutdown: when it begins, its reason and its deadline.
        presence: takes the experiment's name; returns what a heartbeat says about the worker.

    Attributes:
        lease, experiment, trial: as above.
        output: what the task printed, if the trainer knows it.
        stores: set when training is over and only the checkpoint remains to be stored.
        stored_s: how long storing took, in seconds, or how long it had taken when the attempt
            ended; None: storing did not begin.
        beside: whether the worker may train another trial while this one is stored.
    """

    def __init__(
        self,
        store: WorkerStore,
        trainer: Trainer,
        lease: Lease,
        experiment: Experiment,
        trial: TrialMessage,
        shutdown: Shutdown,
        presence: Callable[[str], Presence],
    ) -> None:
        self._store = store
        self._trainer = trainer
        self.lease = lease
        self.experiment = experiment
        self.trial = trial
        self.output = ""
        self.stores = asyncio.Event()
        self.stored_s: float | None = None
        self.beside = False
        self._shutdown = shutdown
        self._presence = presence
        self._quick = False
        self._draining = False
        self._stores_at = 0.0
        self._beats = RetryLog(log)
        self._woken = Wakeup()
        """Set when the state has changed and `_supervise` must look at it at once."""

    @property
    def storing(self) -> bool:
        """Whether the checkpoint is being stored while another trial may be trained."""
        return self.beside and self.stores.is_set()

    @property
    def state(self) -> str:
        """The attempt's state: "training", "storing", or "draining" in the grace period."""
        if self._draining:
            return "draining"
        return "storing" if self.storing else "training"

    def beat_quickly(self, *, quick: bool) -> None:
        """Change the pace of heartbeats, and send one at once.

        The heartbeat proves that a worker which is suspected to be dead is alive. If its lease has
        been taken away already, the worker learns of it.
        """
        self._quick = quick
        self.wake()

    def wake(self, _: object = None) -> None:
        """Make `run` look at what has changed.

        If the worker's shutdown has begun, this method also asks the task to stop. It does not
        leave that to `run`, where a heartbeat may hang for longer than the grace period.
        """
        self._woken.set()
        if self._shutdown.begun and not self._draining:
            self._draining = True
            if not self.stores.is_set():
                self._trainer.ask_to_stop()

    async def run(self) -> Ending | ReleaseReason:
        """Train the trial and store its checkpoint, with heartbeats.

        Returns:
            How the training ended, or why it was stopped: its result is no longer needed, or it
            took longer than the grace period.

        Raises:
            LeaseLostError: the lease was lost; the training has been stopped.
        """
        training = asyncio.create_task(
            self._trainer.train(self.experiment, self.trial, self._begin_to_store)
        )
        training.add_done_callback(self.wake)
        self._woken.clear()
        if self._shutdown.begun:
            self.wake()
        try:
            return await self._supervise(training)
        finally:
            if not training.done():
                await cancel(training)
            elif not training.cancelled():
                # asyncio logs an exception that is never retrieved.
                training.exception()
            if self.stores.is_set():
                self.stored_s = asyncio.get_running_loop().time() - self._stores_at
            else:
                self.output = self._trainer.output

    def _begin_to_store(self) -> None:
        # After this the trainer's output is that of the next trial.
        self.output = self._trainer.output
        self._stores_at = asyncio.get_running_loop().time()
        self.stores.set()

    async def _supervise(self, training: asyncio.Task[Ending]) -> Ending | ReleaseReason:
        loop = asyncio.get_running_loop()
        # A very short trial needs no heartbeat; a longer one should be visible soon.
        limit_s = FIRST_BEAT_S
        while True:
            if (deadline := self._shutdown.deadline) is not None:
                limit_s = min(limit_s, max(0.0, deadline - loop.time()))
            asked = self._draining
            if not training.done():
                await self._woken.wait(limit_s)
            if training.done():
                return training.result()
            deadline = self._shutdown.deadline
            # A task that was asked to stop gets one more round, however short the grace period is.
            if asked and deadline is not None and loop.time() >= deadline:
                return self._shutdown.reason
            if (useless := await self._beat()) is not None:
                return useless
            limit_s = self.experiment.timeouts.lease_s / 3
            if self._quick:
                limit_s = min(limit_s, QUICK_BEAT_S)

    async def _beat(self) -> ReleaseReason | None:
        """Send a heartbeat.

        Returns:
            Why the trial's result is no longer needed; None: it is needed.

        Raises:
            LeaseLostError: the lease was lost.
        """
        trial, presence = self.trial, self._presence(self.experiment.name)
        try:
            beat = await self._store.beat(self.lease, trial.slot, trial.id, presence)
        except StoreError as error:
            # The trial goes on: the store may be back before the lease ends.
            self._beats.failed(f"no heartbeat: {error}")
            return None
        self._beats.worked()
        host, process = beat.before.get("host"), beat.before.get("pid")
        if beat.before and (host, process) != (presence.get("host"), presence.get("pid")):
            # This worker has shown its presence already, so another one has done so since.
            text = "process %s on %s is a worker named %s, too: give each worker its own --name"
            log.warning(text, process, host, self.lease.worker)
        if beat.status in ("", "stopped", "finished"):
            return "stopped"
        if not beat.kept:
            raise LeaseLostError
        return "outdated" if beat.outdated else None
