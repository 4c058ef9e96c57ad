"""Extends a search to more steps: `extend`."""

from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

from romul.blocking import blocking
from romul.callbacks import Callback
from romul.client import opened
from romul.declaration import Call
from romul.display import display
from romul.local_run import note_steps
from romul.processes import supervised
from romul.result import Result
from romul.running import BY, go_on
from romul.supervisor import Plan
from romul.watching import end, watch_search
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import RunFile, check_run, run_folder
from romul_actors.protocol.differences import Changes


async def extend_async(
    name: str,
    *,
    steps: int,
    redis: str | None = None,
    workers: int | None = None,
    runs: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> Result:
    """Extend a search to more steps and wait until it ends.

    `extend` is a blocking call; `extend_async` is the coroutine. The search may be running,
    finished, stopped, paused or failed; a paused or failed one is resumed.

    Args:
        name: name of the search.
        steps: new total number of steps, including those already done.
        redis: URL of the Redis or Valkey server that has the search, such as
            "redis://HOST:6379/0"; its actors and workers continue it. None (the default) means a
            local run.
        workers: number of worker processes of a local run that has ended. Default: the same number
            as before.
        runs: folder that holds the local runs. Default: the folder in ROMUL_RUNS, or `runs`.
        callbacks: callbacks for events from now on; see `romul.Callback`.
        progress: True shows a progress bar, False does not. None (the default) shows one in a
            terminal or a notebook.

    Returns:
        The result of the whole search.

    Raises:
        ExperimentError: the search already has that many steps.
        UnknownExperimentError: there is no search of that name.
        StoreUnavailableError: the server does not answer.
        SearchFailedError: the search failed, or its function fails regardless of the
            hyperparameters. In the second case a search on a server goes on until it has failed.
    """
    call = Call(function="extend", arguments=())
    call.check(name=name, steps=steps, runs=runs, callbacks=callbacks)
    if workers is not None:
        call.check(workers=workers)
    folder = None if redis is not None else run_folder(name, runs).resolve()
    if folder is not None:
        check_run(folder)
    with closing(display(name, progress)) as screen:
        async with AsyncExitStack() as stack:
            server, by, supervisor = str(folder) if redis is None else redis, None, None
            if folder is not None and not is_up(folder):
                run = RunFile.read(folder)
                plan = Plan(str(folder), workers or run.workers, tuple(run.allow), tuple(run.paths))
                supervisor = await stack.enter_async_context(supervised(plan))
                server, by = await supervisor.server(), BY
            client = await stack.enter_async_context(opened(server, by=by))
            start = await go_on(client, name, Changes(steps=steps, asked=True))
            if folder is not None:
                note_steps(folder, steps)
            if supervisor is not None:
                await client.forget_fault(name)
            result = await watch_search(
                client,
                name,
                callbacks,
                screen,
                start=start,
                supervisor=supervisor,
                folder=folder,
            )
    return end(result, callbacks)


extend = blocking(extend_async)
