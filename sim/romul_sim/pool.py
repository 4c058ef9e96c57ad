"""Runs simulations in a pool of processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from typing import Any, TypeVar

R = TypeVar("R")


def as_ended(
    pool: Executor, play: Callable[..., R], todo: Iterable[Sequence[Any]]
) -> Iterator[tuple[Sequence[Any], R]]:
    """Call a function in a pool, and yield arguments and result of each call when it ends.

    Calls that have not begun when the caller stops, for example by Ctrl-C, are dropped.

    Args:
        pool: the pool.
        play: the function.
        todo: positional arguments of each call.
    """
    try:
        running = {pool.submit(play, *arguments): arguments for arguments in todo}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)
