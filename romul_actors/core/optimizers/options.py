"""Creates an optimizer with some of its constants changed; it knows no particular optimizer."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from math import isfinite
from typing import Any

from romul_actors.core.optimizers.base import Optimizer
from romul_actors.errors import OptimizerError


def configured(kind: type[Optimizer], options: Mapping[str, Any]) -> Optimizer:
    """Create an optimizer.

    Args:
        kind: class of the optimizer, a dataclass.
        options: constants to change, by name.

    Raises:
        OptimizerError: an option does not exist or was removed, or its value has a wrong type, is
            negative or is not finite.
    """
    name = kind.name
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for option, value in options.items():
        if option in kind.gone:
            raise OptimizerError(
                f"optimizer {name!r} has no option {option!r} any more: {kind.gone[option]}"
            )
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}"
            )
            raise OptimizerError(f"optimizer {name!r} has no option {option!r}: {hint}")
        default = known[option].default
        wanted = (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in wanted:
            raise OptimizerError(
                f"optimizer {name!r}: {option} = {value!r} is not a {wanted[-1].__name__}"
            )
        if isinstance(value, str):
            continue
        if not isfinite(value):
            raise OptimizerError(f"optimizer {name!r}: {option} = {value!r} is not finite")
        if value < 0:
            raise OptimizerError(f"optimizer {name!r}: {option} = {value!r} is below 0")
    return kind(**options)
