"""Hooks that a program may have called while a search goes on."""

from collections.abc import Sequence

from romul.result import Result
from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported


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
