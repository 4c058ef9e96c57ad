"""The optimizers of population based training, by their names in an experiment."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from romul_actors import plugins
from romul_actors.core.optimizers.asha import Asha
from romul_actors.core.optimizers.base import Move, Optimizer, Start, View
from romul_actors.core.optimizers.de import PlainDE
from romul_actors.core.optimizers.initiator import Initiator
from romul_actors.core.optimizers.mf_pbt import MultiFrequency
from romul_actors.core.optimizers.options import configured
from romul_actors.core.optimizers.pb2 import Pb2
from romul_actors.core.optimizers.random_search import RandomSearch
from romul_actors.core.optimizers.romul import Romul
from romul_actors.core.optimizers.tpe import Tpe
from romul_actors.core.optimizers.truncation import Truncation
from romul_actors.errors import OptimizerError, RomulError

__all__ = ["OPTIMIZERS", "Move", "Optimizer", "Start", "View", "make"]

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    optimizer.name: optimizer
    for optimizer in (
        Romul,
        Truncation,
        Initiator,
        MultiFrequency,
        Pb2,
        PlainDE,
        RandomSearch,
        Asha,
        Tpe,
    )
}


ELSEWHERE = {"pbt": "truncation", "random_search": "random", "hyperband": "asha"}
"""Names that other libraries use, and the corresponding optimizers."""


def make(name: str, options: Mapping[str, Any]) -> Optimizer:
    """Create an optimizer.

    Args:
        name: name of a built-in optimizer or of a plugin.
        options: constants to change, by name.

    Raises:
        OptimizerError: there is no such optimizer or option, or the value of an option has a wrong
            type, is negative or is not finite.
        PluginError: the optimizer is a plugin that cannot be used.
    """
    if name in OPTIMIZERS:
        return configured(OPTIMIZERS[name], options)
    kind = _installed(name)
    try:
        return configured(kind, options)
    except RomulError:
        raise
    except ValueError as error:
        raise OptimizerError(f"optimizer {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        why = f"cannot be created: {type(error).__name__}: {error}"
        raise plugins.unusable("optimizers", name, why) from error


def _installed(name: str) -> type[Optimizer]:
    """The class of an optimizer that a plugin adds.

    Raises:
        OptimizerError: there is no such plugin.
        PluginError: the plugin cannot be loaded, or is not a complete optimizer.
    """
    kind = plugins.find("optimizers", name)
    if kind is None:
        there = ", ".join([*OPTIMIZERS, *plugins.names("optimizers")])
        near = get_close_matches(name, [*OPTIMIZERS, *plugins.names("optimizers")], n=1)
        near = [ELSEWHERE[name.lower()]] if name.lower() in ELSEWHERE else near
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise OptimizerError(f"optimizer {name!r} is not one of {there}{hint}")
    if not (isinstance(kind, type) and issubclass(kind, Optimizer) and is_dataclass(kind)):
        raise plugins.unusable("optimizers", name, "is not a dataclass derived from Optimizer")
    if why := _lacks(kind, name):
        raise plugins.unusable("optimizers", name, why)
    return kind


def _lacks(kind: type[Optimizer], name: str) -> str:
    """What prevents a class from being the optimizer of that name; empty if nothing does."""
    own = getattr(kind, "name", None)
    if own is None:
        return f'has no name: add name: ClassVar[str] = "{name}" to it'
    if own != name:
        return f"has the name {own!r}: the two names must agree"
    if missing := sorted(kind.__abstractmethods__):
        return f"lacks the method {missing[0]}"
    for field in fields(kind):  # type: ignore[arg-type]
        if field.init and field.default is MISSING and field.default_factory is MISSING:
            return f"has a constant {field.name!r} without a default"
    return ""
