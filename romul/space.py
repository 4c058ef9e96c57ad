"""Classes that declare hyperparameters in Python. Each is equivalent to a table in a TOML file.

These two declarations are the same::

    {"lr": Float(1e-4, 1, log=True)}

    [space]
    lr = { type = "float", min = 1e-4, max = 1, scale = "log" }

Values are checked when the experiment is created; its errors name the hyperparameter.
"""

from collections.abc import Mapping
from typing import Any

from romul_actors.errors import ExperimentError


class Hyperparameter:
    """Declaration of one hyperparameter.

    Attributes:
        table: the equivalent table of a TOML file.
    """

    def __init__(self, kind: str, **keys: Any) -> None:
        self.table: dict[str, Any] = {"type": kind, **keys}

    def __repr__(self) -> str:
        keys = ", ".join(f"{key}={value!r}" for key, value in self.table.items() if key != "type")
        return f"{type(self).__name__}({keys})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hyperparameter) and self.table == other.table

    def __hash__(self) -> int:
        return hash(repr(self))


class Float(Hyperparameter):
    """A floating-point hyperparameter.

    Args:
        min: lower bound (inclusive).
        max: upper bound (inclusive).
        log: whether to search on a logarithmic scale (TOML: `scale = "log"`).
        keys: further keys of the table, by their TOML names. For instance, with `mutable=False`
            a checkpoint and all its descendants keep the value.
    """

    def __init__(self, min: float, max: float, *, log: bool = False, **keys: Any) -> None:  # noqa: A002
        super().__init__("float", min=min, max=max, **_scale(log=log), **keys)


class Int(Hyperparameter):
    """An integer hyperparameter.

    Args:
        min: lower bound (inclusive).
        max: upper bound (inclusive).
        log: whether to search on a logarithmic scale (TOML: `scale = "log"`).
        keys: further keys of the table, by their TOML names.
    """

    def __init__(self, min: int, max: int, *, log: bool = False, **keys: Any) -> None:  # noqa: A002
        super().__init__("int", min=min, max=max, **_scale(log=log), **keys)


class Choice(Hyperparameter):
    """A categorical hyperparameter (TOML: `type = "categorical"`).

    Args:
        choices: two or more JSON values, as separate arguments. They have no order unless
            `ordinal=True` is given.
        keys: further keys of the table, by their TOML names.

    Raises:
        ExperimentError: the choices were given as one list.
    """

    def __init__(self, *choices: Any, **keys: Any) -> None:
        if len(choices) == 1 and isinstance(choices[0], list | tuple):
            each = ", ".join(map(repr, choices[0]))
            raise ExperimentError(
                f"Choice({choices[0]!r}) has a single choice, the list: write Choice({each})"
            )
        super().__init__("categorical", choices=list(choices), **keys)


class Bool(Hyperparameter):
    """A boolean hyperparameter (TOML: `type = "boolean"`).

    Args:
        keys: further keys of the table, by their TOML names.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__("boolean", **keys)


def tables(space: Mapping[str, Any], outer: str = "space") -> dict[str, Any]:
    """Convert a space to the tables of a TOML file; values that are tables are kept.

    Raises:
        ExperimentError: a value in the space is not a hyperparameter.
    """
    if isinstance(space.get("type"), str):
        return dict(space)
    found: dict[str, Any] = {}
    for name, value in space.items():
        if isinstance(value, Hyperparameter):
            found[name] = value.table
        elif isinstance(value, Mapping):
            found[name] = tables(value, f"{outer}.{name}")
        else:
            raise ExperimentError(
                f"{outer}.{name}: {value!r} is not a hyperparameter: write romul.Float(0, 1), "
                'romul.Int(1, 8), romul.Choice("a", "b") or romul.Bool(). Fixed values belong in '
                "constants={...}"
            )
    return found


def _scale(*, log: bool) -> dict[str, str]:
    return {"scale": "log"} if log else {}
