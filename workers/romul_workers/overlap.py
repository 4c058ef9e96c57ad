"""The second lease: a checkpoint is stored while the worker trains another trial.

A worker has two leases at most: of the trial in training, and of one whose checkpoint is on its
way. It takes the second one

- if the experiment's last `TIMES` checkpoints each took `LEAST_S` to store: one slow flush of a
  busy disk says nothing, and where storing takes milliseconds nothing is gained. An operator may
  say always, or never;
- if there is room for the other trial's checkpoint meanwhile (`Trainer.has_room`);
- if the worker is to end after so many trials, only within that number;
- if the worker has not begun to end.

A report waits for its own checkpoint, and for nothing else. What a worker that ends waits for are
both: each attempt has the grace period.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from romul_actors.waiting import cancel
from romul_workers.attempt import Attempt

LEAST_S = 0.2
TIMES = 3
LOOK_S = 0.1
"""How long the store is asked for another trial at a time, while a checkpoint is stored."""


class Overlap:
    """One worker's leases that are served beside its loop.

    Args:
        wanted: whether a checkpoint may be stored beside other trials; None: where that pays.
    """

    def __init__(self, wanted: bool | None) -> None:  # noqa: FBT001
        self._wanted = wanted
        self._slow: dict[str, int] = {}
        self._serving: list[asyncio.Task[None]] = []

    @property
    def busy(self) -> bool:
        """Whether a trial is still to be reported."""
        return bool(self._serving)

    def pays(self, experiment: str) -> bool:
        """Whether checkpoints of an experiment are stored beside other trials."""
        if self._wanted is not None:
            return self._wanted
        return self._slow.get(experiment, 0) >= TIMES

    def took(self, experiment: str, seconds: float | None) -> None:
        """Remember how long it took to store a checkpoint; None: there was none."""
        if seconds is not None:
            slow = seconds >= LEAST_S
            self._slow[experiment] = self._slow.get(experiment, 0) + 1 if slow else 0

    def forget(self, experiment: str) -> None:
        """Begin anew with an experiment of that name."""
        self._slow.pop(experiment, None)

    async def serve(self, attempt: Attempt, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a trial until it is reported, or until another one may be trained.

        Args:
            attempt: the trial's.
            serving: what trains, stores and reports it.

        Raises:
            Exception: whatever `serving` raises, or another one's that was served beside it.
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
            # No third lease: the earlier trial is to be reported first, or this one.
            await self.wait()
        self.reap()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until a trial is reported, or so long; not at all if there is none."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def reap(self) -> None:
        """Look at what has ended.

        Raises:
            Exception: whatever the first of them raised.
        """
        for task in [task for task in self._serving if task.done()]:
            self._serving.remove(task)
            task.result()

    async def close(self) -> None:
        """End what is still served."""
        serving, self._serving = self._serving, []
        await cancel(*serving)
