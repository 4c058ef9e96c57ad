"""The bench: runs of optimizers on the suite, each of which is judged once and kept as a line.

A run's test loss is that of the checkpoint that `romul best` would give: of the lowest validation
loss ever. Runs are played in the production core (`play.py`); a line's key says what it came from,
so that a line is used again only where nothing of that has changed.
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
import traceback
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
from romul_actors.errors import RomulError
from romul_sim.apart import as_ended
from romul_sim.baselines import IN_ONE_PROCESS, PEERS, check_peer, play_peer
from romul_sim.fingerprint import fingerprint, has_source, mentions
from romul_sim.play import ASYNCHRONOUS, SYNCHRONOUS, Run, Training, optimizer_spec

SUITE = "romul_sim.suite"
"""The module of the problems; any that has SUITE, DEVELOP and REPORT will do."""

DIGITS = 6
"""Significant digits of the curve, which only plots need."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

_INSTALLED = frozenset({"site-packages", "dist-packages"})

RunLine = Mapping[str, Any]
"""A finished run: what it was, and how it came out."""


class RunError(RomulError):
    """A run raised something: the message names problem, optimizer and seed; see `_named`."""


@dataclass(frozen=True, slots=True)
class BenchJob:
    """One run of an optimizer on a problem.

    Attributes:
        problem: its name in the suite.
        optimizer: name, with options if need be; in its canonical form (see `canonical`).
        population: slots.
        steps: PBT steps.
        seed: of everything random.
        asynchronous: workers of up to 4x different speed, a fifth of whose trials are cut short;
            else equal ones.
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
    """The run that a line is of.

    Args:
        line: a line as `play` makes them.
        module: of the suite, which a line does not name.
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
    """Problems by name."""
    problems: Mapping[str, Any] = importlib.import_module(module).SUITE
    return problems


def canonical(optimizer: str) -> str:
    """The same optimizer with its options in the order of their names, values as JSON.

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
    """All runs of a comparison, the first seed of everything first.

    Args:
        problems: names.
        optimizers: names with options.
        population: slots.
        seeds: seeds of each.
        peer_seeds: how many of these other libraries get.
        steps: PBT steps, in place of each problem's own.
        asynchronous: see `BenchJob`.
        module: of the suite.
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
    """Part `index` (from 1) of `n_shards` that have no run in common and together all of them."""
    return [job for place, job in enumerate(todo) if place % n_shards == index - 1]


# -- what a line came from ------------------------------------------------------------------------


def key(job: BenchJob) -> str:
    """What a run's outcome depends on, as 20 hexadecimal digits.

    The problem's name, data, space and source; the optimizer's name, options and source with that
    of the core (a peer's: its version); the engine's source; slots, steps, seed and conditions.
    Not numpy's version nor the processor, which may change the last digits of a loss.
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

    Its sizes stand where it is named, which need not be where its functions are. Of a suite other
    than this project's they may stand in the suite's module itself, or come from it.
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
    """Packages and modules whose imports belong to a suite: its own, this project's, those beside.

    Beside an installed package lie all others, which are taken as they are.
    """
    package = module.partition(".")[0]
    top = importlib.import_module(package)
    places = [*getattr(top, "__path__", ())] or [str(top.__file__)]
    folders = [Path(place).parent for place in places]
    beside = [str(folder) for folder in folders if not _INSTALLED.intersection(folder.parts)]
    return (package, SUITE, *(found.name for found in pkgutil.iter_modules(beside)))


@lru_cache
def optimizer_source(name: str) -> str:
    """Fingerprint of an optimizer and of the core that decides; of a peer, its version too."""
    if name in PEERS:
        version = importlib.metadata.version(PEERS[name].module.replace("_", "-"))
        return f"{version} {fingerprint('romul_sim.baselines', ())}"
    module = type(make(name, {})).__module__
    # What an installed package adds is looked at as far as that package goes.
    packages = (*{"romul_actors", module.partition(".")[0]},)
    return "".join(fingerprint(root, packages) for root in (module, decide.__module__))


# -- one run --------------------------------------------------------------------------------------


def play(job: BenchJob, its_key: str) -> RunLine:
    """Run one job; the same job comes out the same.

    Raises:
        OptimizerError: a peer that is not installed, or one that should run asynchronously.
        RunError: the problem or the optimizer raised something.
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
    except Exception as error:
        raise RunError(_named(job, error)) from error
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


def _named(job: BenchJob, error: Exception) -> str:
    """Which run raised what, with the traceback from the first frame that is not the bench's.

    An error of ROMUL's own says all in its words.
    """
    run = f"problem {job.problem!r} with {job.optimizer}, seed {job.seed}"
    if isinstance(error, RomulError):
        return f"{run}: {error}"
    trace, here = error.__traceback__, Path(__file__).parent
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == here:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).strip()
    return f"{run}: {type(error).__name__}: {error}\n\n{text}"


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
    """What is kept of a run.

    Args:
        best: judges the checkpoint of the lowest validation loss ever; None: there is none.
        last: the same of the last step.
        curve: lowest validation loss at each step.
        makespan: in trials of the fastest worker.
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
    """Play jobs, by their keys, on all cores; lines as they end.

    Args:
        todo: jobs by key.
        processes: how many; None: one for each core.
    """
    apart = {name: job for name, job in todo.items() if job.optimizer != IN_ONE_PROCESS}
    if apart:
        # Not forked: numpy's threads are counted when it is loaded.
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
    """Processes that are started inside count one thread for BLAS."""
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
    """A process of the pool ends when its parent is killed; by itself it would wait for ever."""
    parent = multiprocessing.parent_process()
    # An interruption is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
