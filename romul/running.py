"""A search on this machine, as a function: `run`."""

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from romul.blocking import blocking
from romul.callbacks import Callback, StopSearch
from romul.client import opened
from romul.declaration import Call, Mode, declare, warn_of
from romul.display import display
from romul.fingerprint import fingerprint
from romul.local_run import LocalRun, Task
from romul.processes import Supervisor, server_of, supervised
from romul.result import Result
from romul.supervisor import Plan
from romul.watching import SearchFailedError, Watch, end
from romul_actors.client import Client
from romul_actors.core.history import SearchExtended, SearchResumed
from romul_actors.errors import TaskError
from romul_actors.local.origin import begun_from_run, check_origin
from romul_actors.local.run_file import run_folder
from romul_actors.observe.snapshot import full_snapshot
from romul_actors.protocol.advice import advice
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import check
from romul_actors.protocol.statuses import ENDED
from romul_actors.waiting import cancel
from romul_workers import handed
from romul_workers.collection import collect_all
from romul_workers.functions import check_function
from romul_workers.inheritance import copies

Train = Callable[..., Any]

TASK = "task"
"""Folder, in a run's own, of the functions that were handed over."""
ARGUMENTS = ("workers", "setup", "runs", "resume", "fresh", "callbacks", "progress")
"""Arguments of `run` that are no keys of an experiment."""
BY = "romul.run"
IMPORT = """\
import sys
from romul_actors.errors import RomulError
from romul_workers.functions import check_function
from romul_workers.task_import import find_task
try:
    check_function(find_task(*sys.argv[1:])[1], ":".join(sys.argv[1:]))
except RomulError as error:
    sys.exit(str(error))
"""
"""Program that imports a task as a worker's child does."""


async def run_async(
    train: Train | str,
    space: Mapping[str, Any],
    *,
    metric: str = "loss",
    mode: Mode = "min",
    population: int = 8,
    steps: int,
    workers: int = 2,
    name: str | None = None,
    seed: int = 0,
    optimizer: str | Mapping[str, Any] = "romul",
    setup: Train | None = None,
    runs: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    **keys: Any,
) -> Result:
    """Search on this machine, with a server, an actor and workers of its own.

    `run` returns at the end, in a script, a notebook or a test; `run_async` is to be awaited.
    Ctrl-C, an interrupted kernel or a cancelled task ends all processes; the same call goes on
    where the search was.

    Args:
        train: `train(trial)` trains one step and returns the metric; it may be a closure, a lambda
            or a function of a notebook. Or the name of a task: "module:function".
        space: hyperparameters by name: `romul.Float`, `Int`, `Choice`, `Bool`.
        metric: what the search goes by: `train` returns it, or a mapping that holds it.
        mode: "min" or "max": whether less or more of it is better.
        population: number of slots, 4 at least.
        steps: PBT steps of each slot; a trial is one step.
        workers: processes that train.
        name: of the search. A call with the name of a former search goes on with it if it is the
            same one, and is an error if not. Left out: a new name each time.
        seed: all randomness of the search derives from it.
        optimizer: a name, or a table of a name and constants.
        setup: `setup(context)` runs once in each process; `trial.state` is what it returned.
        runs: folder of all runs; this one's is in it, by its name. None: the one that ROMUL_RUNS
            names, else `runs`.
        resume: go on with the search of that name, though the function has changed, or bounds,
            `steps`, `population` and constants of the optimizer: the new ones hold from then on.
        fresh: begin anew, and then remove the former run of that name. It stays as it is where this
            one cannot begin; one on a server that was named is refused.
        callbacks: hooks, see `romul.Callback`.
        progress: True: show a bar; False: none; None: in a terminal or a notebook.
        keys: further keys of an experiment, by their TOML names: `budget`, `budget_unit`,
            `initial`, `constants`, `timeouts`, `deadline`, `from_run` ...

    Returns:
        The result: `best`, `schedule`, `trials`, frames and plots.

    Raises:
        ExperimentError: what was declared is wrong; the message names the argument.
        ExperimentExistsError: another search has that name; the message says what to do.
        SearchFailedError: the function fails whatever the hyperparameters are.
        TaskError: the function cannot train (it is `async`, or a generator), or cannot go to
            another process.
    """
    call = Call(function="run", arguments=ARGUMENTS, without={"task": "`train` is the task"})
    call.check(workers=workers, runs=runs, setup=setup, callbacks=callbacks)
    if name is not None:
        call.check(name=name)
    chosen = name or _new_name(train)
    folder = run_folder(chosen, runs).resolve()
    task = _task(train, setup, folder)
    given: dict[str, Any] = {
        "name": chosen,
        "task": task.name,
        "metric": metric,
        "population": population,
    }
    given |= {"steps": steps, "seed": seed, "optimizer": optimizer}
    keys.setdefault("checkpoints", str(folder / "checkpoints"))
    experiment = declare(call, space, mode, keys, given)
    check(experiment)
    warn_of(advice(experiment))
    local = LocalRun(folder, experiment, task, workers)
    check_origin(experiment, folder.parent)
    if fresh and isinstance(train, str):
        await _check_import(experiment, task)
    changes = local.begin(resume=resume, fresh=fresh)
    plan = Plan(str(folder), workers, (experiment.module,), task.paths)
    try:
        if not isinstance(train, str):
            handed.write(folder / TASK, train, setup)
        same = f"the same call with name={chosen!r}" + (" and without fresh=True" if fresh else "")
        again = f"interrupted: {same} goes on"
        result = await _search(plan, local, changes, callbacks, progress, again)
    except BaseException:
        local.put_back()
        raise
    if result.status == "failed":
        raise SearchFailedError(
            f"{chosen}: {result.reason}\nThe same call with name={chosen!r} tries again; what the "
            f"function printed lies in {folder / 'logs'}"
        )
    end(result, callbacks)
    return result


