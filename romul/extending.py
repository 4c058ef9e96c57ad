"""A search goes on to more steps: `extend`."""

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
from romul_actors.local.run_file import RunFile, check_run, run_folder
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
    """Go on with a search to more steps, and follow it to its end.

    `extend` returns at the end; `extend_async` is to be awaited. A finished, stopped, paused or
    failed search goes on; so does one that is under way.

    Args:
        name: the search's.
        steps: how many it has then, in all.
        redis: the server's URL, whose actors and workers go on; None: it is a local run.
        workers: processes that train in a local run; None: as many as before.
        runs: folder of the local runs; None: the one that ROMUL_RUNS names, else `runs`.
        callbacks: hooks, for what happens from now on.
        progress: True: show a bar; False: none; None: in a terminal or a notebook.

    Raises:
        ExperimentError: it has as many steps already.
        UnknownExperimentError: there is no search of that name.
        StoreUnavailableError: the server does not answer.
        SearchFailedError: the local run fails.
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
                f"{name}: {result.reason}\nromul run --resume tries again; what the function "
                f"printed lies in {folder / 'logs'}"
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
    """Go on with a local run that has ended."""
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
    """Extend a search whose actor and workers are those of another program."""
    with closing(display(name, progress)) as screen:
        async with opened(redis) as client:
            watch = Watch(client.store, await client.spec(name), callbacks, screen)
            await go_on(client, watch, name, Changes(steps=steps, asked=True))
            if folder is not None:
                note_steps(folder, steps)
            await watch.to_the_end()
            return Result(await full_snapshot(client.store, name), folder)
