"""What no argument of any command may be: a number that cannot be counted on, or text that is none.

Each option declares its own least and greatest value. A comparison with NaN holds for none of
them, and few options declare a greatest one.
"""

import functools
import inspect
from collections.abc import Callable
from math import isfinite
from typing import Any, get_type_hints

import typer

from romul_actors.sendable import BITS, fits, is_text

LARGEST = 1e9
"""No option that is declared to be above something is larger: 30 years, in seconds."""

Function = Callable[..., None]


@functools.cache
def checked(command: Function) -> Function:
    """The command, with its arguments looked at before it runs; from an environment variable too.

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
    """What Typer was told about a parameter; None: nothing."""
    hint = hints.get(parameter.name, parameter.annotation)
    return next(iter(getattr(hint, "__metadata__", ())), None)


def _shown(name: str, info: Any) -> str:
    """An option as a user writes it."""
    # The first of its names stands in the place of a default, which an annotation has none of.
    names = (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ()))
    given = [text for text in names if isinstance(text, str) and text.startswith("-")]
    if given:
        return given[0]
    is_argument = type(info).__name__ == "ArgumentInfo"
    return name if is_argument else f"--{name.replace('_', '-')}"


def _wrong(value: Any, low: float | None, high: float | None) -> str:
    """What is wrong with a value, whose least and greatest are declared; "": nothing is."""
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
