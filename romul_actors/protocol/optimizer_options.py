"""Which values a user may give the options of an optimizer: what the core cannot count on.

The core takes any number from 0. What a new search declares, and what a running one is asked to
change, is held to these ranges. A stored search with another value goes on with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.core import optimizers
from romul_actors.core.optimizers import Optimizer
from romul_actors.errors import OptimizerError
from romul_actors.protocol.mistakes import shown
from romul_actors.sendable import BITS, fits

LARGEST = 1e9
"""No constant is larger; far beyond, sums and products of some of them overflow."""
_SHARES = (
    "quorum_share",
    "donors",
    "guarded",
    "truncation",
    "resample",
    "crossover",
)
"""Shares and probabilities."""
_RANGES: Mapping[tuple[str, str], tuple[int, float]] = {
    ("romul", "generations"): (1, LARGEST),
    ("mf_pbt", "slowest"): (1, LARGEST),
    ("pb2", "startup"): (1, LARGEST),
    ("pb2", "window"): (1, LARGEST),
    # Half of them near what was copied, and half of them anywhere.
    ("pb2", "candidates"): (2, 1e6),
}
"""Least and greatest values of some options of some optimizers."""


def make(name: str, options: Mapping[str, Any]) -> Optimizer:
    """Make an optimizer, as `optimizers.make` does, of whatever numbers a file can hold.

    Raises:
        OptimizerError, PluginError: see there; or a whole number has more than 64 bits.
    """
    check_sizes(name, options)
    return optimizers.make(name, options)


def make_stored(name: str, options: Mapping[str, Any]) -> tuple[Optimizer, Sequence[str]]:
    """Make the optimizer of a stored search without those options that it does not take.

    Returns:
        The optimizer, and for each option that is left out a sentence that says why.

    Raises:
        OptimizerError, PluginError: there is no such optimizer, or it cannot be made here.
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
    """Make sure that options of an optimizer can be sent.

    Raises:
        OptimizerError: a whole number has more than 64 bits.
    """
    for option, value in options.items():
        if isinstance(value, int) and not fits(value):
            raise OptimizerError(
                f"optimizer {name!r}: {option} = {shown(value)} has more than {BITS} bits"
            )


def check_ranges(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that each option of an optimizer that comes with ROMUL is in its range.

    Args:
        name: of the optimizer; those of an installed package have ranges of their own.
        options: constants that `make` takes.

    Raises:
        OptimizerError: one is not; the message names it, its value and the bound.
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
