"""Runs a search on this machine: `run`."""

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
from romul.callbacks import Callback
from romul.client import opened
from romul.declaration import Call, Mode, declare, warn_of
from romul.display import display
from romul.fingerprint import fingerprint
from romul.local_run import LocalRun, Task
from romul.processes import server_of, supervised
from romul.result import Result
from romul.supervisor import Plan
from romul.watching import Start, end, now, watch_search
from romul_actors.client import Client
from romul_actors.core.history import SearchExtended, SearchResumed
from romul_actors.errors import ExperimentError, TaskError
from romul_actors.launch.local_workers import names_of_gpus
from romul_actors.local.origin import begun_from_run, check_origin
from romul_actors.local.run_file import run_folder
from romul_actors.observe.snapshot import full_snapshot
from romul_actors.protocol.advice import advice
from romul_actors.protocol.checkpoint_folder import absolute
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import check
from romul_actors.protocol.statuses import ENDED
from romul_workers import handed
from romul_workers.checkpoints.inheritance import copies
from romul_workers.child.functions import check_function

Train = Callable[..., Any]

TASK = "task"
"""Subfolder of a run's folder for the functions that are handed to workers."""
ARGUMENTS = ("workers", "gpus", "setup", "runs", "resume", "fresh", "callbacks", "progress")
"""Arguments of `run` that are not keys of an experiment."""
BY = "romul.run"
IMPORT = """\
import sys
from romul_actors.errors import RomulError
from romul_workers.child.functions import check_function
from romul_workers.child.task_import import find_task
try:
    check_function(find_task(*sys.argv[1:])[1], ":".join(sys.argv[1:]))
except RomulError as error:
    sys.exit(str(error))
"""
"""Program that imports a task in the same way as a worker's child process."""


