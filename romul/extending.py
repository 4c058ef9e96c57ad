"""Extends a search to more steps: `extend`."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from romul.blocking import blocking
from romul.callbacks import Callback
from romul.client import opened
from romul.declaration import Call
from romul.display import display
from romul.local_run import note_steps
from romul.processes import supervised
from romul.result import Result
from romul.running import BY, follow, go_on
from romul.supervisor import Plan
from romul.watching import SearchFailedError, Watch, end
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import RunFile, check_run, resumption, run_folder
from romul_actors.observe.snapshot import full_snapshot
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
        redis: URL of the server that has the search; its actors and workers continue it. None (the
            default) means a local run.
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
        SearchFailedError: the local run failed.
    """
    call = Call(function="extend", arguments=())
    call.check(name=name, steps=steps, runs=runs, callbacks=callbacks)
    if workers is not None:
        call.check(workers=workers)
    folder = None if redis is not None else run_folder(name, runs).resolve()
    if folder is not None:
        check_run(folder)
    if folder is None or is_up(folder):
        server = str(folder) if redis is None else redis
        result = await _elsewhere(server, name, steps, folder, callbacks, progress)
    else:
        run = RunFile.read(folder)
        plan = Plan(str(folder), workers or run.workers, tuple(run.allow), tuple(run.paths))
        result = await _here(plan, name, steps, callbacks, progress)
        if result.status == "failed":
            raise SearchFailedError(
                f"{name}: {result.reason}\nTo try again, use `{resumption(folder)}`. The output "
                f"of the function is in {folder / 'logs'}"
            )
    end(result, callbacks)
    return result


extend = blocking(extend_async)


async def _here(
    plan: Plan,
    name: str,
    steps: int,
    callbacks: Sequence[Callback],
    progress: bool | None,  # noqa: FBT001
) -> Result:
    """Extend a local run whose processes have ended."""
    folder = Path(plan.folder)
    with closing(display(name, progress)) as screen:
        async with (
            supervised(plan) as supervisor,
            opened(await supervisor.server(), by=BY) as client,
        ):
            experiment = await client.spec(name)
            watch = Watch(client.store, experiment, callbacks, screen)
            await go_on(client, watch, name, Changes(steps=steps, asked=True))
            note_steps(folder, steps)
            await client.forget_fault(name)
            supervisor.begin()
            await follow(watch, supervisor, client, experiment)
            return Result(await full_snapshot(client.store, name), folder)


async def _elsewhere(
    redis: str,
    name: str,
    steps: int,
    folder: Path | None,
    callbacks: Sequence[Callback],
    progress: bool | None,  # noqa: FBT001
) -> Result:
    """Extend a search whose actor and workers belong to another program."""
    with closing(display(name, progress)) as screen:
        async with opened(redis) as client:
            watch = Watch(client.store, await client.spec(name), callbacks, screen)
            await go_on(client, watch, name, Changes(steps=steps, asked=True))
            if folder is not None:
                note_steps(folder, steps)
            await watch.to_the_end()
            return Result(await full_snapshot(client.store, name), folder)
