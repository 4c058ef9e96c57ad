"""Simulations in processes of their own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from typing import Any, TypeVar

R = TypeVar("R")


def as_ended(
    pool: Executor, play: Callable[..., R], todo: Iterable[Sequence[Any]]
) -> Iterator[tuple[Sequence[Any], R]]:
    """Call a function in a pool: its arguments, as in `todo`, and its results, as they come.

    What has not begun when the caller stops, by Ctrl-C for instance, is dropped.
    """
    try:
        running = {pool.submit(play, *arguments): arguments for arguments in todo}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)
