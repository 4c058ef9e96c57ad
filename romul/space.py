"""Hyperparameters as a program declares them; each stands for a table of a TOML file.

These two are the same::

    {"lr": Float(1e-4, 1, log=True)}

    [space]
    lr = { type = "float", min = 1e-4, max = 1, scale = "log" }

What is declared is checked with the whole experiment, whose errors name the hyperparameter.
"""

from collections.abc import Mapping
from typing import Any

from romul_actors.errors import ExperimentError


class Hyperparameter:
    """One hyperparameter's declaration.

    Attributes:
        table: the same as a table of a TOML file.
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
    """A real number between two bounds, both included.

    Args:
        min: the least value.
        max: the greatest value.
        log: whether it is searched on a logarithmic scale (TOML: `scale = "log"`).
        keys: further keys of the table, by their TOML names: `mutable=False` keeps the value
            along a line of descent.
    """

    def __init__(self, min: float, max: float, *, log: bool = False, **keys: Any) -> None:  # noqa: A002
        super().__init__("float", min=min, max=max, **_scale(log=log), **keys)


class Int(Hyperparameter):
    """A whole number between two bounds, both included.

    Args:
        min: the least value.
        max: the greatest value.
        log: whether it is searched on a logarithmic scale (TOML: `scale = "log"`).
        keys: further keys of the table, by their TOML names.
    """

    def __init__(self, min: int, max: int, *, log: bool = False, **keys: Any) -> None:  # noqa: A002
        super().__init__("int", min=min, max=max, **_scale(log=log), **keys)


class Choice(Hyperparameter):
    """One of a few choices without an order (TOML: `type = "categorical"`).

    Args:
        choices: two or more.
        keys: further keys of the table, by their TOML names.

    Raises:
        ExperimentError: a list was given in place of its elements.
    """

    def __init__(self, *choices: Any, **keys: Any) -> None:
        if len(choices) == 1 and isinstance(choices[0], list | tuple):
            each = ", ".join(map(repr, choices[0]))
            raise ExperimentError(
                f"Choice({choices[0]!r}) has one choice, which is a list: write Choice({each})"
            )
        super().__init__("categorical", choices=list(choices), **keys)


class Bool(Hyperparameter):
    """False or true (TOML: `type = "boolean"`).

    Args:
        keys: further keys of the table, by their TOML names.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__("boolean", **keys)


def tables(space: Mapping[str, Any], outer: str = "space") -> dict[str, Any]:
    """A space as an experiment declares it; tables of a TOML file may stand in it as they are.

    Raises:
        ExperimentError: something stands in it that is no hyperparameter.
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
                f"{outer}.{name}: {value!r} is no hyperparameter: write romul.Float(0, 1), "
                'romul.Int(1, 8), romul.Choice("a", "b") or romul.Bool(); what is fixed goes into '
                "constants={...}"
            )
    return found


def _scale(*, log: bool) -> dict[str, str]:
    return {"scale": "log"} if log else {}
