"""Options that belong together, declared as the fields of one dataclass.

Typer reads options from a function's parameters. A command with many options takes groups of them:

    @dataclass(frozen=True)
    class Machines:
        number: Annotated[int, typer.Option("--machines", min=1)] = 16

    @with_groups
    def sim(machines: Machines, as_json: AsJson = False) -> None: ...

For Typer the command then has the parameters `number` and `as_json`, in this order.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with each parameter that is a dataclass replaced by that dataclass's fields.

    Raises:
        TypeError: two parameters have the same name.
    """
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _parameters_of(kind)
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
            )
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise TypeError(f"{command.__name__}: parameters with the same name among {names}")

    @functools.wraps(command)
    def ungrouped(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**values)

    # Read by `inspect` and `typing`, instead of the attributes of the wrapped command.
    ungrouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    ungrouped.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return ungrouped


def _parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    """A group's fields as parameters of a function."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
