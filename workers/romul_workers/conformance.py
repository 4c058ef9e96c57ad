"""Tests on this machine whether a task is fit for population based training (`romul check`).

Mistakes in a task are often silent: a checkpoint that is not read, a restored learning rate that
replaces the trial's own, generators that are not seeded. Each check here looks for one of them.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from romul_actors.core.events import TrialMessage
from romul_actors.errors import RomulError
from romul_actors.protocol.experiment import Experiment
from romul_actors.waiting import cancel
from romul_workers.child.figures import in_words
from romul_workers.child.trainer import ChildTrainer
from romul_workers.trainer import Ending, Failure, Stopped, Success
from romul_workers.trial import Value

LOW, MIDDLE, HIGH = 0.2, 0.5, 0.8
"""Values of a hyperparameter that are compared, as coordinates from 0 to 1."""
STOP_AFTER_S = 0.5
"""When `should_stop` is set, in seconds after the start of the trial."""
SHORT_S = 1.0
"""A task with shorter steps, in seconds, need not stop: little is lost."""
LONGER = 1000.0
"""Budget of the trial in which `should_stop` is set, as a multiple of a step's budget."""

Observation = tuple[float, tuple[tuple[str, float], ...]]


class BrokenTaskError(RomulError):
    """The task failed while it was checked."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        level: "ok", "warning" (it costs time or is unusual) or "fault" (results would be wrong).
        found: what was found, as a sentence.
    """

    name: str
    level: Literal["ok", "warning", "fault"]
    found: str


