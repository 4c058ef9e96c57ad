"""The second lease: a checkpoint is stored while the worker trains another trial.

A worker has two leases at most: one of the trial in training, and one of a trial whose checkpoint
is being stored. It takes the second lease if all of these hold:

- The experiment's last `TIMES` checkpoints each took `LEAST_S` or more to store. One slow flush of
  a busy disk proves nothing, and if storing takes milliseconds, nothing is gained. An operator can
  switch the second lease on or off instead.
- There is room for the other trial's checkpoint (`Trainer.has_room`).
- `max_trials`, if set, is not reached.
- The worker's shutdown has not begun.

A report waits only for its own checkpoint. A worker that ends waits for both attempts, within the
grace period.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from romul_actors.waiting import cancel
from romul_workers.worker.attempt import Attempt

LEAST_S = 0.2
TIMES = 3
LOOK_S = 0.1
"""Longest wait for a trial while a checkpoint is being stored, in seconds."""


class Overlap:
    """The leases of one worker that are served beside its loop.

    Args:
        wanted: whether checkpoints are stored while other trials train; None: if storing is slow.
    """

    def __init__(self, wanted: bool | None) -> None:  # noqa: FBT001
        self._wanted = wanted
        self._slow: dict[str, int] = {}
        self._serving: list[asyncio.Task[None]] = []

    @property
    def busy(self) -> bool:
        """Whether a trial that is served beside the loop has not been reported yet."""
        return bool(self._serving)

    def pays(self, experiment: str) -> bool:
        """Whether checkpoints of an experiment are stored while other trials train."""
        if self._wanted is not None:
            return self._wanted
        return self._slow.get(experiment, 0) >= TIMES

    def took(self, experiment: str, seconds: float | None) -> None:
        """Remember how long a checkpoint took to store, in seconds; None: there was none."""
        if seconds is not None:
            slow = seconds >= LEAST_S
            self._slow[experiment] = self._slow.get(experiment, 0) + 1 if slow else 0

    def forget(self, experiment: str) -> None:
        """Forget an experiment: it was removed, or another one has its name."""
        self._slow.pop(experiment, None)

    async def serve(self, attempt: Attempt, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a trial until it is reported, or until another one may be trained.

        Args:
            attempt: the attempt at the trial.
            serving: trains, stores and reports the trial.

        Raises:
            Exception: whatever `serving` raises, or a trial that was served beside it.
        """
        attempt.beside = self.pays(attempt.experiment.name)
        if not attempt.beside:
            await serving
            return
        task = asyncio.create_task(serving)
        self._serving.append(task)
        trained = asyncio.create_task(attempt.stores.wait())
        try:
            await asyncio.wait({task, trained}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            trained.cancel()
        if len(self._serving) > 1:
            # No third lease: one of the two trials must be reported first.
            await self.wait()
        self.reap()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for the report of a trial, for `seconds` at most; do not wait if there is none."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def reap(self) -> None:
        """Remove trials that have been served.

        Raises:
            Exception: whatever the first of them raised.
        """
        for task in [task for task in self._serving if task.done()]:
            self._serving.remove(task)
            task.result()

    async def close(self) -> None:
        """Cancel trials that are still served."""
        serving, self._serving = self._serving, []
        await cancel(*serving)
