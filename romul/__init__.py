"""The Python API of ROMUL: population based training as a function call.

::

    import romul

    def train(trial): ...

    space = {"lr": romul.Float(1e-4, 1, log=True)}
    result = romul.run(train, space, metric="val_loss", steps=30)
    result.best.hyperparameters, result.best.checkpoint

`import romul` loads only this module; each name is imported when it is first used. The guide is
docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Type checkers and editors read imports and `__all__` only as they are written, and a lazy import
# needs the table. So each name is written three times; tests/unit/test_api.py compares the three.
if TYPE_CHECKING:
    from romul.callbacks import Callback, StopSearch
    from romul.client import Client
    from romul.extending import extend, extend_async
    from romul.population import AskedTrial, Population
    from romul.result import Best, Result
    from romul.running import run, run_async
    from romul.searches import open, open_async, submit, submit_async, wait, wait_async  # noqa: A004
    from romul.space import Bool, Choice, Float, Int
    from romul.watching import SearchFailedError
    from romul_actors import __version__
    from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported
    from romul_actors.core.optimizers import Optimizer
    from romul_actors.errors import (
        AdviceWarning,
        BrokerError,
        CheckpointError,
        ExperimentError,
        ExperimentExistsError,
        NoAnswerError,
        RomulError,
        SpaceError,
        StoreError,
        StoreUnavailableError,
        TaskError,
        TellError,
        UnknownExperimentError,
        UnknownSlotError,
        UnknownWorkerError,
    )
    from romul_actors.launch import LaunchError
    from romul_actors.observe.snapshot import SlotSnapshot
    from romul_actors.observe.trial_records import TrialRecord
    from romul_actors.protocol.experiment import Experiment
    from romul_workers.schedule import Schedule, ScheduleError, Stretch
    from romul_workers.trial import Context, Trial

_MODULES = {
    "romul.callbacks": ("Callback", "StopSearch"),
    "romul.client": ("Client",),
    "romul.extending": ("extend", "extend_async"),
    "romul.population": ("AskedTrial", "Population"),
    "romul.result": ("Best", "Result"),
    "romul.running": ("run", "run_async"),
    "romul.searches": ("open", "open_async", "submit", "submit_async", "wait", "wait_async"),
    "romul.space": ("Bool", "Choice", "Float", "Int"),
    "romul.watching": ("SearchFailedError",),
    "romul_actors": ("__version__",),
    "romul_actors.core.history": ("Line", "TrialCreated", "TrialFailed", "TrialReported"),
    "romul_actors.core.optimizers": ("Optimizer",),
    "romul_actors.errors": (
        "AdviceWarning",
        "BrokerError",
        "CheckpointError",
        "ExperimentError",
        "ExperimentExistsError",
        "NoAnswerError",
        "RomulError",
        "SpaceError",
        "StoreError",
        "StoreUnavailableError",
        "TaskError",
        "TellError",
        "UnknownExperimentError",
        "UnknownSlotError",
        "UnknownWorkerError",
    ),
    "romul_actors.launch": ("LaunchError",),
    "romul_actors.observe.snapshot": ("SlotSnapshot",),
    "romul_actors.observe.trial_records": ("TrialRecord",),
    "romul_actors.protocol.experiment": ("Experiment",),
    "romul_workers.schedule": ("Schedule", "ScheduleError", "Stretch"),
    "romul_workers.trial": ("Context", "Trial"),
}
"""Public names, by the module that defines them."""

__all__ = [
    "AdviceWarning",
    "AskedTrial",
    "Best",
    "Bool",
    "BrokerError",
    "Callback",
    "CheckpointError",
    "Choice",
    "Client",
    "Context",
    "Experiment",
    "ExperimentError",
    "ExperimentExistsError",
    "Float",
    "Int",
    "LaunchError",
    "Line",
    "NoAnswerError",
    "Optimizer",
    "Population",
    "Result",
    "RomulError",
    "Schedule",
    "ScheduleError",
    "SearchFailedError",
    "SlotSnapshot",
    "SpaceError",
    "StopSearch",
    "StoreError",
    "StoreUnavailableError",
    "Stretch",
    "TaskError",
    "TellError",
    "Trial",
    "TrialCreated",
    "TrialFailed",
    "TrialRecord",
    "TrialReported",
    "UnknownExperimentError",
    "UnknownSlotError",
    "UnknownWorkerError",
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


if not TYPE_CHECKING:  # With `__getattr__`, a type checker would accept any name.

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(
                f"module 'romul' has no attribute {name!r}; it has {', '.join(__all__)}"
            )
        module = next(module for module, names in _MODULES.items() if name in names)
        found = getattr(import_module(module), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """The public names, including those not imported yet."""
    return sorted(__all__)
