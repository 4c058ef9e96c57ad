"""Population based training, as a function: what users import.

    import romul

    def train(trial): ...

    space = {"lr": romul.Float(1e-4, 1, log=True)}
    result = romul.run(train, space, metric="val_loss", steps=30)
    result.best.hyperparameters, result.best.checkpoint

`import romul` itself loads nothing but this module: each name is imported when it is first used.
docs/python.md says all about it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from romul.population import Population
    from romul.result import Best
    from romul.space import Bool, Choice, Float, Int
    from romul_actors import __version__
    from romul_actors.core.events import Trial as AskedTrial
    from romul_actors.errors import RomulError, TellError
    from romul_workers.trial import Context, Trial

_MODULES = {
    "AskedTrial": "romul_actors.core.events:Trial",
    "Best": "romul.result",
    "Bool": "romul.space",
    "Choice": "romul.space",
    "Context": "romul_workers.trial",
    "Float": "romul.space",
    "Int": "romul.space",
    "Population": "romul.population",
    "RomulError": "romul_actors.errors",
    "TellError": "romul_actors.errors",
    "Trial": "romul_workers.trial",
    "__version__": "romul_actors",
}
"""Where each public name comes from: a module, and the name there if it is another one."""

__all__ = [
    "AskedTrial",
    "Best",
    "Bool",
    "Choice",
    "Context",
    "Float",
    "Int",
    "Population",
    "RomulError",
    "TellError",
    "Trial",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(
            f"module 'romul' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    module, _, there = _MODULES[name].partition(":")
    found = getattr(import_module(module), there or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, those not imported yet too."""
    return sorted(__all__)
