"""Which functions can train."""

import inspect
from collections.abc import Callable
from typing import Any

from romul_actors.errors import TaskError


def check_function(train: Callable[..., Any], name: str) -> None:
    """Make sure that calling `train` trains.

    Args:
        train: the task's function.
        name: names it in the error.

    Raises:
        TaskError: calling it would only make a coroutine or a generator; the message says what
            to do; or it does not take one argument, the trial.
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
        # What is written in C says nothing of its arguments.
        return
