"""Changes the bounds of numeric hyperparameters: makes the new space and moves vectors into it."""

from collections.abc import Sequence
from dataclasses import replace

from romul_actors.core.parameter import FloatParameter, IntParameter
from romul_actors.core.space import Space, VectorParameter
from romul_actors.errors import SpaceError


def with_bounds(space: Space, name: str, low: float, high: float) -> Space:
    """A space with other bounds for a number, or for all numbers of a list.

    The value of a hyperparameter that is not mutable belongs to the checkpoints, which may fit no
    other value (such as the width of a layer). So all its old values must remain possible.

    Raises:
        SpaceError: there is no such number, or these bounds are not allowed.
    """
    if name not in space.names:
        raise SpaceError(f"{name}: {space.not_there(name)}")
    found = space.parameters[space.names.index(name)]
    before = found.element if isinstance(found, VectorParameter) else found
    after: FloatParameter | IntParameter
    if isinstance(before, IntParameter):
        if low != int(low) or high != int(high):
            raise SpaceError(f"{name}: {low!r} and {high!r} must be whole numbers")
        after = replace(before, low=int(low), high=int(high))
    elif isinstance(before, FloatParameter):
        after = replace(before, low=float(low), high=float(high))
    else:
        raise SpaceError(f"{name}: not a number: it has choices instead of bounds")
    if not (before.mutable or _holds(after, before)):
        raise SpaceError(
            f"{name}: mutable = false: its values belong to the checkpoints, so its bounds can "
            f"only be widened from {before.low!r} and {before.high!r}, by whole steps; without a "
            "step, they cannot change"
        )
    new = replace(found, element=after) if isinstance(found, VectorParameter) else after
    return Space([new if p.name == name else p for p in space.parameters], space.when)


def translated(vector: Sequence[float], before: Space, after: Space) -> tuple[float, ...]:
    """Convert a vector to a space with other bounds; each value becomes the nearest allowed one."""
    moved = []
    for old, new, position in zip(before.axes, after.axes, vector, strict=True):
        if old == new or not isinstance(new, FloatParameter | IntParameter):
            moved.append(position)
        else:
            moved.append(new.encode(new.nearest(float(old.decode(position)))))
    return tuple(moved)


def _holds(wide: FloatParameter | IntParameter, narrow: FloatParameter | IntParameter) -> bool:
    """Whether every value of `narrow` is exactly a value of `wide`."""
    if wide.step is None or wide.low > narrow.low or wide.high < narrow.high:
        return False
    try:
        wide.encode(narrow.low)
    except SpaceError:
        return False
    return True
