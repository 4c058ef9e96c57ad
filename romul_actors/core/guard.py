"""Which hyperparameters are guarded: a lower one pays at the next step, whatever it costs later."""

import re
from collections.abc import Sequence

from romul_actors.core.parameter import FloatParameter, IntParameter, Parameter


def guarded_axes(axes: Sequence[Parameter]) -> tuple[bool, ...]:
    """By axis, whether no move lowers it while ROMUL's guard holds.

    What is declared so is guarded. Of what declares nothing and has a logarithmic scale, learning
    rates are, by their names; if that leaves none at all, all of it is.
    """
    numbers = [axis if isinstance(axis, FloatParameter | IntParameter) else None for axis in axes]
    silent = [bool(n and n.guarded is None and n.scale == "log") for n in numbers]
    found = [
        bool(n and (n.guarded or (quiet and is_rate(n.name))))
        for n, quiet in zip(numbers, silent, strict=True)
    ]
    return tuple(found if any(found) else silent)


def is_rate(name: str) -> bool:
    """Whether a hyperparameter is a learning rate by the last part of its name.

    One of its words is `lr` or `eta`, or they hold `learning rate` or `step size`, or the first or
    the last is `rate`; they hold neither `decay` nor `drop`. What is no letter separates words.
    """
    words = re.findall("[a-z]+", name.rpartition(".")[2].lower())
    joined = "".join(words)
    if "decay" in joined or "drop" in joined:
        return False
    named = {"lr", "eta"} & {*words} or "learningrate" in joined or "stepsize" in joined
    return bool(named or "rate" in (*words[:1], *words[-1:]))
