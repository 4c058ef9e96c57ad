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
            to do.
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
