"""The ranges of the options of optimizers.

The core accepts any number from 0. The declaration of a new search and a change of a running one
are checked against these ranges. A stored search with a value outside them continues with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.core import optimizers
from romul_actors.core.optimizers import Optimizer
from romul_actors.errors import OptimizerError
from romul_actors.protocol.mistakes import shown
from romul_actors.sendable import BITS, fits

LARGEST = 1e9
"""Upper bound of all constants; with far larger ones, sums and products overflow."""
_SHARES = (
    "quorum_share",
    "donors",
    "guarded",
    "truncation",
    "resample",
    "crossover",
)
"""Options that are shares or probabilities."""
_RANGES: Mapping[tuple[str, str], tuple[int, float]] = {
    ("romul", "generations"): (1, LARGEST),
    ("mf_pbt", "slowest"): (1, LARGEST),
    ("pb2", "startup"): (1, LARGEST),
    ("pb2", "window"): (1, LARGEST),
    # Half of the candidates are near the copied vector, and half are anywhere.
    ("pb2", "candidates"): (2, 1e6),
}
"""Lower and upper bounds of some options of some optimizers."""


def make(name: str, options: Mapping[str, Any]) -> Optimizer:
    """Create an optimizer like `optimizers.make`, but check first that integers fit into 64 bits.

    Raises:
        OptimizerError: an integer has more than 64 bits; or see `optimizers.make`.
        PluginError: see `optimizers.make`.
    """
    check_sizes(name, options)
    return optimizers.make(name, options)


def make_stored(name: str, options: Mapping[str, Any]) -> tuple[Optimizer, Sequence[str]]:
    """Create the optimizer of a stored search, ignoring options that it does not accept.

    Returns:
        The optimizer, and for each ignored option a sentence with the reason.

    Raises:
        OptimizerError, PluginError: there is no such optimizer, or it cannot be created here.
    """
    try:
        return make(name, options), []
    except OptimizerError:
        made = make(name, {})
    taken: dict[str, Any] = {}
    left_out = []
    for option, value in options.items():
        try:
            made = make(name, {**taken, option: value})
            taken[option] = value
        except OptimizerError as error:
            left_out.append(f"{option} = {shown(value)} no longer counts: {error}")
    return made, left_out


def check_sizes(name: str, options: Mapping[str, Any]) -> None:
    """Check that the options of an optimizer can be sent in a message.

    Raises:
        OptimizerError: an integer has more than 64 bits.
    """
    for option, value in options.items():
        if isinstance(value, int) and not fits(value):
            raise OptimizerError(
                f"optimizer {name!r}: {option} = {shown(value)} has more than {BITS} bits"
            )


def check_ranges(name: str, options: Mapping[str, Any]) -> None:
    """Check that the options of a built-in optimizer are within their ranges.

    Args:
        name: name of the optimizer. For a plugin, nothing is checked.
        options: options that `make` accepts.

    Raises:
        OptimizerError: an option is out of range; the message names it, its value and the bound.
    """
    if name not in optimizers.OPTIMIZERS:
        return
    for option, value in options.items():
        if isinstance(value, str | bool):
            continue
        low, high = (0, 1) if option in _SHARES else _RANGES.get((name, option), (0, LARGEST))
        if value > high:
            raise OptimizerError(f"optimizer {name!r}: {option} = {value!r} is above {high:g}")
        if value < low:
            raise OptimizerError(f"optimizer {name!r}: {option} = {value!r} is below {low}")
