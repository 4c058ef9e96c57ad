"""Searches on a server, and searches that have ended: `submit`, `wait`, `open`."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from romul.blocking import blocking
from romul.callbacks import Callback
from romul.client import opened
from romul.declaration import Call, Mode, declare, warn_of
from romul.display import display
from romul.processes import server_of
from romul.result import Result
from romul.running import Train, name_of
from romul.watching import end, watch_search
from romul_actors.errors import TaskError
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import check_run, run_folder
from romul_actors.observe.former import begun_from
from romul_actors.observe.snapshot import full_snapshot
from romul_actors.protocol.advice import advice
from romul_actors.protocol.experiment import Experiment
from romul_workers.checkpoints.inheritance import copies
from romul_workers.child.functions import check_function


async def submit_async(
    task: Train | str,
    space: Mapping[str, Any],
    *,
    redis: str,
    name: str,
    checkpoints: str,
    metric: str = "loss",
    mode: Mode = "min",
    population: int = 8,
    steps: int,
    seed: int = 0,
    optimizer: str | Mapping[str, Any] = "romul",
    **keys: Any,
) -> Experiment:
    """Submit a search to a server, whose actors and workers then run it.

    The call returns when the search is stored; to wait for its end, use `romul.wait`. `submit` is a
    blocking call; `submit_async` is the coroutine.

    Args:
        task: "module", "module:function", or a function defined in a module. Workers import the
            task by its name, and must be allowed to: `romul worker --allow MODULE`.
        space: hyperparameters by name.
        redis: URL of the Redis or Valkey server, such as "redis://HOST:6379/0".
        name: name of the search.
        checkpoints: where checkpoints are kept: the absolute path of a folder that all workers
            reach, or its fsspec URL, such as "s3://BUCKET/FOLDER".
        metric: name of the metric to optimize.
        mode: "min" to minimize the metric, "max" to maximize it.
        population: number of slots, at least 4.
        steps: number of PBT steps of each slot.
        seed: seed for all random decisions of the search.
        optimizer: name of the optimizer, or a table with its name and constants.
        keys: further keys of an experiment, by their TOML names.

    Returns:
        The experiment as it was submitted.

    Raises:
        ExperimentError: the declaration is invalid; the message names the argument.
        ExperimentExistsError: the server already has a search of that name.
        StoreUnavailableError: the server does not answer.
        TaskError: the function cannot be used as a task, or other machines could not import it.
    """
    given: dict[str, Any] = {"name": name, "task": _importable(task), "checkpoints": checkpoints}
    given |= {"metric": metric, "population": population, "steps": steps, "seed": seed}
    call = Call(function="submit", arguments=("redis",))
    given |= {"optimizer": optimizer}
    experiment = declare(call, space, mode, keys, given)
    warn_of(advice(experiment))
    async with opened(redis) as client:
        warn_of(await client.check())
        experiment = await begun_from(experiment, client.store, copies)
        await client.submit(experiment)
    return experiment


async def wait_async(
    name: str,
    *,
    redis: str,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    timeout_s: float | None = None,
) -> Result:
    """Wait until a search on a server has ended.

    `wait` is a blocking call; `wait_async` is the coroutine. `romul.open` reads a search that has
    failed.

    Args:
        name: name of the search.
        redis: URL of the Redis or Valkey server, such as "redis://HOST:6379/0".
        callbacks: callbacks for events from now on; see `romul.Callback`.
        progress: True shows a progress bar, False does not. None (the default) shows one in a
            terminal or a notebook.
        timeout_s: maximal time to wait, in seconds. None (the default) sets no limit.

    Returns:
        The result of the search.

    Raises:
        UnknownExperimentError: there is no search of that name.
        StoreUnavailableError: the server does not answer.
        SearchFailedError: the search failed, or its function fails regardless of the
            hyperparameters. In the second case the search goes on until it has failed.
        TimeoutError: the search has not ended within `timeout_s`. It continues, and you can wait
            for it again.
    """
    Call(function="wait", arguments=()).check(name=name, callbacks=callbacks)
    limit = asyncio.timeout(timeout_s)
    try:
        with closing(display(name, progress)) as screen:
            async with limit, opened(redis) as client:
                result = await watch_search(client, name, callbacks, screen)
    except TimeoutError:
        if not limit.expired():
            raise  # a callback's own
        raise TimeoutError(
            f"{name} has not ended within {timeout_s} s; `romul show {name}` says what it waits for"
        ) from None
    return end(result, callbacks)


async def open_async(
    name: str, *, redis: str | None = None, runs: str | Path | None = None
) -> Result:
    """Read the current state of a search, whether it is running or has ended.

    `open` is a blocking call; `open_async` is the coroutine.

    Args:
        name: name of the search.
        redis: URL of the Redis or Valkey server that has the search, such as
            "redis://HOST:6379/0". None (the default) means a local run.
        runs: folder that holds the local runs. Default: the folder in ROMUL_RUNS, or `runs`.

    Returns:
        The search as it is now; the object does not change later.

    Raises:
        UnknownExperimentError: there is no search of that name.
        StoreUnavailableError: the server does not answer.
    """
    if redis is not None:
        return await _read(redis, name, None)
    folder = run_folder(name, runs).resolve()
    check_run(folder)
    served = is_up(folder)
    async with server_of(folder) as url:
        return await _read(url, name, folder, served=served)


submit = blocking(submit_async)
wait = blocking(wait_async)
open = blocking(open_async)  # noqa: A001  (users write romul.open)


async def _read(url: str, name: str, folder: Path | None, *, served: bool = True) -> Result:
    async with opened(url) as client:
        return Result(await full_snapshot(client.store, name), folder, served=served)


def _importable(task: Train | str) -> str:
    """The name by which workers import a task.

    Raises:
        TaskError: other machines could not import the task.
    """
    if isinstance(task, str):
        return task
    check_function(task, name_of(task))
    module, function = getattr(task, "__module__", "__main__"), name_of(task)
    if module == "__main__" or not function.isidentifier():
        raise TaskError(
            f"{function} cannot be submitted: the workers of a server import a task by its name. "
            'Put the function into a module and give its name, "module:function"'
        )
    return f"{module}:{function}"
