"""Population-based bandits (PB2, Parker-Holder et al. 2020), with scikit-learn's Gaussian process.

Which slot copies which is decided as in truncation PBT. But a copy does not multiply its
hyperparameters by random factors. Instead, a Gaussian process over hyperparameters, time and the
loss at the beginning of a step learns how much the loss falls in a step. The copy takes the vector
with the highest upper confidence bound of that fall, given what other slots try at the same time
(GP-BUCB, Desautels et al. 2014). Choices move as in truncation PBT. It needs scikit-learn:
``pip install 'romul[pb2]'``.

In the paper, covariance decreases with time as ``(1 - epsilon)^(|t - t'| / 2)``, an exponential
kernel. Here, time is one more input of a squared exponential kernel, whose length scales are all
learned (source: this project). For a comparison with the authors' code, see docs/rivals.md.
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

SURELY = 2.0
"""Falls are clipped to this many standard deviations from their mean, as in the authors' code."""
LARGEST = 1e100
"""Losses are clipped to this magnitude, so that squares of their differences stay finite."""


@dataclass(frozen=True)
class Pb2(Truncation):
    """Constants of PB2. `resample`, `down` and `up` apply to choices and to the first steps.

    Attributes:
        truncation: share of the population that copies, and share that is copied.
        startup: number of observed steps from which the Gaussian process is used; before, copies
            are perturbed as in truncation PBT.
        window: number of its latest steps that a slot remembers.
        candidates: number of vectors from which the best is chosen; half of them are near the
            copied one.
    """

    name: ClassVar[str] = "pb2"

    truncation: float = 0.25
    startup: int = 8
    window: int = 12
    candidates: int = 1000

    def __post_init__(self) -> None:
        if importlib.util.find_spec("sklearn") is None:
            raise OptimizerError("optimizer 'pb2' needs scikit-learn: pip install 'romul[pb2]'")

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Exploit as truncation PBT does; explore by the upper confidence bound."""
        falls = {i: self._falls(view, i) for i in due}
        others = [slot.memory.get("falls", ()) for slot in view.slots if slot.index not in falls]
        rows = np.array([row for rows in (*others, *falls.values()) for row in rows])
        # An older version may have stored larger values.
        rows = np.clip(rows, -LARGEST, LARGEST)
        moves = {move.slot: move for move in super().decide(view, due)}
        copies = [i for i in due if moves[i].why["rule"] == "perturbed"]
        if copies and len(rows) >= self.startup:
            moves |= self._explore(view, moves, copies, rows)
        return [
            replace(move, memory={"falls": falls[i], **_before(view, move)})
            for i, move in moves.items()
        ]

    def _falls(self, view: View, i: int) -> list[list[float]]:
        """Rows of slot `i`: step, loss before it, fall of the loss, vector; the latest last."""
        memory, outcome = view.slots[i].memory, view.known[i]
        rows = list(memory.get("falls", ()))
        if not outcome.failed and "before" in memory:
            before, loss = _bounded(memory["before"]), _bounded(outcome.loss)
            rows.append([float(view.step), before, before - loss, *outcome.vector])
        return rows[-self.window :]

    def _explore(
        self, view: View, moves: Mapping[int, Move], copies: Sequence[int], rows: Vector
    ) -> dict[int, Move]:
        """The moves of the slots `copies`, each to its best candidate, one after the other."""
        # Imported here, like scikit-learn: it takes a second, and few searches need it.
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        explored = {}
        # The matrices are small: more threads would only wait for each other.
        with threadpool_limits(1):
            process = _Process(rows, view.step, view.steps)
            # Vectors that other slots already try at the next step count as expected.
            for slot in view.slots:
                if slot.step > view.step:
                    process.expect(slot.vector, slot.memory.get("before"))
            copying = set(copies)
            for i, move in moves.items():
                if i not in copying:
                    process.expect(move.vector, _before(view, move).get("before"))
            for i in copies:
                before = _before(view, moves[i]).get("before")
                place, gain = process.best(self._places(view, moves[i]), before)
                process.expect(place, before)
                why = {**moves[i].why, "rule": "bandit", "hopes_for": gain}
                explored[i] = replace(moves[i], vector=place, why=why)
        return explored

    def _places(self, view: View, move: Move) -> Vector:
        """Candidate vectors, shape (n, n_dims), with the choices from truncation PBT."""
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
        """Convert the remembered vectors too."""
        rows = memory.get("falls", ())
        falls = [[step, before, fall, *move(vector)] for step, before, fall, *vector in rows]
        return {**memory, "falls": falls} if falls else memory


def _before(view: View, move: Move) -> dict[str, float]:
    """The loss of the checkpoint from which a move continues, if there is one."""
    return {} if move.source is None else {"before": _bounded(view.known[move.source].loss)}


def _bounded(loss: float) -> float:
    return min(max(loss, -LARGEST), LARGEST)


class _Process:
    """A Gaussian process for the fall of the loss in a step, by vector, time and loss before.

    Args:
        rows: step, loss before, fall, vector; shape (n, 3 + n_dims).
        step: the step that has ended.
        steps: number of steps that a slot is expected to reach.
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
        # A diverged slot must not compress the scale of all others.
        levels: list[float] = np.quantile(rows[:, 1], [0.0, 0.5, 0.9]).tolist()
        self.low, self.middle, self.high = levels
        befores = [self._place_of(before) for before in rows[:, 1].tolist()]
        self.x = np.column_stack([rows[:, 3:], rows[:, 0] / steps, befores])
        fall = rows[:, 2]
        low, middle = np.quantile(fall, [0.1, 0.5])
        fall = np.maximum(fall, middle - 3.0 * max(middle - low, 1e-12))
        self.mean, self.deviation = float(fall.mean()), max(float(fall.std()), 1e-12)
        falls = np.clip((fall - self.mean) / self.deviation, -SURELY, SURELY)
        scales = np.full(self.x.shape[1], 0.3)
        kernel = ConstantKernel(1.0) * RBF(scales, (0.05, 10.0)) + WhiteKernel(0.1, (1e-4, 1.0))
        self.process = GaussianProcessRegressor(kernel)
        with warnings.catch_warnings():
            # Length scales at their bounds are normal for dimensions without effect.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.process.fit(self.x, falls)
        self.noise = float(self.process.kernel_.k2.noise_level)
        # The same process with the vectors that other slots try; only its deviation is used.
        self.expecting = GaussianProcessRegressor(self.process.kernel_, optimizer=None)
        self.expecting.fit(self.x, np.zeros(len(self.x)))

    def expect(self, vector: Sequence[float], before: float | None) -> None:
        """Record that another slot tries a vector, which reduces the uncertainty there."""
        self.x = np.vstack([self.x, self._at(np.array([vector]), before)])
        self.expecting.fit(self.x, np.zeros(len(self.x)))

    def best(self, places: Vector, before: float | None) -> tuple[tuple[float, ...], float]:
        """The vector in `places`, shape (n, n_dims), with the highest bound, and the bound."""
        at = self._at(places, before)
        mean = self.process.predict(at)
        _, deviation = self.expecting.predict(at, return_std=True)
        # Uncertainty of the expected fall, without the noise of a trial, which is constant.
        unknown = np.sqrt(np.maximum(deviation**2 - self.noise, 0.0))
        # The increasing weight of uncertainty from the paper's experiments.
        bound = mean + math.sqrt(0.2 + math.log(max(1.0, 0.4 * len(self.x)))) * unknown
        best = int(np.argmax(bound))
        return tuple(places[best].tolist()), self.mean + self.deviation * float(bound[best])

    def _at(self, places: Vector, before: float | None) -> Vector:
        """Inputs of the process for vectors, for a step that begins now at a given loss."""
        n = len(places)
        of_loss = self._place_of(self.middle if before is None else before)
        return np.column_stack([places, np.full(n, self.now), np.full(n, of_loss)])

    def _place_of(self, loss: float) -> float:
        """A loss before a step, scaled to [0, 1] by the losses of the rows."""
        span = max(self.high - self.low, 1e-12)
        return min(max((loss - self.low) / span, 0.0), 1.0)
