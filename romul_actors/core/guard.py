"""Which hyperparameters are guarded, such as learning rates.

Lowering a learning rate improves the loss at the next step, whatever it costs later.
"""

import re
from collections.abc import Sequence

from romul_actors.core.parameter import FloatParameter, IntParameter, Parameter

_CAPITAL = re.compile("(?<=[a-z])(?=[A-Z])")
"""The start of the next word in a camel-case name such as `actorLr`."""
_OTHER = ("decay", "drop", "factor", "gamma", "sched", "warm")
"""Parts of names that change a learning rate, or are another kind of rate."""


def guarded_axes(axes: Sequence[Parameter]) -> tuple[bool, ...]:
    """For each axis, whether no move may lower it while the guard of the optimizer `romul` holds.

    The declared `guarded` decides. Hyperparameters without it are guarded if their names are those
    of learning rates. If none declares it and no name is that of a learning rate, all numbers on a
    logarithmic scale are guarded.
    """
    numbers = [axis if isinstance(axis, FloatParameter | IntParameter) else None for axis in axes]
    rates = [is_rate(axis) for axis in axes]
    if not any(rates) and all(n is None or n.guarded is None for n in numbers):
        return tuple(n is not None and n.scale == "log" for n in numbers)
    return tuple(
        n is not None and (rate if n.guarded is None else n.guarded)
        for n, rate in zip(numbers, rates, strict=True)
    )


def is_rate(axis: Parameter) -> bool:
    """Whether a hyperparameter is a learning rate: a float whose name is that of one.

    Only the part of the name after the last dot counts. It is divided into words at capitals and at
    characters other than letters, and must contain none of `_OTHER`. It is the name of a learning
    rate if one of these holds:

    - a word is `lr`, `lrs` or `eta`, or the name contains `learning rate` or `step size`;
    - the scale is logarithmic, and the first or the last word is `rate` or `rates`, or the name
      contains `clip` or `grad norm` (clipping scales the steps of long gradients as a rate does).
    """
    if not isinstance(axis, FloatParameter):
        return False
    words = re.findall("[a-z]+", _CAPITAL.sub(" ", axis.name.rpartition(".")[2]).lower())
    joined = "".join(words)
    if any(other in joined for other in _OTHER):
        return False
    if {"lr", "lrs", "eta"} & {*words} or "learningrate" in joined or "stepsize" in joined:
        return True
    ends = {"rate", "rates"} & {*words[:1], *words[-1:]}
    return axis.scale == "log" and bool(ends or "clip" in joined or "gradnorm" in joined)
