"""Removes garbage: checkpoints that no decision can need any more."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from functools import partial

from romul_actors.errors import CheckpointError, ExperimentError, StoreError, StoreUnavailableError
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import WorkerStore
from romul_workers.checkpoints.detached import detached
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.checkpoints.storage import Checkpoints
from romul_workers.trainer import Trainer
from romul_workers.worker.admission import Admission

log = logging.getLogger("romul.worker")

EVERY = 10
"""A worker looks for garbage at intervals of this number times `pace_s`."""
FOR_S = 1.0
"""How long a worker removes garbage of one experiment at a time, in seconds."""
ALL_S = 10.0
"""How long the removal of an experiment's garbage may take at the end of a run, in seconds."""
AT_ONCE = 32
"""Most checkpoints that are read from the store's list at a time."""


class Collector:
    """Collects the garbage of a worker's experiments.

    Args:
        store: lists the garbage.
        trainer: removes checkpoints.
        admission: the worker's experiments.
        garbage_ms: how long garbage is kept, in milliseconds.
        pace_s: the worker's longest wait for a trial, in seconds.
    """

    def __init__(
        self,
        store: WorkerStore,
        trainer: Trainer,
        admission: Admission,
        garbage_ms: int,
        pace_s: float,
    ) -> None:
        self._store = store
        self._trainer = trainer
        self._admission = admission
        self._garbage_ms = garbage_ms
        self._every_s = EVERY * pace_s
        self._collected = float("-inf")
        self._refused: dict[str, str] = {}

    async def collect(self, now: float) -> None:
        """Remove garbage of all admitted experiments, unless that was done recently.

        Args:
            now: the time by the loop's clock.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        if now - self._collected < self._every_s:
            return
        self._collected = now
        for experiment in self._admission.admitted:
            try:
                await self._collect(experiment)
            except StoreUnavailableError:
                raise
            except (StoreError, ExperimentError, CheckpointError) as error:
                if self._refused.get(experiment) != str(error):
                    log.warning("%s: its garbage stays: %s", experiment, error)
                self._refused[experiment] = str(error)
            else:
                self._refused.pop(experiment, None)

    async def _collect(self, name: str) -> None:
        # A checkpoint stays in the list until it is removed, so that another worker can take over
        # if this one is killed or its storage does not answer.
        loop = asyncio.get_running_loop()
        ends = loop.time() + FOR_S
        while names := await self._store.garbage(name, self._garbage_ms, AT_ONCE):
            experiment = await self._admission.declaration(name)
            removed, stays = [], None
            for checkpoint in names:
                try:
                    await self._trainer.discard(experiment, checkpoint)
                except CheckpointError as error:
                    stays = error
                else:
                    removed.append(checkpoint)
                if loop.time() >= ends:
                    break
            await self._store.forget(name, removed)
            if stays is not None:
                raise stays
            if loop.time() >= ends:
                return


async def collect_all(store: WorkerStore, experiments: Sequence[Experiment]) -> None:
    """Remove all garbage of experiments whose run has ended.

    For each experiment this takes `ALL_S` at most, and it stops if the store or the checkpoints'
    storage does not answer. Garbage that remains is still listed; workers of a later run remove it.
    """
    removed: list[str] = []
    for experiment in experiments:
        try:
            async with asyncio.timeout(ALL_S):
                await _collect_into(removed, store, experiment)
        except (StoreError, CheckpointError, OSError, TimeoutError) as error:
            log.debug("%s: garbage stays: %r", experiment.name, error)
            with contextlib.suppress(StoreError):
                await store.forget(experiment.name, removed)


async def _collect_into(removed: list[str], store: WorkerStore, experiment: Experiment) -> None:
    """Remove all garbage of an experiment; `removed` collects what is removed but still listed."""
    removed.clear()
    if (where := experiment.checkpoints) is None:
        return
    with scratch_folder() as scratch:
        place = await detached(partial(Checkpoints, where, scratch))
        while names := await store.garbage(experiment.name, 0, AT_ONCE):
            for name in names:
                await detached(partial(place.delete, name))
                removed.append(name)
            await store.forget(experiment.name, names)
            removed.clear()
