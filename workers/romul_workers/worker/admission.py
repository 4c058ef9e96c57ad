"""Which experiments a worker serves, and in which order it claims trials from them.

A worker admits an experiment if the worker's settings (names, task modules) allow it, and serves it
while the experiment's status allows. The store decides which trial of an experiment a claim gets.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from romul_actors.errors import ExperimentError, StoreError, StoreUnavailableError
from romul_actors.protocol.experiment import Experiment, from_json
from romul_actors.protocol.statuses import OVER
from romul_actors.protocol.trial_fit import Parameters, declared_parameters
from romul_actors.store import WorkerStore

log = logging.getLogger("romul.worker")

LEFT_S = 60.0
"""How long a worker stays away from an experiment whose trials it cannot read, in seconds."""


class Admission:
    """The experiments of one worker.

    Args:
        store: holds the experiments.
        worker: the worker's name.
        names: name patterns of the experiments that it serves.
        modules: patterns of the task modules that it may import.
        forget: called with the name of each experiment that was removed or replaced.
    """

    def __init__(
        self,
        store: WorkerStore,
        worker: str,
        names: Sequence[str],
        modules: Sequence[str],
        forget: Callable[[str], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._names = names
        self._modules = modules
        self._allowed: set[str] = set()
        """Task modules that are known to match one of the patterns."""
        self._forget = forget
        self._statuses: Mapping[str, str] = {}
        self._texts: dict[str, str] = {}
        """Declarations as they were last read, by experiment."""
        self._admitted: dict[str, bool] = {}
        self._served: list[str] = []
        self._claims: list[str] = []
        self._refused: dict[str, str] = {}
        self._left: dict[str, tuple[str, float]] = {}
        """Experiments that the worker stays away from: why, and until when by the loop's clock."""

    @property
    def admitted(self) -> list[str]:
        """Experiments that the settings admit, whatever their status."""
        return [name for name in self._statuses if self._admitted.get(name)]

    @property
    def served(self) -> list[str]:
        """Admitted experiments that have not ended; the worker shows its presence in them."""
        return list(self._served)

    @property
    def refused(self) -> dict[str, str]:
        """Why the worker does not serve experiments that match its name patterns, by name."""
        return {n: why for n, why in self._refused.items() if self._statuses.get(n) not in OVER}

    @property
    def claims(self) -> list[str]:
        """Served experiments that may have trials, in the order in which to claim from them."""
        return list(self._claims)

    async def refresh(self) -> None:
        """Read the list of experiments, and leave those that are no longer served.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        statuses = await self._store.experiments()
        if statuses != self._statuses or self._admitted.keys() != statuses.keys():
            await self._update(statuses)
            self._statuses = statuses

    async def _update(self, statuses: Mapping[str, str]) -> None:
        before = [*self._served, *self.refused]
        for name in statuses.keys() - self._admitted.keys():
            try:
                self._admitted[name] = await self._admits(name)
            except StoreUnavailableError:
                raise
            except (StoreError, ExperimentError) as error:
                # Tried again at the next refresh, because it may be repaired by then.
                self._refuse(name, str(error))
        known = self._admitted.keys() | self._refused.keys() | self._texts.keys()
        for name in known - statuses.keys():
            self._admitted.pop(name, None)
            self._refused.pop(name, None)
            self._texts.pop(name, None)
            self._left.pop(name, None)
            self._forget(name)
        ours = {name: status for name, status in statuses.items() if self._admitted.get(name)}
        self._served = [n for n, status in ours.items() if status not in OVER]
        running = [n for n in self._served if ours[n] in ("submitted", "running")]
        kept = [name for name in self._claims if name in running]
        self._claims = kept + [name for name in running if name not in kept]
        shown = [*self._served, *(n for n in self._refused if statuses[n] not in OVER)]
        left = [name for name in before if name not in shown]
        await self._store.present(left, self._worker, {})

    async def _admits(self, name: str) -> bool:
        if not any(fnmatchcase(name, pattern) for pattern in self._names):
            return False
        why, until = self._left.get(name, ("", float("-inf")))
        if asyncio.get_running_loop().time() < until:
            raise ExperimentError(why)
        if why := self._forbidden(await self.declaration(name)):
            return self._refuse(name, why)
        self._refused.pop(name, None)
        return True

    def _forbidden(self, experiment: Experiment) -> str:
        """Why the experiment's task may not be imported here; "": it may."""
        module = experiment.module
        if module in self._allowed:
            return ""
        if any(fnmatchcase(module, pattern) for pattern in self._modules):
            self._allowed.add(module)
            return ""
        return f"task module {module!r} is not allowed here (--allow {module})"

    def _refuse(self, name: str, why: str) -> bool:
        if name not in self._refused:
            log.warning("experiment %s is not served: %s", name, why)
        self._refused[name] = why
        return False

    async def declaration(self, name: str) -> Experiment:
        """Read an experiment's current declaration.

        Raises:
            UnknownExperimentError: there is none of that name.
            ExperimentError: the declaration cannot be read.
        """
        text = await self._store.spec(name)
        if (before := self._texts.get(name)) != text:
            # Changed, or another experiment of that name: it must be admitted again.
            self._texts[name] = text
            self._admitted.pop(name, None)
            if before is not None:
                self._forget(name)
        return from_json(text)

    async def leased(self, name: str) -> Experiment:
        """Read the current declaration of an experiment of which the worker has a trial.

        Raises:
            UnknownExperimentError: there is none of that name.
            ExperimentError: the declaration cannot be read. Or it has changed since the experiment
                was admitted, and now names a task module that may not be imported here.
        """
        experiment = await self.declaration(name)
        if why := self._forbidden(experiment):
            raise ExperimentError(why)
        return experiment

    def parameters(self, name: str) -> Parameters | None:
        """The parameters of the declaration as it was last read; None: it has no space."""
        return declared_parameters(self._texts[name])

    def leave(self, name: str, why: str) -> None:
        """Stay away from an experiment for `LEFT_S`, from the next refresh on."""
        self._left[name] = why, asyncio.get_running_loop().time() + LEFT_S
        self._admitted.pop(name, None)

    def claimed(self, name: str) -> None:
        """Move an experiment that gave a trial to the end of the order, so that all get a turn."""
        self._claims.remove(name)
        self._claims.append(name)
