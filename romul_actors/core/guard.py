"""Which hyperparameters are guarded: a lower one pays at the next step, whatever it costs later."""

import re
from collections.abc import Sequence

from romul_actors.core.parameter import FloatParameter, IntParameter, Parameter

_CAPITAL = re.compile("(?<=[a-z])(?=[A-Z])")
"""Where the next word of `actorLr` begins."""


def guarded_axes(axes: Sequence[Parameter]) -> tuple[bool, ...]:
    """By axis, whether no move lowers it while ROMUL's guard holds.

    What is declared so is guarded, and of what declares nothing learning rates are, by their names.
    Where nothing is declared and no name is a rate's, all that has a logarithmic scale is.
    """
    numbers = [axis if isinstance(axis, FloatParameter | IntParameter) else None for axis in axes]
    rates = [is_rate(axis.name, getattr(axis, "scale", "")) for axis in axes]
    if not any(rates) and all(n is None or n.guarded is None for n in numbers):
        return tuple(n is not None and n.scale == "log" for n in numbers)
    return tuple(
        n is not None and (rate if n.guarded is None else n.guarded)
        for n, rate in zip(numbers, rates, strict=True)
    )


def is_rate(name: str, scale: str = "log") -> bool:
    """Whether a hyperparameter is a learning rate, by the last part of its name.

    One of its words is `lr`, `lrs` or `eta`, or they hold `learning rate` or `step size`, or the
    scale is logarithmic and the first or the last is `rate` or `rates`; they hold neither `decay`
    nor `drop`. A capital behind a small letter begins a word; what is no letter ends one.
    """
    words = re.findall("[a-z]+", _CAPITAL.sub(" ", name.rpartition(".")[2]).lower())
    joined = "".join(words)
    if "decay" in joined or "drop" in joined:
        return False
    if {"lr", "lrs", "eta"} & {*words} or "learningrate" in joined or "stepsize" in joined:
        return True
    return scale == "log" and bool({"rate", "rates"} & {*words[:1], *words[-1:]})
