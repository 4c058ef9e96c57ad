"""Turns the arguments of a call into an experiment, and maps Python names to TOML names."""

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

from romul.callbacks import Callback
from romul.space import tables
from romul_actors.errors import AdviceWarning, ExperimentError
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment, from_values
from romul_actors.protocol.mistakes import did_you_mean

Mode = Literal["min", "max"]
DIRECTIONS = {"min": "minimize", "max": "maximize"}
"""Values of `mode` in Python, as in Ray Tune and Syne Tune, and of `direction` in TOML."""

UNUSED = dict.fromkeys(
    [
        *("name", "task", "from_run", "constants", "budget_unit", "max_losses", "elasticity"),
        *("resources", "checkpoints", "keep_checkpoints", "history_keep"),
    ],
    "it has an effect only with a server and workers, as romul.run starts them",
)
"""Keys of an experiment that have no effect if the program trains the trials itself, and why."""
UNTIMED = UNUSED | dict.fromkeys(
    ("deadline", "max_hours", "timeouts"), "it has no effect with clock=None"
)
"""The same, and the keys that have no effect without a clock."""
ELSEWHERE = {
    "direction": "did you mean 'mode'?",
    "redis": "to run a search on a server, use romul.submit and romul.wait",
    "constraints": "there is none; the task returns NaN for values that do not fit together",
    "patience": "to end a search early, raise romul.StopSearch in a callback",
}
"""What to use in place of an argument that does not exist."""
COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "n_trials": ("population", "steps"),
    "num_samples": ("population",),
    "max_t": ("steps",),
    "max_concurrent_trials": ("workers",),
    "n_jobs": ("workers",),
    "resources_per_trial": ("gpus",),
    "time_budget_s": ("max_hours",),
    "timeout": ("max_hours",),
    "max_failures": ("max_attempts",),
    "do_minimize": ("mode",),
    "storage": ("name",),
    "points_to_evaluate": ("initial",),
    "scheduler": ("optimizer",),
    "sampler": ("optimizer",),
    "verbose": ("progress",),
}
"""Arguments of Optuna, Ray Tune and Syne Tune, and the corresponding ones of `run`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a public function, for checks of its arguments and for their error messages.

    Attributes:
        function: name of the function.
        arguments: names of its own arguments; every other one must be a key of an experiment.
        without: keys of an experiment that the function does not accept, each with the reason.
    """

    function: str
    arguments: tuple[str, ...]
    without: Mapping[str, str] = field(default_factory=dict)

    def check(self, **given: object) -> None:
        """Check the function's own arguments against `_EXPECTED`.

        Raises:
            ExperimentError: an argument has a wrong value; the message names it.
        """
        for name, value in given.items():
            fits, expected = _EXPECTED[name]
            if not fits(value):
                raise ExperimentError(f"{self.function}(): {name}: {value!r} is not {expected}")

    def check_keys(self, keys: Iterable[str]) -> None:
        """Check the names of further keyword arguments, which must be keys of an experiment.

        Raises:
            ExperimentError: a name is unknown or not accepted here; the message names it.
        """
        known = {*Experiment.model_fields, *self.arguments, "mode"} - {"direction", *self.without}
        for key in keys:
            if key in self.without:
                raise ExperimentError(f"{self.function}() has no {key!r}: {self.without[key]}")
            if key in known:
                continue
            hint = ELSEWHERE.get(key) or _counterpart(key, known)
            raise ExperimentError(f"{self.function}() has no argument {key!r}: {hint}")


def _counterpart(key: str, known: set[str]) -> str:
    """The argument that a user of another library may mean, or the most similar one."""
    if (here := COUNTERPARTS.get(key)) is None:
        return did_you_mean(key, sorted(known))
    names = " and ".join(map(repr, here))
    return f"did you mean {names}?" if known >= set(here) else f"only romul.run takes {names}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_callbacks(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, Callback) for one in value)


_EXPECTED: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "workers": (_is_count, "a whole number above 0"),
    "steps": (_is_count, "a whole number above 0"),
    "gpus": (lambda value: value == 0 or _is_count(value), "a whole number, 0 or above"),
    "name": (lambda value: isinstance(value, str), "text"),
    "resume": (lambda value: isinstance(value, bool), "True or False"),
    "fresh": (lambda value: isinstance(value, bool), "True or False"),
    "runs": (lambda value: isinstance(value, str | PathLike | None), "the path of a folder"),
    "setup": (lambda value: value is None or callable(value), "a function"),
    "callbacks": (_are_callbacks, "a list of romul.Callback objects, such as [Report()]"),
}
"""For each argument, a test of its value and a description of valid values."""


def declare(
    call: Call,
    space: Mapping[str, Any],
    mode: str,
    keys: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Experiment:
    """Make an experiment.

    Args:
        call: the call that declares it.
        space: hyperparameters by name.
        mode: "min" or "max".
        keys: keys of the experiment that the user gave as further keyword arguments, by their TOML
            names; they are checked.
        given: keys of the experiment that come from the function's own arguments.

    Raises:
        ExperimentError: the declaration is invalid; the message names the argument.
    """
    if mode not in DIRECTIONS:
        raise ExperimentError(f"mode: {mode!r} is not 'min' or 'max'")
    if not isinstance(space, Mapping):
        raise ExperimentError(
            f"space: {space!r} is not a mapping: give hyperparameters by name, such as "
            '{"lr": romul.Float(1e-4, 1, log=True)}'
        )
    call.check_keys(keys)
    values = {**keys, **given, "space": tables(space), "direction": DIRECTIONS[mode]}
    return from_values(values, f"{call.function}()")


def warn_of(texts: Iterable[str]) -> None:
    """Issue an `AdviceWarning` for each text, located at the user's own call if possible."""
    for text in texts:
        warnings.warn(visible(text), AdviceWarning, stacklevel=_depth_of_the_caller())


def _depth_of_the_caller() -> int:
    """Number of frames from the function that calls this one up to the user's program."""
    depth, frame = 0, sys._getframe(1)  # noqa: SLF001  (`warnings` counts frames too)
    while frame.f_back is not None and _is_between(str(frame.f_globals.get("__name__"))):
        depth, frame = depth + 1, frame.f_back
    return depth + 1


def _is_between(module: str) -> bool:
    return module.partition(".")[0] in ("romul", "asyncio", "contextvars", "threading")