run = blocking(run_async)


def _task(train: Train | str, setup: Train | None, folder: Path) -> Task:
    """What workers are given: a folder with the function, or the name of one.

    Raises:
        TaskError: it cannot train.
    """
    if isinstance(train, str):
        if setup is not None:
            raise TaskError("setup: a task that is given by its name has its `setup` in its module")
        return Task(train, _folders_of(train.partition(":")[0]), train)
    if not callable(train):
        raise TaskError(f"train: {train!r} is neither a function nor the name of one")
    check_function(train, name_of(train))
    return Task(f"{handed.MODULE}:train", (str(folder / TASK),), fingerprint(train, setup))


def _folders_of(module: str) -> tuple[str, ...]:
    """Where a worker looks for a module: beside the script, and where this process finds it."""
    beside = sys.path[0] or str(Path.cwd())
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None or not found.has_location or found.origin is None:
        return (beside,)
    file = Path(found.origin).absolute()
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    # What is installed is found anyway.
    installed = any(folder.is_relative_to(place) for place in (sys.prefix, sys.base_prefix))
    return (beside,) if installed or str(folder) == beside else (beside, str(folder))


async def _check_import(experiment: Experiment, task: Task) -> None:
    """Make sure that a process such as a worker's finds the task.

    Raises:
        TaskError: it does not; the message says why.
    """
    search = [*task.paths, os.environ.get("PYTHONPATH", "")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", IMPORT, experiment.module, experiment.function),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        why = said.decode(errors="replace").strip()
        raise TaskError(f"{task.name} cannot be imported: {why}")


def name_of(train: Train) -> str:
    """What a function calls itself."""
    return str(getattr(train, "__qualname__", type(train).__qualname__))


def _new_name(train: Train | str) -> str:
    """A name that no other run has: the function's, and the time."""
    name = train.rpartition(":")[2] if isinstance(train, str) else name_of(train)
    letters = [c if c.isascii() and c.isalnum() else "-" for c in name.rpartition(".")[2]]
    moment = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() // 1000 % 1_000_000:06d}"
    return f"{''.join(letters).strip('-')[:30] or 'run'}-{moment}"


async def _search(
    plan: Plan,
    local: LocalRun,
    changes: Changes,
    callbacks: Sequence[Callback],
    progress: bool | None,  # noqa: FBT001
    again: str,
) -> Result:
    """Start everything, and watch the search to its end; `again` is said of an interrupted one."""
    experiment = local.experiment
    with closing(display(experiment.name, progress)) as screen:
        async with (
            supervised(plan) as supervisor,
            opened(await supervisor.server(), by=BY) as client,
        ):
            watch = Watch(client.store, experiment, callbacks, screen)
            goes_on = await _enter(client, local, watch, changes)
            local.write()
            if goes_on:
                supervisor.begin()
                try:
                    await follow(watch, supervisor, client, experiment)
                except (KeyboardInterrupt, asyncio.CancelledError):
                    screen.say(again)
                    raise
            return Result(await full_snapshot(client.store, experiment.name), Path(plan.folder))


async def _enter(client: Client, local: LocalRun, watch: Watch, changes: Changes) -> bool:
    """Put a search into the run's store, or go on with the one there; False: it has ended."""
    experiment = local.experiment
    status = (await client.statuses()).get(experiment.name)
    if status is None:
        # New, or its server was killed before it had written the search to its disk.
        runs = local.folder.parent
        await client.submit(await begun_from_run(experiment, runs, server_of, copies))
        return True
    await client.forget_fault(experiment.name)
    return await go_on(client, watch, experiment.name, changes) or status not in ENDED


async def go_on(client: Client, watch: Watch, name: str, changes: Changes) -> bool:
    """Ask a search for changes, and resume one that is paused or has failed.

    Args:
        client: of its server.
        watch: follows it from then on.
        name: the search's.
        changes: what it is asked for.

    Returns:
        Whether it was resumed or has more steps, and so goes on though it had ended.

    Raises:
        RomulError: see `Client.apply`.
    """
    again = await client.is_halted(name)
    steps = (await client.spec(name)).steps
    extended = SearchExtended if changes.steps not in (None, steps) else None
    await watch.skip(until=SearchResumed if again else extended)
    await client.apply(name, changes)
    if again:
        await client.resume(name)
    return again or extended is not None


async def follow(
    watch: Watch, supervisor: Supervisor, client: Client, experiment: Experiment
) -> None:
    """Watch to the end, as long as the processes run; then remove what no trial needs.

    Raises:
        RomulError: they ended.
        SearchFailedError: see `Watch.look`.
    """
    watching = asyncio.create_task(watch.to_the_end(alone=True))
    failing = asyncio.create_task(supervisor.fail())
    try:
        await asyncio.wait((watching, failing), return_when=asyncio.FIRST_COMPLETED)
        (watching if watching.done() else failing).result()
    except StopSearch:
        await client.stop(experiment.name)
        await watch.until_stopped()
    finally:
        await cancel(watching, failing)
    await collect_all(client.store, [experiment])
