"""Population-based bandits (PB2, Parker-Holder et al. 2020), with scikit-learn's Gaussian process.

Which slot copies which is decided as in truncation PBT. What a copy then tries is not a random
factor of what it copied: a Gaussian process over (hyperparameters, time) learns how much the loss
fell in a step, and the copy takes the place with the highest upper confidence bound on that, given
what its peers try at the same time (GP-BUCB, Desautels et al. 2014). Choices move as in truncation
PBT.
Needs scikit-learn: pip install 'romul[pb2]'.

The paper lets covariance fall with time as ``(1 - epsilon)^(|t - t'| / 2)``, which is an
exponential kernel; here time is one more input of a squared exponential kernel, whose length scales
are all learned (source: this project).
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from romul_actors.core.optimizers.base import Move, View
from romul_actors.core.optimizers.truncation import Truncation
from romul_actors.core.space import Vector
from romul_actors.errors import OptimizerError


@dataclass(frozen=True)
class Pb2(Truncation):
    """PB2's constants; those of the moves of choices are truncation PBT's.

    Attributes:
        startup: steps of training known before the process is used; until then copies are
            perturbed as in truncation PBT.
        window: how many of its latest steps a slot remembers.
        candidates: places of which the best is taken, half of them near the one that was copied.
    """

    name: ClassVar[str] = "pb2"

    startup: int = 8
    window: int = 12
    candidates: int = 1000

    def __post_init__(self) -> None:
        if importlib.util.find_spec("sklearn") is None:
            raise OptimizerError("optimizer 'pb2' needs scikit-learn: pip install 'romul[pb2]'")

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Exploit as truncation PBT does; explore where the process hopes for most."""
        tried = {i: self._tried(view, i) for i in due}
        others = [slot.memory.get("tried", ()) for slot in view.slots if slot.index not in tried]
        rows = np.array([row for rows in (*others, *tried.values()) for row in rows])
        moves = {move.slot: move for move in super().decide(view, due)}
        copies = [i for i in due if moves[i].why["rule"] == "perturbed"]
        if copies and len(rows) >= self.startup:
            moves |= self._explore(view, moves, copies, rows)
        return [
            replace(move, memory={"tried": tried[i], **_before(view, move)})
            for i, move in moves.items()
        ]

    def _tried(self, view: View, i: int) -> list[list[float]]:
        """Rows of slot `i`: step, how much the loss fell in it, vector; the latest last."""
        memory, outcome = view.slots[i].memory, view.known[i]
        rows = list(memory.get("tried", ()))
        if not outcome.failed and "before" in memory:
            rows.append([float(view.step), memory["before"] - outcome.loss, *outcome.vector])
        return rows[-self.window :]

    def _explore(
        self, view: View, moves: Mapping[int, Move], copies: Sequence[int], rows: Vector
    ) -> dict[int, Move]:
        """The moves of `copies`, one after the other, to where the process hopes for most."""
        # Imported here, as all of scikit-learn: it takes a second, and few need it.
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        explored = {}
        # Small matrices: threads would only wait for each other.
        with threadpool_limits(1):
            process = _Process(rows, view.step, view.steps)
            # What the others train with at the next step need not be tried once more.
            for slot in view.slots:
                if slot.step > view.step:
                    process.expect(slot.vector)
            copying = set(copies)
            for i, move in moves.items():
                if i not in copying:
                    process.expect(move.vector)
            for i in copies:
                place, gain = process.best(self._places(view, moves[i]))
                process.expect(place)
                why = {**moves[i].why, "rule": "bandit", "hopes_for": gain}
                explored[i] = replace(moves[i], vector=place, why=why)
        return explored

    def _places(self, view: View, move: Move) -> Vector:
        """Candidates, shape (n, n_dims); choices are as truncation PBT moved them."""
        rng = view.rng(move.slot)
        copied = move.slot if move.source is None else move.source
        center = np.array(view.known[copied].vector)
        shape = (self.candidates // 2, len(center))
        near = np.clip(center + 0.1 * rng.standard_normal(shape), 0.0, 1.0)
        places = np.vstack([rng.random(shape), near])
        axes = list(view.space.choice_axes)
        places[:, axes] = np.array(move.vector)[axes]
        return places

    def moved(
        self, memory: Mapping[str, Any], move: Callable[[Sequence[float]], tuple[float, ...]]
    ) -> Mapping[str, Any]:
        """Move what was tried as well."""
        tried = [[step, gain, *move(vector)] for step, gain, *vector in memory.get("tried", ())]
        return {**memory, "tried": tried} if tried else memory


def _before(view: View, move: Move) -> dict[str, float]:
    """Loss of the checkpoint that a move goes on from, if there is one."""
    return {} if move.source is None else {"before": view.known[move.source].loss}


class _Process:
    """A Gaussian process of the loss's fall in a step, over vectors and time.

    Args:
        rows: step, fall, vector; shape (n, 2 + n_dims).
        step: the step that was ended.
        steps: of the experiment.
    """

    def __init__(self, rows: Vector, step: int, steps: int) -> None:
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
        from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415
        from sklearn.gaussian_process.kernels import (  # noqa: PLC0415
            RBF,
            ConstantKernel,
            WhiteKernel,
        )

        self.now = (step + 1) / steps
        self.x = np.column_stack([rows[:, 2:], rows[:, 0] / steps])
        fall = rows[:, 1]
        # A step that diverged must not make all others look alike.
        low, middle = np.quantile(fall, [0.1, 0.5])
        self.y = np.maximum(fall, middle - 3.0 * max(middle - low, 1e-12))
        scales = np.full(self.x.shape[1], 0.3)
        kernel = ConstantKernel(1.0) * RBF(scales, (0.05, 10.0)) + WhiteKernel(0.1, (1e-4, 1.0))
        self.process = GaussianProcessRegressor(kernel, normalize_y=True)
        with warnings.catch_warnings():
            # Length scales at their bounds are what dimensions without effect come to.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.process.fit(self.x, self.y)
        self.process.set_params(kernel=self.process.kernel_, optimizer=None)

    def expect(self, vector: Sequence[float]) -> None:
        """Take it that a peer's trial falls as expected: less is to be learned there."""
        place = np.array([[*vector, self.now]])
        self.x = np.vstack([self.x, place])
        self.y = np.append(self.y, self.process.predict(place))
        self.process.fit(self.x, self.y)

    def best(self, places: Vector) -> tuple[tuple[float, ...], float]:
        """The place, of shape (n, n_dims), with the highest upper confidence bound, and that."""
        at = np.column_stack([places, np.full(len(places), self.now)])
        mean, deviation = self.process.predict(at, return_std=True)
        # The growing weight of uncertainty that the paper's experiments use.
        bound = mean + math.sqrt(0.2 + math.log(max(1.0, 0.4 * len(self.y)))) * deviation
        best = int(np.argmax(bound))
        return tuple(places[best].tolist()), float(bound[best])
