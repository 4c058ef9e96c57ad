"""One leased trial: trained and stored while heartbeats keep its lease.

An attempt knows its own lease only. It ends when its checkpoint is stored, with the worker's grace
period, or with the lease; what is reported then is `reporting.py`'s matter.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from romul_actors.core.events import ReleaseReason, TrialMessage
from romul_actors.errors import StoreError
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Lease, WorkerStore
from romul_actors.waiting import Wakeup, cancel
from romul_workers.shutdown import Shutdown
from romul_workers.trainer import Ending, Trainer

log = logging.getLogger("romul.worker")

FIRST_BEAT_S = 0.2
QUICK_BEAT_S = 0.4
"""Time between heartbeats while the broker is lost, which would otherwise stand for them."""

Presence = Mapping[str, str | int | float]


class LeaseLostError(Exception):
    """The lease belongs to another worker, or to the actor, now."""


class Attempt:
    """One leased trial.

    Args:
        store: where its lease is.
        trainer: what trains it.
        lease: the lease.
        experiment: the trial's experiment.
        trial: the trial.
        shutdown: of the worker.
        presence: what heartbeats say of the worker; is called with the experiment's name.

    Attributes:
        lease, experiment, trial: as above.
        output: what the task printed, as far as the trainer knows.
        stores: is set once all that is left to do is to store the checkpoint.
        stored_s: how long that took, or took until the attempt was ended; None: it did not begin.
        beside: whether the worker may train another trial meanwhile.
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
        self._woken = Wakeup()
        """Is set while there is something to look at."""

    @property
    def storing(self) -> bool:
        """Whether its checkpoint is being stored, and another trial may be trained meanwhile."""
        return self.beside and self.stores.is_set()

    @property
    def state(self) -> str:
        """Draining, once the grace period has begun; else storing (see above), or training."""
        if self._draining:
            return "draining"
        return "storing" if self.storing else "training"

    def beat_quickly(self, *, quick: bool) -> None:
        """Send heartbeats quickly or not; one goes out at once, not after the pause under way.

        A worker that is taken for dead can still prove the opposite; one that was taken for dead
        learns of it.
        """
        self._quick = quick
        self.wake()

    def wake(self, _: object = None) -> None:
        """Look at once at what has changed.

        When the worker's end has begun, the task is asked to stop here: a heartbeat under way may
        hang for longer than the grace period.
        """
        self._woken.set()
        if self._shutdown.begun and not self._draining:
            self._draining = True
            if not self.stores.is_set():
                self._trainer.ask_to_stop()

    async def run(self) -> Ending | ReleaseReason:
        """Train and store while heartbeats go out.

        Returns:
            How the training ended, or why it was ended: no result of it is of use any more, or it
            took longer than the grace period.

        Raises:
            LeaseLostError: the lease was lost; the training is ended.
        """
        training = asyncio.create_task(
            self._trainer.train(self.experiment, self.trial, self._begin_to_store)
        )
        training.add_done_callback(self.wake)
        # What is new from here on.
        self._woken.clear()
        if self._shutdown.begun:
            self.wake()
        try:
            return await self._supervise(training)
        finally:
            if not training.done():
                await cancel(training)
            elif not training.cancelled():
                # Looked at, even where no caller waits for it any more: asyncio would complain.
                training.exception()
            if self.stores.is_set():
                self.stored_s = asyncio.get_running_loop().time() - self._stores_at
            else:
                self.output = self._trainer.output

    def _begin_to_store(self) -> None:
        # From here on the trainer speaks of the next trial.
        self.output = self._trainer.output
        self._stores_at = asyncio.get_running_loop().time()
        self.stores.set()

    async def _supervise(self, training: asyncio.Task[Ending]) -> Ending | ReleaseReason:
        loop = asyncio.get_running_loop()
        # A trial of an instant needs no heartbeat; a longer one is to be seen soon.
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
            # A task that was asked just now has a moment, however short the grace period is.
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
            Why no result of the trial is of use any more; None: it is.

        Raises:
            LeaseLostError: the lease was lost.
        """
        trial, experiment = self.trial, self.experiment.name
        try:
            beat = await self._store.beat(
                self.lease, trial.slot, trial.id, self._presence(experiment)
            )
        except StoreError as error:
            # The trial goes on: the store may be back before the lease has ended.
            log.warning("no heartbeat: %s", error)
            return None
        if beat.status in ("", "stopped", "finished"):
            return "stopped"
        if not beat.kept:
            raise LeaseLostError
        return "outdated" if beat.outdated else None
