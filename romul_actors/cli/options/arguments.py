"""Checks of all arguments of all commands: numbers must be finite, and text must be UTF-8.

Each option declares its own bounds. NaN passes such bounds, since every comparison with it is
false, and few options declare an upper bound.
"""

import functools
import inspect
from collections.abc import Callable
from math import isfinite
from typing import Any, get_type_hints

import typer

from romul_actors.sendable import BITS, fits, is_text

LARGEST = 1e9
"""Upper bound of float options that declare only a lower one: 30 years, in seconds."""

Function = Callable[..., None]


@functools.cache
def checked(command: Function) -> Function:
    """The command, with its arguments checked before it runs, environment variables included.

    Args:
        command: a function as Typer reads it.
    """
    hints = get_type_hints(command, include_extras=True)
    declared = inspect.signature(command).parameters

    @functools.wraps(command)
    def check_and_run(**values: Any) -> None:
        for name, given in values.items():
            info = _declaration(declared[name], hints)
            for value in given if isinstance(given, list | tuple) else [given]:
                if wrong := _wrong(value, getattr(info, "min", None), getattr(info, "max", None)):
                    raise typer.BadParameter(wrong, param_hint=_shown(name, info))
        command(**values)

    return check_and_run


def _declaration(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    """The Typer declaration of a parameter; None if it has none."""
    hint = hints.get(parameter.name, parameter.annotation)
    return next(iter(getattr(hint, "__metadata__", ())), None)


def _shown(name: str, info: Any) -> str:
    """An option as a user writes it."""
    # In an annotation, the first name is stored as the default.
    names = (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ()))
    given = [text for text in names if isinstance(text, str) and text.startswith("-")]
    if given:
        return given[0]
    is_argument = type(info).__name__ == "ArgumentInfo"
    return name if is_argument else f"--{name.replace('_', '-')}"


def _wrong(value: Any, low: float | None, high: float | None) -> str:
    """What is wrong with a value, given its declared bounds; "" if nothing is."""
    if isinstance(value, float):
        if not isfinite(value):
            return f"{value} is not finite."
        if low is not None and high is None and value > LARGEST:
            return f"{value:g} is above {LARGEST:g}."
    elif isinstance(value, int) and not fits(value):
        return f"a whole number of more than {BITS} bits."
    elif isinstance(value, str) and not is_text(value):
        return f"{value!r} is not UTF-8."
    return ""
