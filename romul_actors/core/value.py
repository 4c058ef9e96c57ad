"""Values that are made by the thousand: dataclasses that the type checker alone keeps frozen.

`dataclass(frozen=True)` makes an object by a call of `object.__setattr__` for each of its fields.
Where every event makes a new slot, a line of history and a message, those calls were,
under a profiler, a fifth of a decision (docs/decisions/025).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """A class of values: equal by their fields, and never changed once they are made.

    Args:
        kw_only: whether its fields are given by name alone.
    """
    # `unsafe_hash` is the hash that `frozen=True` would make.
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
