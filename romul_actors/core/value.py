"""Dataclasses that only the type checker treats as frozen, for values created in large numbers.

`dataclass(frozen=True)` creates an object with one call of `object.__setattr__` per field. Every
event creates a slot, a line of history and a message; in a profile, these calls took a fifth of the
time of a decision (docs/decisions/025).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Class decorator for immutable values that are compared by their fields.

    Args:
        kw_only: whether the fields must be given by name.
    """
    # `unsafe_hash` generates the same hash as `frozen=True`.
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
