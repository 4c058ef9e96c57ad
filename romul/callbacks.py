"""Callbacks: methods of a program that are called while a search runs."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from romul.result import Result
from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported

NEARLY = 0.85
"""Similarity of a method's name to a hook's from which the name counts as a mistake."""


class StopSearch(Exception):  # noqa: N818  (a request, not an error)
    """Raised by a callback to stop the search, also one on a server, and keep what it has found.

    The other callbacks receive the same line. After it, no hook but `on_end` is called, and `run`,
    `wait` or `extend` returns the result.
    """


class Callback:
    """Base class for callbacks. Override the hooks that you need.

    The hooks are called in the program that called `romul.run`, `wait` or `extend`, in the order of
    the events. If a hook raises an exception, the call ends and the exception reaches the caller; a
    search on a server goes on. If it raises `romul.StopSearch`, the search stops normally and the
    call returns its result. Example::

        class Print(romul.Callback):
            def on_result(self, line):
                print(line.trial, line.value)
    """

    def __init_subclass__(cls, **keys: Any) -> None:
        """Reject a method whose name is a misspelled hook: it would never be called.

        Raises:
            TypeError: the class has such a method.
        """
        super().__init_subclass__(**keys)
        hooks = [name for name in vars(Callback) if name.startswith("on_")]
        for name in vars(cls).keys() - hooks:
            near = get_close_matches(name, hooks, n=1, cutoff=NEARLY)
            if name.startswith("on_") and near and near[0] not in vars(cls):
                raise TypeError(f"{cls.__name__}.{name} is not a hook: did you mean {near[0]!r}?")

    def on_decision(self, line: TrialCreated) -> None:
        """Called when the next trial of a slot has been decided.

        `line` has `trial`, `parent`, `hyperparameters` and `why`.
        """

    def on_result(self, line: TrialReported) -> None:
        """Called when a trial has ended with a result.

        `line` has `trial`, `value`, `metrics`, `checkpoint` and `seconds`.
        """

    def on_failure(self, line: TrialFailed) -> None:
        """Called when an attempt has failed.

        `line` has `trial`, `reason`, `message` and `again` (whether the trial will be retried).
        """

    def on_end(self, result: Result) -> None:
        """Called when the search has ended, unless it failed: then the call raises an error."""


def call(callbacks: Sequence[Callback], line: Line) -> None:
    """Pass a line of history to the matching hook of each callback.

    Raises:
        StopSearch: a callback raised it; the others have been called, too.
    """
    stop: StopSearch | None = None
    for callback in callbacks:
        try:
            _call(callback, line)
        except StopSearch as request:
            stop = request
    if stop is not None:
        raise stop


def _call(callback: Callback, line: Line) -> None:
    match line:
        case TrialCreated():
            callback.on_decision(line)
        case TrialReported():
            callback.on_result(line)
        case TrialFailed():
            callback.on_failure(line)
