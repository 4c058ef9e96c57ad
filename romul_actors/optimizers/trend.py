"""Where a learning curve leads to, from five running numbers (source: this project)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

FADE = 4
"""Weight of a loss in the fit: its step to this power, so that the last third makes up 80 %."""


class Trend(NamedTuple):
    """A straight line through a curve's losses over the logarithm of the step.

    Losses fall fast at first and ever slower later; over the logarithm of the step they fall about
    evenly for a long time. Least squares, weighted by step^4, updated a loss at a time (West 1979).

    Attributes:
        weight: sum of the weights, the latest loss's being 1.
        x, y: weighted means of log(step) and of the loss.
        xx, xy: weighted sums of squares and products around them.
    """

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Trend":
        """What was kept of a curve; nothing yet if `numbers` is empty."""
        return cls(*numbers)

    def after(self, n_steps: int, loss: float) -> "Trend":
        """The curve and its next loss, which it has after `n_steps` steps, from 1."""
        fade = ((n_steps - 1) / n_steps) ** FADE
        weight = fade * self.weight + 1.0
        dx, dy = math.log(n_steps) - self.x, loss - self.y
        x, y = self.x + dx / weight, self.y + dy / weight
        xx = fade * self.xx + dx * (math.log(n_steps) - x)
        xy = fade * self.xy + dx * (loss - y)
        return Trend(weight, x, y, xx, xy)

    def at(self, n_steps: int) -> float:
        """The loss that it leads to after `n_steps` steps; that of a single point is its own."""
        slope = self.xy / self.xx if self.xx > 0.0 else 0.0
        return self.y + slope * (math.log(n_steps) - self.x)
