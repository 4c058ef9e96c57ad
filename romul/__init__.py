"""Population based training, as a function: what users import.

::

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
    from romul.callbacks import Callback, StopSearch
    from romul.client import Client
    from romul.extending import extend, extend_async
    from romul.population import Population
    from romul.result import Best, Result
    from romul.running import run, run_async
    from romul.searches import open, open_async, submit, submit_async, wait, wait_async  # noqa: A004
    from romul.space import Bool, Choice, Float, Int
    from romul.watching import SearchFailedError
    from romul_actors import __version__
    from romul_actors.core.events import TrialMessage as AskedTrial
    from romul_actors.core.history import TrialCreated, TrialFailed, TrialReported
    from romul_actors.errors import (
        AdviceWarning,
        ExperimentError,
        ExperimentExistsError,
        RomulError,
        StoreUnavailableError,
        TaskError,
        TellError,
        UnknownExperimentError,
    )
    from romul_actors.protocol.experiment import Experiment
    from romul_workers.schedule import Schedule
    from romul_workers.trial import Context, Trial

_MODULES = {
    "AdviceWarning": "romul_actors.errors",
    "AskedTrial": "romul_actors.core.events:TrialMessage",
    "Best": "romul.result",
    "Bool": "romul.space",
    "Callback": "romul.callbacks",
    "Choice": "romul.space",
    "Client": "romul.client",
    "Context": "romul_workers.trial",
    "Experiment": "romul_actors.protocol.experiment",
    "ExperimentError": "romul_actors.errors",
    "ExperimentExistsError": "romul_actors.errors",
    "Float": "romul.space",
    "Int": "romul.space",
    "Population": "romul.population",
    "Result": "romul.result",
    "RomulError": "romul_actors.errors",
    "Schedule": "romul_workers.schedule",
    "SearchFailedError": "romul.watching",
    "StopSearch": "romul.callbacks",
    "StoreUnavailableError": "romul_actors.errors",
    "TaskError": "romul_actors.errors",
    "TellError": "romul_actors.errors",
    "Trial": "romul_workers.trial",
    "TrialCreated": "romul_actors.core.history",
    "TrialFailed": "romul_actors.core.history",
    "TrialReported": "romul_actors.core.history",
    "UnknownExperimentError": "romul_actors.errors",
    "__version__": "romul_actors",
    "extend": "romul.extending",
    "extend_async": "romul.extending",
    "open": "romul.searches",
    "open_async": "romul.searches",
    "run": "romul.running",
    "run_async": "romul.running",
    "submit": "romul.searches",
    "submit_async": "romul.searches",
    "wait": "romul.searches",
    "wait_async": "romul.searches",
}
"""Where each public name comes from: a module, and the name there if it is another one."""

__all__ = [
    "AdviceWarning",
    "AskedTrial",
    "Best",
    "Bool",
    "Callback",
    "Choice",
    "Client",
    "Context",
    "Experiment",
    "ExperimentError",
    "ExperimentExistsError",
    "Float",
    "Int",
    "Population",
    "Result",
    "RomulError",
    "Schedule",
    "SearchFailedError",
    "StopSearch",
    "StoreUnavailableError",
    "TaskError",
    "TellError",
    "Trial",
    "TrialCreated",
    "TrialFailed",
    "TrialReported",
    "UnknownExperimentError",
    "__version__",
    "extend",
    "extend_async",
    "open",
    "open_async",
    "run",
    "run_async",
    "submit",
    "submit_async",
    "wait",
    "wait_async",
]


if not TYPE_CHECKING:  # To a type checker a wrong name would be right.

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
