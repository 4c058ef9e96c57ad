"""Hooks that a program may have called while a search goes on."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from romul.result import Result
from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported

NEARLY = 0.85
"""How alike a method's name and a hook's are for it to be called a mistake."""


class StopSearch(Exception):  # noqa: N818  (a request, no error)
    """Raise it in a callback to end the search with what it has found so far."""


class Callback:
    """Hooks into a search; override those that you need.

    They are called in the program that called `romul.run`, in the order in which things happened.
    An exception in one ends the run and reaches the caller; `romul.StopSearch` ends it in order.
    For instance::

        class Print(romul.Callback):
            def on_result(self, line):
                print(line.trial, line.value)
    """

    def __init_subclass__(cls, **keys: Any) -> None:
        """Refuse a name that is nearly a hook's: it would never be called.

        Raises:
            TypeError: there is one.
        """
        super().__init_subclass__(**keys)
        hooks = [name for name in vars(Callback) if name.startswith("on_")]
        for name in vars(cls).keys() - hooks:
            near = get_close_matches(name, hooks, n=1, cutoff=NEARLY)
            if name.startswith("on_") and near and near[0] not in vars(cls):
                raise TypeError(f"{cls.__name__}.{name} is no hook: did you mean {near[0]!r}?")

    def on_decision(self, line: TrialCreated) -> None:
        """A slot was decided: `trial`, `parent`, `hyperparameters` and `why` of its next trial."""

    def on_result(self, line: TrialReported) -> None:
        """A trial ended with a result: `trial`, `value`, `metrics`, `checkpoint`, `seconds`."""

    def on_failure(self, line: TrialFailed) -> None:
        """An attempt failed: `trial`, `reason`, `message`, and whether it is tried `again`."""

    def on_end(self, result: Result) -> None:
        """The search has ended."""


def call(callbacks: Sequence[Callback], line: Line) -> None:
    """Pass a line of history to the hooks that it concerns."""
    for callback in callbacks:
        match line:
            case TrialCreated():
                callback.on_decision(line)
            case TrialReported():
                callback.on_result(line)
            case TrialFailed():
                callback.on_failure(line)