class Examination:
    """Checks a task.

    Args:
        experiment: the declaration; it needs a folder for checkpoints.
        trainer: trains the trials.
        grace_s: how long a trial may go on after `should_stop` was set, in seconds.
        on_check: called with each check when it is done.
        longer: a real step's budget, as a multiple of the budget of `experiment`.

    Attributes:
        checks: the checks done so far.
    """

    def __init__(
        self,
        experiment: Experiment,
        trainer: ChildTrainer,
        grace_s: float = 10.0,
        on_check: Callable[[Check], None] = lambda _: None,
        longer: float = 1.0,
    ) -> None:
        self._experiment = experiment
        self._trainer = trainer
        self._grace_s = grace_s
        self._on_check = on_check
        self._space = experiment.search_space()
        self._left_out: dict[str, str] = {}
        self._unsteady: set[str] = set()
        self._step_s = math.inf
        self._longer = longer
        self.checks: list[Check] = []

    def _add(self, name: str, level: Literal["ok", "warning", "fault"], found: str) -> None:
        check = Check(name, level, found)
        self.checks.append(check)
        self._on_check(check)

    def _values(self, places: Mapping[int, float] | None = None) -> dict[str, Value]:
        n = len(self._space)
        return self._space.decode(tuple((places or {}).get(i, MIDDLE) for i in range(n)))

    async def _train(
        self,
        step: int,
        parent: str | None,
        places: Mapping[int, float] | None = None,
        seed: int = 1,
        longer: float = 1.0,
    ) -> Ending:
        budget = self._experiment.budget
        trial = TrialMessage(
            id=f"0-{step}",
            slot=0,
            step=step,
            attempt=1,
            hyperparameters=self._values(places),
            parent=parent,
            start=step * budget,
            stop=(step + longer) * budget,
            seed=seed,
        )
        return await self._trainer.train(self._experiment, trial)

    async def _result(
        self, step: int, parent: str | None, places: Mapping[int, float] | None = None
    ) -> tuple[Observation, str]:
        began = time.monotonic()
        ending = await self._train(step, parent, places)
        if isinstance(ending, Failure):
            raise BrokenTaskError(f"{ending.reason}: {ending.message}")
        if not isinstance(ending, Success):
            raise BrokenTaskError(f"the task ended with {ending}, but was not asked to stop")
        # The minimum, because the first trial also imports the task.
        self._step_s = min(self._step_s, time.monotonic() - began)
        self._left_out = {**ending.left_out, **self._left_out}
        return self._steady(
            (ending.value, tuple(sorted(ending.metrics.items())))
        ), ending.checkpoint

    def _steady(self, seen: Observation) -> Observation:
        """Remove figures that differ between identical trials, such as times."""
        return seen[0], tuple(figure for figure in seen[1] if figure[0] not in self._unsteady)

    async def run(self) -> list[Check]:
        """Run all checks; stop at the first failure of the task itself."""
        try:
            first, checkpoint = await self._result(0, None)
            self._add("trains", "ok", f"{self._experiment.metric} = {first[0]:.6g} after one step")
            on, _ = await self._result(1, checkpoint)
            self._add("goes on", "ok", f"{self._experiment.metric} = {on[0]:.6g} after two steps")
            await self._same(first, on, checkpoint)
            first, on = self._steady(first), self._steady(on)
            await self._reads_its_parent(on)
            await self._hyperparameters(first, on, checkpoint)
            if self._left_out:
                self._add("returns figures", "warning", in_words(self._left_out))
            await self._stops(checkpoint)
        except BrokenTaskError as error:
            self._add("trains", "fault", str(error))
        return self.checks

    async def _same(self, first: Observation, on: Observation, checkpoint: str) -> None:
        again, _ = await self._result(0, None)
        on_again, _ = await self._result(1, checkpoint)
        name = "same seed, same result"
        one, other = (first, again) if first[0] != again[0] else (on, on_again)
        if one[0] != other[0]:
            self._add(
                name,
                "fault",
                f"the same trial gave {one[0]!r} and {other[0]!r}: seed all random generators with "
                "trial.seed, so that a repeated attempt has the same result",
            )
            return
        differing = ({*first[1]} ^ {*again[1]}) | ({*on[1]} ^ {*on_again[1]})
        self._unsteady = {figure for figure, _ in differing}
        if self._unsteady:
            self._add(
                name,
                "warning",
                f"{self._experiment.metric} was the same in both runs, but other figures differed: "
                f"{', '.join(sorted(self._unsteady))}; the other checks ignore them",
            )
            return
        self._add(
            name, "ok", "repeated trials gave the same result, from scratch and after a restore"
        )

    async def _reads_its_parent(self, on: Observation) -> None:
        unread = []
        try:
            unread.append((await self._result(1, None))[0])
        except BrokenTaskError as error:
            # A task that fails without a parent reads its parent.
            self._add(
                "begins anew later on",
                "warning",
                "without a parent, the task does not train from "
                f"{self._experiment.budget:g} on; a slot that joins, or whose trials failed, may "
                f"begin there: {error}",
            )
        # Only mutable ones: the value of the others is part of a checkpoint.
        free = self._space.free((MIDDLE,) * len(self._space))
        if any(free):
            other_start = {i: LOW for i, moves in enumerate(free) if moves}
            _, other = await self._result(0, None, other_start)
            unread.append((await self._result(1, other))[0])
        if on in unread:
            self._add(
                "reads its parent",
                "fault",
                "the parent makes no difference to the result: does the task read trial.parent?",
            )
        else:
            found = "a different parent leads to a different result"
            self._add("reads its parent", "ok", found if unread else "the task fails without one")

    async def _acts(
        self, i: int, first: Observation, on: Observation, checkpoint: str
    ) -> tuple[bool, bool]:
        """Whether a coordinate makes a difference from scratch, and whether after a restore.

        A coordinate with a condition is tested where the condition holds; its results are compared
        only with each other. A coordinate that is not mutable has only one value after a restore,
        so the result from scratch counts for both.
        """
        mutable = self._space.mutable
        here = self._space.switched_on((MIDDLE,) * len(self._space), i)
        others = {c: place for c, place in enumerate(here) if place != MIDDLE}
        places = [{**others, i: place} for place in (LOW, HIGH)]
        scratch = [(await self._result(0, None, place))[0] for place in places]
        acts_first = len({*scratch} if others else {first, *scratch}) > 1
        if not mutable[i]:
            return acts_first, acts_first
        if not all(mutable[c] for c in others):
            _, checkpoint = await self._result(0, None, others)
        restored = [(await self._result(1, checkpoint, place))[0] for place in places]
        return acts_first, len({*restored} if others else {on, *restored}) > 1

    async def _hyperparameters(self, first: Observation, on: Observation, checkpoint: str) -> None:
        lost, idle = [], []
        for i, axis in enumerate(self._space):
            acts_first, acts_later = await self._acts(i, first, on, checkpoint)
            if acts_first and not acts_later:
                lost.append(axis.name)
            elif not acts_later:
                idle.append(axis.name)
        if lost:
            self._add(
                "hyperparameters take effect after a restore",
                "fault",
                f"{', '.join(lost)}: effective from scratch, but not after a restore: apply "
                "hyperparameters after loading the optimizer's state (trial.attach does)",
            )
        else:
            self._add(
                "hyperparameters take effect after a restore", "ok", "all that have an effect"
            )
        if idle:
            everything = len(idle) == len(self._space)
            self._add(
                "hyperparameters have an effect",
                "fault" if everything else "warning",
                f"{', '.join(idle)}: no effect on any figure within one step",
            )

    async def _stops(self, checkpoint: str) -> None:
        training = asyncio.create_task(self._train(1, checkpoint, longer=LONGER))
        await asyncio.wait({training}, timeout=STOP_AFTER_S)
        self._trainer.ask_to_stop()
        await asyncio.wait({training}, timeout=self._grace_s)
        name = "stops when asked"
        # A step of the real budget, which may be larger than the one that was tried.
        step_s = self._step_s * self._longer
        if not training.done():
            await cancel(training)
            if step_s < SHORT_S:
                self._add(name, "ok", f"it does not stop, but a step takes only {step_s:.2g} s")
                return
            self._add(
                name,
                "fault",
                f"in a step of {LONGER:g} times the budget, the task still trained "
                f"{self._grace_s:g} s after it was asked to stop: read trial.should_stop every few "
                "seconds; otherwise the training of a preempted trial is lost",
            )
            return
        ending = training.result()
        if isinstance(ending, Stopped) and ending.checkpoint is not None:
            self._add(name, "ok", f"paused at {ending.at:g}; the next attempt continues from there")
        elif isinstance(ending, Stopped):
            self._add(
                name,
                "warning",
                ending.message
                or "it stops but saves nothing: return trial.pause(...) to keep what was trained",
            )
        elif isinstance(ending, Failure):
            self._add(name, "fault", f"{ending.reason}: {ending.message}")
        else:
            level: Literal["ok", "warning"] = "ok" if step_s < SHORT_S else "warning"
            self._add(name, level, "the trial ended before it could be asked to stop")
