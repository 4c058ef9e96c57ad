"""Checks whether a function can be a task's `train`."""

import inspect
from collections.abc import Callable
from typing import Any

from romul_actors.errors import TaskError


def check_function(train: Callable[..., Any], name: str) -> None:
    """Check that `train` is an ordinary function that can be called with a trial alone.

    Args:
        train: the task's function.
        name: how the error message calls it.

    Raises:
        TaskError: it is a coroutine function or a generator, or it cannot be called with one
            argument; the message says what to do.
    """
    called = train if inspect.isroutine(train) else getattr(train, "__call__", train)  # noqa: B004
    if inspect.iscoroutinefunction(called):
        raise TaskError(
            f"{name} is an `async def` function, which a trial does not await: write `def`, and "
            "call `asyncio.run(...)` inside for what must be awaited"
        )
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise TaskError(
            f"{name} is a generator (it has a `yield`): train from trial.start to trial.stop, "
            "report on the way with `trial.progress(at)`, and `return` the metric"
        )
    try:
        inspect.signature(train).bind(None)
    except TypeError as error:
        raise TaskError(
            f"{name} cannot be called with a trial alone ({error}): write `def train(trial):`; the "
            "hyperparameters are trial.hyperparameters"
        ) from None
    except ValueError:
        # Functions written in C may have no signature to check.
        return
