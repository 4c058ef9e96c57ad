"""Which hyperparameters are guarded: a lower one pays at the next step, whatever it costs later."""

import re
from collections.abc import Sequence

from romul_actors.core.parameter import FloatParameter, IntParameter, Parameter

_CAPITAL = re.compile("(?<=[a-z])(?=[A-Z])")
"""Where the next word of `actorLr` begins."""
_OTHER = ("decay", "drop", "factor", "gamma", "sched", "warm")
"""What changes a rate, or is another kind of rate."""


def guarded_axes(axes: Sequence[Parameter]) -> tuple[bool, ...]:
    """By axis, whether no move lowers it while ROMUL's guard holds.

    What is declared so is guarded, and of what declares nothing learning rates are, by their names.
    Where nothing is declared and no name is a rate's, all that has a logarithmic scale is.
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
    """Whether a hyperparameter is a learning rate: a real number, and by the end of its name one.

    One of its words is `lr`, `lrs` or `eta`, or they hold `learning rate` or `step size`; or the
    scale is logarithmic, and the first or the last is `rate` or `rates`, or they hold `clip` or
    `grad norm`: where gradients are longer than that, it scales the steps as a rate does. They hold
    none of `_OTHER`. A capital behind a small letter begins a word; what is no letter from a to z
    ends one.
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
