"""From a call's arguments to an experiment: the names that Python and TOML do not share."""

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
"""`mode` in Python, as Ray Tune and Syne Tune have it; `direction` in TOML."""

UNUSED = dict.fromkeys(
    [
        *("name", "task", "from_run", "constants", "budget_unit", "max_losses", "elasticity"),
        *("resources", "checkpoints", "keep_checkpoints", "history_keep"),
    ],
    "it would have no effect without a server and workers, as romul.run starts them",
)
"""Keys of an experiment that mean nothing where a program trains the trials itself; and why."""
UNTIMED = UNUSED | dict.fromkeys(
    ("deadline", "max_hours", "timeouts"), "it would have no effect with clock=None"
)
"""Those that mean nothing without a clock, too."""
ELSEWHERE = {
    "direction": "did you mean 'mode'?",
    "redis": "romul.submit puts a search on a server, and romul.wait follows it there",
}
"""What to do in place of an argument that there is not."""
COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "n_trials": ("population", "steps"),
    "num_samples": ("population",),
    "max_t": ("steps",),
    "max_concurrent_trials": ("workers",),
    "n_jobs": ("workers",),
    "time_budget_s": ("max_hours",),
    "max_failures": ("max_attempts",),
    "do_minimize": ("mode",),
    "storage": ("name",),
    "points_to_evaluate": ("initial",),
    "scheduler": ("optimizer",),
}
"""What arguments of Optuna, Ray Tune and Syne Tune are called in `run`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Where a declaration comes from, for its errors.

    Attributes:
        function: that was called.
        arguments: its own, by name; every other one must be a key of an experiment.
        without: keys of an experiment that would have no effect there, each with the reason.
    """

    function: str
    arguments: tuple[str, ...]
    without: Mapping[str, str] = field(default_factory=dict)

    def check(self, **given: object) -> None:
        """Check arguments of its own, by name, of which `_EXPECTED` says what they may be.

        Raises:
            ExperimentError: one is something else; the message names it.
        """
        for name, value in given.items():
            fits, expected = _EXPECTED[name]
            if not fits(value):
                raise ExperimentError(f"{self.function}(): {name}: {value!r} is not {expected}")

    def check_keys(self, keys: Iterable[str]) -> None:
        """Check keys of an experiment that a program gave beside the arguments.

        Raises:
            ExperimentError: one is none, or would have no effect; the message names it.
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
    """What a program that comes from another library may have meant; else what is near."""
    if (here := COUNTERPARTS.get(key)) is None:
        return did_you_mean(key, sorted(known))
    names = " and ".join(map(repr, here))
    return f"did you mean {names}?" if known >= set(here) else f"only romul.run has {names}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_callbacks(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, Callback) for one in value)


_EXPECTED: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "workers": (_is_count, "a whole number above 0"),
    "steps": (_is_count, "a whole number above 0"),
    "name": (lambda value: isinstance(value, str), "text"),
    "runs": (lambda value: isinstance(value, str | PathLike | None), "the path of a folder"),
    "setup": (lambda value: value is None or callable(value), "a function"),
    "callbacks": (_are_callbacks, "a list of objects of romul.Callback, such as [Report()]"),
}
"""By argument, what fits, and how to say so."""


def declare(
    call: Call,
    space: Mapping[str, Any],
    mode: str,
    keys: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Experiment:
    """Make an experiment.

    Args:
        call: where the declaration comes from.
        space: hyperparameters by name.
        mode: "min" or "max".
        keys: of the experiment, by their TOML names, as they are to be checked.
        given: others of its keys, which the call itself gives.

    Raises:
        ExperimentError: what was declared is wrong; the message names the argument.
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
    """Warn of what may work worse than expected, at the caller's own line where it is known."""
    for text in texts:
        warnings.warn(visible(text), AdviceWarning, stacklevel=_depth_of_the_caller())


def _depth_of_the_caller() -> int:
    """How many calls lie between the function that calls this one and the user's program."""
    depth, frame = 0, sys._getframe(1)  # noqa: SLF001  (`warnings` counts frames, too)
    while frame.f_back is not None and _is_between(str(frame.f_globals.get("__name__"))):
        depth, frame = depth + 1, frame.f_back
    return depth + 1


def _is_between(module: str) -> bool:
    return module.partition(".")[0] in ("romul", "asyncio", "contextvars", "threading")
