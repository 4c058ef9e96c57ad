"""The bench: runs of optimizers on the suite; each run is judged once and stored as a line.

A run's test loss is that of the checkpoint with the lowest validation loss of all steps, which
`romul best` would return. Runs use the production core (`play.py`). The key of a line depends on
everything that affects the result, so a stored line is used again only if nothing has changed.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import pkgutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from math import isfinite
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from romul_actors.core.decide import decide
from romul_actors.core.optimizers import make
from romul_sim.baselines import IN_ONE_PROCESS, PEERS, check_peer, play_peer
from romul_sim.bench.fingerprint import fingerprint, has_source, mentions
from romul_sim.play import ASYNCHRONOUS, SYNCHRONOUS, Run, Training, optimizer_spec
from romul_sim.pool import as_ended
from romul_sim.run_error import RunError

SUITE = "romul_sim.suite"
"""The default module of problems; another one must also have SUITE, DEVELOP and REPORT."""

DIGITS = 6
"""Significant digits of the curve, which only plots use."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

_INSTALLED = frozenset({"site-packages", "dist-packages"})

RunLine = Mapping[str, Any]
"""A finished run: its parameters and its results."""


@dataclass(frozen=True, slots=True)
class BenchJob:
    """One run of an optimizer on a problem.

    Attributes:
        problem: name of the problem in the suite.
        optimizer: name of the optimizer, optionally with options, in canonical form (see
            `canonical`).
        population: number of slots.
        steps: number of PBT steps.
        seed: seed of everything random.
        asynchronous: whether workers differ in speed by up to a factor of 4 and a fifth of the
            trials is interrupted; otherwise all workers are equal.
        suite: module of the problems.
    """

    problem: str
    optimizer: str
    population: int
    steps: int
    seed: int
    asynchronous: bool = False
    suite: str = SUITE


def job_of(line: RunLine, module: str = SUITE) -> BenchJob:
    """The job of a line.

    Args:
        line: a line, as `play` makes it.
        module: module of the suite, which a line does not name.
    """
    return BenchJob(
        line["problem"],
        line["optimizer"],
        line["population"],
        line["steps"],
        line["seed"],
        line["conditions"] == "asynchronous",
        module,
    )


def suite(module: str) -> Mapping[str, Any]:
    """The problems of a suite, by name."""
    problems: Mapping[str, Any] = importlib.import_module(module).SUITE
    return problems


def canonical(optimizer: str) -> str:
    """The same optimizer with its options sorted by name and the values as JSON.

    Raises:
        ExperimentError: an option is not option=value.
    """
    spec = optimizer_spec(optimizer)
    options = [f"{key}={json.dumps(spec[key])}" for key in sorted(spec) if key != "name"]
    return ":".join([spec["name"], *options])


def jobs(
    problems: Sequence[str],
    optimizers: Sequence[str],
    population: int,
    seeds: range,
    peer_seeds: int,
    *,
    steps: int | None = None,
    asynchronous: bool = False,
    module: str = SUITE,
) -> list[BenchJob]:
    """All runs of a comparison, ordered by seed.

    Args:
        problems: names of the problems.
        optimizers: names of the optimizers, optionally with options.
        population: number of slots.
        seeds: seeds of each optimizer on each problem.
        peer_seeds: number of seeds for the optimizers of other libraries.
        steps: number of PBT steps; None: that of each problem.
        asynchronous: see `BenchJob`.
        module: module of the suite.
    """
    known = suite(module)
    return [
        BenchJob(
            problem,
            optimizer,
            population,
            steps or known[problem].steps,
            seed,
            asynchronous,
            module,
        )
        for seed in seeds
        for problem in problems
        for optimizer in map(canonical, optimizers)
        if optimizer not in PEERS or seed - seeds.start < peer_seeds
    ]


def shard(todo: Sequence[BenchJob], index: int, n_shards: int) -> list[BenchJob]:
    """Part `index` (from 1) of `n_shards` disjoint parts of all runs."""
    return [job for place, job in enumerate(todo) if place % n_shards == index - 1]


# -- what a line came from ------------------------------------------------------------------------


