"""From a call's arguments to an experiment: the names that Python and TOML do not share."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from romul.space import tables
from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import Experiment, from_values

Mode = Literal["min", "max"]
DIRECTIONS = {"min": "minimize", "max": "maximize"}
"""`mode` in Python, as Ray Tune and Syne Tune have it; `direction` in TOML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Where a declaration comes from, for its errors.

    Attributes:
        function: that was called.
        arguments: its own, by name; every other one must be a key of an experiment.
    """

    function: str
    arguments: tuple[str, ...]


def declare(call: Call, space: Mapping[str, Any], mode: str, keys: Mapping[str, Any]) -> Experiment:
    """Make an experiment.

    Args:
        call: where the declaration comes from.
        space: hyperparameters by name.
        mode: "min" or "max".
        keys: of the experiment, by their TOML names.

    Raises:
        ExperimentError: what was declared is wrong; the message names the argument.
    """
    if mode not in DIRECTIONS:
        raise ExperimentError(f"mode: {mode!r} is not 'min' or 'max'")
    if not isinstance(space, Mapping):
        raise ExperimentError(
            f"space: {space!r} is not a mapping: give hyperparameters by name, such as "
            '{"lr": romul.Float(1e-4, 1, log=True)}'
        )
    known = [name for name in Experiment.model_fields if name != "direction"]
    for key in keys:
        if key in known:
            continue
        names = [*known, *call.arguments, "mode"]
        near = ["mode"] if key == "direction" else get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(names))}"
        raise ExperimentError(f"{call.function}() has no argument {key!r}: {hint}")
    values = {**keys, "space": tables(space), "direction": DIRECTIONS[mode]}
    return from_values(values, f"{call.function}()")
