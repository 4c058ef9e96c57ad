"""Reads the fields of a stored hash; the error for an invalid field names it."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self, TypeVar

from pydantic_core import from_json

from romul_actors.errors import StoredDataError
from romul_actors.protocol.mistakes import shown

A = TypeVar("A")

LARGEST = 2**63
"""Exclusive upper bound of the integers in a population."""


class StoredFields:
    """A stored hash of an experiment.

    Args:
        place: name of the hash for errors, such as "experiment 'mymodel', slot 3".
        fields: values of the fields, by name.
    """

    def __init__(self, place: str, fields: Mapping[str, str]) -> None:
        self._place = place
        self._fields = fields

    @classmethod
    def of_experiment(cls, name: str, meta: Mapping[str, str]) -> Self:
        """The fields of an experiment's own hash."""
        return cls(f"experiment {name!r}" if name else "the population", meta)

    @classmethod
    def of_slot(cls, name: str, index: int, row: Mapping[str, str]) -> Self:
        """The fields of the hash of a slot."""
        return cls((f"experiment {name!r}, " if name else "") + f"slot {index}", row)

    def read(
        self, name: str, reader: Callable[[str], A], expected: str, default: str | None = None
    ) -> A:
        """Read one field.

        Args:
            name: name of the field.
            reader: function that parses the text; its exceptions become the error below.
            expected: description of a valid value, for the error.
            default: text to use if the field is missing or empty. None means that the field is
                required.

        Raises:
            StoredDataError: the field is missing or invalid.
        """
        text = self._fields.get(name, default)
        if text is None:
            raise StoredDataError(f"{self._place}: field {name!r} ({expected}) is missing")
        try:
            return reader(text or (default or ""))
        # Invalid JSON, and valid JSON of the wrong shape.
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
            raise StoredDataError(
                f"{self._place}: field {name!r} holds {shown(text)}, which is not {expected}"
            ) from None

    def text(self, name: str, default: str | None = None) -> str:
        """A text, which may be empty."""
        return self.read(name, str, "text", default)

    def name(self, name: str) -> str | None:
        """A text; None for an empty one."""
        return self.text(name) or None

    def reason(self, *more: str) -> str:
        """The reason for an experiment's status, its fault, and the texts `more`; often empty."""
        found = (self.text("reason", ""), self.text("fault", ""), *more)
        return "; ".join(text for text in found if text)

    def flag(self, name: str, default: str | None = None) -> bool:
        """A boolean, stored as 0 or 1."""
        return self.read(name, lambda text: bool(("0", "1").index(text)), "0 or 1", default)

    def choice(self, name: str, choices: Collection[str]) -> str:
        """One of the given words."""
        return self.read(name, lambda text: _one_of(text, choices), f"one of {', '.join(choices)}")

    def count(self, name: str, default: str | None = None) -> int:
        """A non-negative integer."""
        return self.read(name, lambda text: whole(int(text)), "a whole number, 0 or more", default)

    def number(self, name: str) -> float:
        """A number."""
        return self.read(name, lambda text: number(float(text)), "a number")

    def table(self, name: str, default: str | None = None) -> Mapping[str, Any]:
        """A JSON object."""
        return self.read(name, lambda text: table(from_json(text)), "a JSON object", default)

    def whole_numbers(self, name: str) -> tuple[int, ...]:
        """A JSON list of non-negative integers."""
        return self.read(
            name,
            lambda text: tuple(map(whole, listed(from_json(text)))),
            "a JSON list of whole numbers",
        )

    def vector(self, name: str, n_dims: int | None = None) -> tuple[float, ...]:
        """A vector of shape (n_dims,); None allows any number of coordinates."""
        size = "" if n_dims is None else f"{n_dims} "
        return self.read(
            name, lambda text: vector(from_json(text), n_dims), f"a JSON list of {size}numbers"
        )

    def counts(self, name: str) -> Mapping[str, int]:
        """A JSON object of non-negative integers; empty if there is no such field."""

        def reader(text: str) -> Mapping[str, int]:
            return {key: whole(value) for key, value in table(from_json(text)).items()}

        return self.read(name, reader, "a JSON object of whole numbers", "{}")

    def best(self, metric: str) -> Mapping[str, Any]:
        """The best trial; empty before there is one."""

        def reader(text: str) -> Mapping[str, Any]:
            best = table(from_json(text)) if text else {}
            if best:
                finite(best[metric])
                string(best["trial"])
                string(best["checkpoint"])
                table(best["hyperparameters"])
                table(best["metrics"])
            return best

        expected = f"{metric}, trial, checkpoint, hyperparameters and metrics of the best trial"
        return self.read("best", reader, expected, "")


def whole(value: Any) -> int:
    """Check that a value is a non-negative integer; raise ValueError otherwise."""
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(value)
    return value


def number(value: Any) -> float:
    """Check that a value is a number; raise ValueError otherwise."""
    if type(value) not in (int, float) or math.isnan(value):
        raise ValueError(value)
    return float(value)


def finite(value: Any) -> float:
    """Check that a value is a finite number; raise ValueError otherwise."""
    if math.isinf(number(value)):
        raise ValueError(value)
    return float(value)


def string(value: Any) -> str:
    """Check that a value is a text; raise ValueError otherwise."""
    if not isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004  (every error is a ValueError here)
    return value


def table(value: Any) -> Mapping[str, Any]:
    """Check that a value is a JSON object; raise ValueError otherwise."""
    if not isinstance(value, dict):
        raise ValueError(value)  # noqa: TRY004
    return value


def listed(value: Any) -> list[Any]:
    """Check that a value is a JSON list; raise ValueError otherwise."""
    if not isinstance(value, list):
        raise ValueError(value)  # noqa: TRY004
    return value


def vector(value: Any, n_dims: int | None) -> tuple[float, ...]:
    """Check that a value is a vector of shape (n_dims,); raise ValueError otherwise."""
    if n_dims not in (None, len(listed(value))):
        raise ValueError(value)
    return tuple(map(finite, listed(value)))


def _one_of(text: str, choices: Collection[str]) -> str:
    if text not in choices:
        raise ValueError(text)
    return text