async def run_async(
    task: Train | str,
    space: Mapping[str, Any],
    *,
    metric: str = "loss",
    mode: Mode = "min",
    population: int = 8,
    steps: int,
    workers: int = 2,
    gpus: int = 0,
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
    """Run a search on this machine, with its own server, actor and workers.

    `run` is a blocking call, for scripts, notebooks and tests; `run_async` is the coroutine.
    Ctrl-C, an interrupt of the notebook's kernel or cancellation of the coroutine ends all
    processes. To continue the search, repeat the call with the same `name`.

    Args:
        task: function `train(trial)` that trains one step and returns the metric; a closure, a
            lambda or a function defined in a notebook works too. Or its name, "module" or
            "module:function".
        space: hyperparameters by name, as `romul.Float`, `Int`, `Choice` and `Bool` declare them.
        metric: name of the metric to optimize. The task returns its value, or a mapping that
            contains it.
        mode: "min" to minimize the metric, "max" to maximize it.
        population: number of slots, at least 4.
        steps: number of PBT steps of each slot. A trial is one step of one slot.
        workers: number of worker processes.
        gpus: number of GPUs that each worker has for itself. With 0 (the default) all workers see
            the same ones, and `trial.device` is the first of them.
        name: name of the search. If a search with this name exists, the call continues it, provided
            that its declaration and function are the same. Default: a new name for each call.
        seed: seed for all random decisions of the search.
        optimizer: name of the optimizer, or a table with its name and constants, such as
            `{"name": "romul", "factor": 0.5}`.
        setup: function `setup(context)` that is called once in each training process. Tasks find
            the value that it returns in `trial.state`.
        runs: folder that holds all runs, each in a subfolder with its name. Default: the folder in
            ROMUL_RUNS, or `runs`.
        resume: continue the search `name` even if the function, bounds, `steps`, `population` or
            constants of the optimizer have changed. The new values apply from then on.
        fresh: start a new search, and remove the previous run with this name once the new one has
            begun. A run that `romul run --redis` began is not removed; the call fails.
        callbacks: a list of `romul.Callback` objects.
        progress: True shows a progress bar, False does not. None (the default) shows one in a
            terminal or a notebook.
        keys: further keys of an experiment, by their TOML names: `budget`, `budget_unit`,
            `initial`, `constants`, `timeouts`, `deadline`, `from_run` and so on.

    Returns:
        The result, with `best`, `schedule`, `trials`, data frames and plots.

    Raises:
        ExperimentError: the declaration is invalid; the message names the argument.
        ExperimentExistsError: another search has this name; the message says what to do.
        LaunchError: there are fewer GPUs than `workers` and `gpus` need.
        SearchFailedError: the function fails regardless of the hyperparameters, or every trial of
            one step has failed.
        TaskError: the function cannot be used as a task (it is a coroutine function or a
            generator), or cannot be sent to another process.
    """
    call = Call(function="run", arguments=ARGUMENTS)
    call.check(workers=workers, runs=runs, setup=setup, callbacks=callbacks)
    call.check(resume=resume, fresh=fresh, gpus=gpus)
    if name is not None:
        call.check(name=name)
    elif resume:
        raise ExperimentError("run(): resume=True needs the name of the search that it continues")
    chosen = _new_name(task) if name is None else name
    folder = run_folder(chosen, runs).resolve()
    found = _task(task, setup, folder)
    given: dict[str, Any] = {
        "name": chosen,
        "task": found.name,
        "metric": metric,
        "population": population,
    }
    given |= {"steps": steps, "seed": seed, "optimizer": optimizer}
    keys.setdefault("checkpoints", str(folder / "checkpoints"))
    experiment = declare(call, space, mode, keys, given)
    if experiment.checkpoints is not None:
        place = absolute(experiment.checkpoints)
        experiment = experiment.model_copy(update={"checkpoints": place})
    check(experiment)
    warn_of(advice(experiment))
    names_of_gpus(workers * gpus)
    local = LocalRun(folder, experiment, found, workers, gpus)
    check_origin(experiment, folder.parent)
    if fresh and isinstance(task, str):
        await _check_import(experiment, found)
    changes = local.begin(resume=resume, fresh=fresh)
    plan = Plan(str(folder), workers, (experiment.module,), found.paths, gpus)
    try:
        if not isinstance(task, str):
            handed.write(folder / TASK, task, setup)
        same = f"the same call with name={chosen!r}" + (" and without fresh=True" if fresh else "")
        again = f"interrupted: {same} continues the search"
        result = await _search(plan, local, changes, callbacks, progress, again)
    except BaseException:
        local.put_back()
        raise
    return end(result, callbacks, f"repeat the call with name={chosen!r}")


run = blocking(run_async)


def _task(task: Train | str, setup: Train | None, folder: Path) -> Task:
    """The task as workers import it: by its name, or from a folder that holds the function.

    Raises:
        TaskError: it cannot be used as a task.
    """
    if isinstance(task, str):
        if setup is not None:
            raise TaskError("setup: if the task is given by name, define `setup` in its module")
        return Task(task, _folders_of(task.partition(":")[0]), task)
    if not callable(task):
        raise TaskError(f'task: {task!r} is neither a function nor a name "module:function"')
    check_function(task, name_of(task))
    return Task(f"{handed.MODULE}:train", (str(folder / TASK),), fingerprint(task, setup))


def _folders_of(module: str) -> tuple[str, ...]:
    """Folders in which workers look for a module: the script's, and where this process finds it."""
    beside = sys.path[0] or str(Path.cwd())
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None or not found.has_location or found.origin is None:
        return (beside,)
    file = Path(found.origin).absolute()
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    # Workers find installed modules anyway.
    installed = any(folder.is_relative_to(place) for place in (sys.prefix, sys.base_prefix))
    return (beside,) if installed or str(folder) == beside else (beside, str(folder))


async def _check_import(experiment: Experiment, task: Task) -> None:
    """Check that a worker can import the task, by importing it in a new process.

    Raises:
        TaskError: the import fails; the message says why.
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
    """The qualified name of a function, or of the type of another callable."""
    return str(getattr(train, "__qualname__", type(train).__qualname__))


def _new_name(train: Train | str) -> str:
    """A unique name for a run: the function's name and the time."""
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
    """Start all processes and watch the search to its end; show `again` if it is interrupted."""
    experiment, folder = local.experiment, Path(plan.folder)
    with closing(display(experiment.name, progress)) as screen:
        async with (
            supervised(plan) as supervisor,
            opened(await supervisor.server(), by=BY) as client,
        ):
            start = await _enter(client, local, changes)
            local.write()
            if start is None:
                return Result(await full_snapshot(client.store, experiment.name), folder)
            try:
                return await watch_search(
                    client,
                    experiment.name,
                    callbacks,
                    screen,
                    start=start,
                    supervisor=supervisor,
                    folder=folder,
                )
            except (KeyboardInterrupt, asyncio.CancelledError):
                screen.say(again)
                raise


async def _enter(client: Client, local: LocalRun, changes: Changes) -> Start | None:
    """Submit a search, or continue the stored one.

    Returns:
        Where to start to watch it; None if the stored search has already ended.
    """
    experiment = local.experiment
    status = (await client.statuses()).get(experiment.name)
    if status is None:
        # The search is new, or its server was killed before it had saved the search.
        runs = local.folder.parent
        await client.submit(await begun_from_run(experiment, runs, server_of, copies))
        return Start()
    await client.forget_fault(experiment.name)
    start = await go_on(client, experiment.name, changes)
    return None if status in ENDED and start.awaited is None else start


async def go_on(client: Client, name: str, changes: Changes) -> Start:
    """Request changes of a search, and resume it if it is paused or has failed.

    Args:
        client: client of its server.
        name: name of the search.
        changes: the changes to request.

    Returns:
        Where to start to watch it. A request that lets a search continue even if it has ended, to
        resume or to extend it, is awaited.

    Raises:
        UnknownExperimentError: there is no search of that name.
        RomulError: see `Client.apply`.
    """
    steps = (await client.spec(name)).steps
    again = await client.is_halted(name)
    extended = SearchExtended if changes.steps not in (None, steps) else None
    start = await now(client, name, awaited=SearchResumed if again else extended)
    await client.apply(name, changes)
    if again:
        await client.resume(name)
    return start
