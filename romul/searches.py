"""Searches that run elsewhere, or have run: `submit`, `wait`, `open`."""

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
from romul.watching import Watch, end
from romul_actors.errors import TaskError
from romul_actors.local.run_file import check_run, run_folder
from romul_actors.observe.former import begun_from
from romul_actors.observe.snapshot import full_snapshot
from romul_actors.protocol.advice import advice
from romul_actors.protocol.experiment import Experiment
from romul_workers.functions import check_function
from romul_workers.inheritance import copies


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
    """Put a search into a server, for its actors and workers.

    `submit` returns when it is there; `submit_async` is to be awaited.

    Args:
        task: "module" or "module:function", or a function of a module. Workers import it by its
            name, and must be allowed to: `romul worker --allow MODULE`.
        space: hyperparameters by name.
        redis: the server's URL.
        name: of the search.
        checkpoints: a folder or a URL that all workers reach.
        metric: as for `run`, and so are the others.
        mode: "min" or "max".
        population: number of slots.
        steps: PBT steps of each slot.
        seed: all randomness of the search derives from it.
        optimizer: a name, or a table of a name and constants.
        keys: further keys of an experiment, by their TOML names.

    Returns:
        The experiment; `romul.wait(name, redis=...)` follows it.

    Raises:
        ExperimentError: what was declared is wrong; the message names the argument.
        ExperimentExistsError: there is one of that name.
        StoreUnavailableError: the server does not answer.
        TaskError: the function cannot train, or other machines could not import it.
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
    """Follow a search of a server to its end.

    `wait` returns then; `wait_async` is to be awaited.

    Args:
        name: the search's.
        redis: the server's URL.
        callbacks: hooks, for what happens from now on.
        progress: True: show a bar; False: none; None: in a terminal or a notebook.
        timeout_s: how long to wait, in seconds; None: to the end.

    Raises:
        UnknownExperimentError: there is none of that name.
        StoreUnavailableError: the server does not answer.
        TimeoutError: it has not ended in that time. It goes on, and can be waited for again.
    """
    Call(function="wait", arguments=()).check(name=name, callbacks=callbacks)
    limit = asyncio.timeout(timeout_s)
    try:
        with closing(display(name, progress)) as screen:
            async with limit, opened(redis) as client:
                watch = Watch(client.store, await client.spec(name), callbacks, screen)
                await watch.skip()
                await watch.to_the_end()
                result = Result(await full_snapshot(client.store, name))
    except TimeoutError:
        if not limit.expired():
            raise  # a callback's own
        raise TimeoutError(f"{name} has not ended within {timeout_s} s") from None
    end(result, callbacks)
    return result


async def open_async(
    name: str, *, redis: str | None = None, runs: str | Path | None = None
) -> Result:
    """Look at a search as it is now: a server's, or a local run's, under way or ended.

    `open` returns it; `open_async` is to be awaited.

    Args:
        name: the search's.
        redis: the server's URL; None: it is a local run.
        runs: folder of the local runs; None: the one that ROMUL_RUNS names, else `runs`.

    Raises:
        UnknownExperimentError: there is none of that name.
        StoreUnavailableError: the server does not answer.
    """
    if redis is not None:
        return await _read(redis, name, None)
    folder = run_folder(name, runs).resolve()
    check_run(folder)
    async with server_of(folder) as url:
        return await _read(url, name, folder)


submit = blocking(submit_async)
wait = blocking(wait_async)
open = blocking(open_async)  # noqa: A001  (as a file is opened)


async def _read(url: str, name: str, folder: Path | None) -> Result:
    async with opened(url) as client:
        return Result(await full_snapshot(client.store, name), folder)


def _importable(task: Train | str) -> str:
    """A task's name.

    Raises:
        TaskError: it has none that another machine could import.
    """
    if isinstance(task, str):
        return task
    check_function(task, name_of(task))
    module, function = getattr(task, "__module__", "__main__"), name_of(task)
    if module == "__main__" or not function.isidentifier():
        raise TaskError(
            f"{function} cannot be submitted: workers elsewhere import a task by its name, and "
            "nothing that comes over a network is unpickled. Put it into a module and give "
            '"module:function"'
        )
    return f"{module}:{function}"