def key(job: BenchJob) -> str:
    """A hash of everything that a run's result depends on, 20 hexadecimal digits.

    It covers the problem's name, data, space and source; the optimizer's name, options and source,
    with that of the core (for a peer: its version); the engine's source; slots, steps, seed and
    conditions. It does not cover numpy's version or the processor, which may change the last digits
    of a loss.
    """
    problem = suite(job.suite)[job.problem]
    parts = [
        job.problem,
        problem.identity,
        {name: dict(spec) for name, spec in problem.space.items()},
        _problem_source(job.suite, job.problem),
        job.optimizer,
        optimizer_source(job.optimizer.partition(":")[0]),
        fingerprint("romul_sim.play", ()),
        job.population,
        job.steps,
        job.seed,
        asdict(ASYNCHRONOUS if job.asynchronous else SYNCHRONOUS),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


@lru_cache
def _problem_source(module: str, name: str) -> str:
    """Fingerprint of the modules that name the problem or define its functions.

    The module that names a problem has its sizes, but may not be the one with its functions. In a
    suite that does not come with ROMUL, it may be the suite's module itself.
    """
    problem = suite(module)[name]
    path = getattr(importlib.import_module(module), "__path__", None)
    members = [f"{module}.{found.name}" for found in pkgutil.iter_modules(path or [])]
    roots = {getattr(part, "func", part).__module__ for part in (problem.step, problem.test)}
    roots |= {each for each in members if has_source(each) and mentions(each, name)}
    if module != SUITE:
        roots = {module, *filter(has_source, roots)}
    return "".join(sorted(fingerprint(root, _followed(module)) for root in roots))


@lru_cache
def _followed(module: str) -> tuple[str, ...]:
    """Packages and modules whose imports belong to a suite.

    They are the suite's own package, ROMUL's suite, and modules in the same folder, unless that is
    the folder of installed packages.
    """
    package = module.partition(".")[0]
    top = importlib.import_module(package)
    places = [*getattr(top, "__path__", ())] or [str(top.__file__)]
    folders = [Path(place).parent for place in places]
    beside = [str(folder) for folder in folders if not _INSTALLED.intersection(folder.parts)]
    return (package, SUITE, *(found.name for found in pkgutil.iter_modules(beside)))


@lru_cache
def optimizer_source(name: str) -> str:
    """Fingerprint of an optimizer and of the core; for a peer, of its version and interface."""
    if name in PEERS:
        version = importlib.metadata.version(PEERS[name].module.replace("_", "-"))
        return f"{version} {fingerprint('romul_sim.baselines', ())}"
    module = type(make(name, {})).__module__
    # For an optimizer in an installed package, the imports inside that package are followed.
    packages = (*{"romul_actors", module.partition(".")[0]},)
    return "".join(fingerprint(root, packages) for root in (module, decide.__module__))


# -- one run --------------------------------------------------------------------------------------


def play(job: BenchJob, its_key: str) -> RunLine:
    """Run one job; the same job gives the same result.

    Raises:
        OptimizerError: a peer's library is not installed, or a peer should run asynchronously.
        RunError: the problem or the optimizer raised an exception, or called sys.exit.
    """
    conditions = ASYNCHRONOUS if job.asynchronous else SYNCHRONOUS
    if job.optimizer in PEERS:
        check_peer(job.optimizer, conditions)
    try:
        problem = suite(job.suite)[job.problem]
        training = Training(problem.space, job.steps, problem.step, problem.test)
        if job.optimizer in PEERS:
            outcome = _of_peer(training, job)
        else:
            run = Run(training, job.optimizer, job.population, job.seed, conditions)
            outcome = _of_run(training, run.to_the_end())
    except (Exception, SystemExit) as error:
        raise RunError.of(job.problem, job.optimizer, job.seed, error) from error
    return {
        "key": its_key,
        "problem": job.problem,
        "optimizer": job.optimizer,
        "population": job.population,
        "steps": job.steps,
        "conditions": "asynchronous" if job.asynchronous else "synchronous",
        "seed": job.seed,
        **outcome,
    }


def _of_run(training: Training, run: Run) -> dict[str, Any]:
    best, last = run.population.best, run.winner(training.steps - 1)
    winners = [run.winner(step) for step in range(training.steps)]
    return _kept(
        None if best is None else partial(training.judge, run.states[best.checkpoint]),
        None if last is None else partial(training.judge, run.state(last)),
        [None if winner is None else run.trials[winner].loss for winner in winners],
        run.now,
    )


def _of_peer(training: Training, job: BenchJob) -> dict[str, Any]:
    winners = play_peer(job.optimizer, training, job.population, job.seed).winners
    (_, best), steps = winners.best, winners.steps
    last = steps.get(training.steps - 1)
    return _kept(
        None if best is None else best[0],
        None if last is None else last[1][0],
        [steps[step][0] if step in steps else None for step in range(training.steps)],
        float(training.steps),
    )


def _kept(
    best: Callable[[], float] | None,
    last: Callable[[], float] | None,
    curve: Sequence[float | None],
    makespan: float,
) -> dict[str, Any]:
    """The results of a run that are stored.

    Args:
        best: returns the test loss of the checkpoint with the lowest validation loss of all steps;
            None: there is none.
        last: the same for the last step.
        curve: lowest validation loss at each step.
        makespan: duration of the run, in trials of the fastest worker.
    """

    def judged(judge: Callable[[], float] | None) -> float | None:
        loss = None if judge is None else float(judge())
        return loss if loss is not None and isfinite(loss) else None

    known = [loss for loss in curve if loss is not None]
    return {
        "test": judged(best),
        "test_last": judged(last),
        "loss": min(known, default=None),
        "makespan": round(makespan, DIGITS),
        "curve": [None if loss is None else float(f"{loss:.{DIGITS}g}") for loss in curve],
    }


# -- all runs -------------------------------------------------------------------------------------


def play_all(todo: Mapping[str, BenchJob], processes: int | None = None) -> Iterator[RunLine]:
    """Run jobs in parallel, and yield each line when its run ends.

    Args:
        todo: jobs by key.
        processes: number of processes; None: the number of cores.
    """
    apart = {name: job for name, job in todo.items() if job.optimizer != IN_ONE_PROCESS}
    if apart:
        # Not forked, because BLAS reads its number of threads when numpy is loaded.
        context = multiprocessing.get_context("spawn")
        with (
            _one_thread_each(),
            ProcessPoolExecutor(
                min(len(apart), processes or os.cpu_count() or 1), context, _end_with_parent
            ) as pool,
        ):
            for _, line in as_ended(pool, play, ((job, name) for name, job in apart.items())):
                yield line
    for name, job in todo.items():
        if job.optimizer == IN_ONE_PROCESS:
            yield play(job, name)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Make BLAS use one thread in processes that are started inside the `with` block."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """End this process of the pool if its parent is killed; otherwise it would wait for ever."""
    parent = multiprocessing.parent_process()
    # Ctrl-C is for the parent process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
