"""The laboratory: compares optimizers on toy problems over many seeds, with uncertainties.

The optimizers run in the production core (`play.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.baselines import IN_ONE_PROCESS, PEERS, check_peer, play_peer
from romul_sim.play import SYNCHRONOUS, Conditions, Played, Run, Training, Values, schedule
from romul_sim.pool import as_ended
from romul_sim.run_error import RunError
from romul_workers.tasks.toys import TOYS, Stepped, Toy

RESAMPLES = 2_000
"""Number of bootstrap samples for each confidence."""


@dataclass(frozen=True, slots=True)
class LabJob:
    """One run.

    Attributes:
        problem: name of the toy problem.
        optimizer: name of the optimizer, optionally with options.
        population: number of slots.
        seed: seed of everything random.
        conditions: how results arrive.
        steps: number of PBT steps; None: as many as the problem is designed for.
        golden: whether to hash the history, which takes about a third more time.
    """

    problem: str
    optimizer: str
    population: int
    seed: int
    conditions: Conditions = SYNCHRONOUS
    steps: int | None = None
    golden: bool = False

    @property
    def toy(self) -> Toy:
        """The problem, with this job's number of steps."""
        toy = TOYS[self.problem]
        return toy if self.steps is None else replace(toy, steps=self.steps)


def training(toy: Toy) -> Training:
    """Convert a toy to a `Training`; its states also hold the true loss for the judge."""

    def step(
        state: Stepped | None, values: Values, number: int, rng: Generator
    ) -> tuple[Stepped, float]:
        stepped = toy.step(None if state is None else state.state, values, number, rng)
        return stepped, stepped.observed

    return Training(toy.space, toy.steps, step, lambda stepped: float(stepped.true))


def play(job: LabJob) -> Played:
    """Run one job; the same job gives the same result.

    Raises:
        OptimizerError: a peer's library is not installed, or a peer should run asynchronously.
        RunError: the optimizer raised an exception, or called sys.exit.
    """
    if job.optimizer in PEERS:
        check_peer(job.optimizer, job.conditions)
    try:
        return _played(job)
    except (Exception, SystemExit) as error:
        raise RunError.of(job.problem, job.optimizer, job.seed, error) from error


def _played(job: LabJob) -> Played:
    toy = job.toy
    if job.optimizer in PEERS:
        return play_peer(job.optimizer, training(toy), job.population, job.seed).played()
    run = Run(
        training(toy),
        job.optimizer,
        job.population,
        job.seed,
        job.conditions,
        keep=True,
        golden=job.golden,
    ).to_the_end()
    winners = [run.winner(step) for step in range(toy.steps)]
    curve = [run.training.judge(run.state(trial)) for trial in winners if trial is not None]
    golden = None if run.golden is None else run.golden.hexdigest()
    line = run.line(winners[-1])
    return Played(curve[-1], curve, schedule(toy.space, line), run.now, golden)


@dataclass(slots=True)
class Row:
    """The results of one optimizer on one problem.

    Attributes:
        problem, optimizer, population: as in `LabJob`.
        finals: final true losses, by seed.
        curves: true losses by seed and step, shape (n_seeds, n_steps).
        schedules: the winner's schedule, by seed.
        makespan: mean duration, in trials of the fastest worker.
        rank: rank of the median on this problem with this population, from 1.
        beats: the bootstrap's probability that this optimizer's median is lower, by other
            optimizer.
        golden: hash of the history by seed, if it was requested and the core decided the run.
    """

    problem: str
    optimizer: str
    population: int
    finals: list[float]
    curves: list[list[float]]
    schedules: list[dict[str, list[Any]]]
    makespan: float
    rank: int = 0
    beats: dict[str, float] = field(default_factory=dict)
    golden: dict[int, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median final true loss."""
        return float(np.median(self.finals))

    def as_json(self) -> dict[str, Any]:
        """The row without curves, as JSON values."""
        best = TOYS[self.problem].best
        known = best() if best is not None else 0.0
        quartiles = np.quantile(self.finals, [0.25, 0.75])
        return {
            "problem": self.problem,
            "optimizer": self.optimizer,
            "population": self.population,
            "seeds": len(self.finals),
            "median": self.median,
            "quartiles": [float(q) for q in quartiles],
            # There is no ratio to a best of 0.
            "ratio_to_best": self.median / known if known > 0 else None,
            "rank": self.rank,
            "makespan": round(self.makespan, 2),
            "beats": self.beats,
            **({"golden_sha256": self.golden} if self.golden else {}),
        }


def jobs(
    problems: Sequence[str],
    optimizers: Sequence[str],
    populations: Sequence[int],
    seeds: int,
    conditions: Conditions,
    steps: int | None = None,
    *,
    golden: bool = False,
) -> list[LabJob]:
    """All runs of a comparison."""
    return [
        LabJob(problem, optimizer, population, seed, conditions, steps, golden)
        for population in populations
        for problem in problems
        for optimizer in optimizers
        for seed in range(seeds)
    ]


def play_all(
    todo: Sequence[LabJob], processes: int | None = None
) -> Iterator[tuple[LabJob, Played]]:
    """Run jobs in parallel, and yield each with its result when it ends.

    Args:
        todo: the jobs.
        processes: number of processes; None: the number of cores.

    Raises:
        RunError: runs have failed. It is raised when all others have ended.
    """
    failed: list[RunError] = []
    for job, played in _all_played(todo, processes):
        if isinstance(played, RunError):
            failed.append(played)
        else:
            yield job, played
    if failed:
        raise RunError(f"{failed[0]}\n\n{len(failed)} of {len(todo)} runs failed")


def _all_played(
    todo: Sequence[LabJob], processes: int | None
) -> Iterator[tuple[LabJob, Played | RunError]]:
    with ProcessPoolExecutor(processes) as pool:
        apart = [(job,) for job in todo if job.optimizer != IN_ONE_PROCESS]
        for (job,), played in as_ended(pool, _played_or_failed, apart):
            yield job, played
    # This peer starts its own processes.
    for job in todo:
        if job.optimizer == IN_ONE_PROCESS:
            yield job, _played_or_failed(job)


def _played_or_failed(job: LabJob) -> Played | RunError:
    try:
        return play(job)
    except RunError as error:
        return error


def compare(played: Mapping[LabJob, Played]) -> list[Row]:
    """Rows of a comparison, in order of problem, population and rank.

    Args:
        played: runs. Runs of the same problem, population and optimizer may differ only in their
            seeds.

    Raises:
        ValueError: some of them differ in something else.
    """
    rows: dict[tuple[str, int, str], Row] = {}
    firsts: dict[tuple[str, int, str], LabJob] = {}
    for job in sorted(played, key=lambda j: j.seed):
        key = (job.problem, job.population, job.optimizer)
        first = firsts.setdefault(key, job)
        if replace(job, seed=first.seed) != first:
            raise ValueError(f"{first} and {job} do not belong into one row")
        row = rows.setdefault(key, Row(job.problem, job.optimizer, job.population, [], [], [], 0.0))
        row.finals.append(played[job].final)
        row.curves.append(played[job].curve)
        row.schedules.append(played[job].schedule)
        row.makespan += played[job].makespan
        if (golden := played[job].golden_sha256) is not None:
            row.golden[job.seed] = golden
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows.values():
        row.makespan /= len(row.finals)
        groups.setdefault((row.problem, row.population), []).append(row)
    ordered = []
    for _, group in sorted(groups.items()):
        group.sort(key=lambda row: row.median)
        for rank, row in enumerate(group, 1):
            row.rank = rank
            row.beats = {
                other.optimizer: confidence(row.finals, other.finals)
                for other in group
                if other is not row
            }
        ordered += group
    return ordered


def confidence(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Bootstrap's probability that the median of `ours` is lower (Efron 1979); a tie counts half.

    The samples are drawn from a fixed seed, so the result is always the same.
    """
    rng = default_rng(0)

    def medians(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
        return np.asarray(np.median(np.asarray(values)[drawn], axis=1))

    one, other = medians(ours), medians(theirs)
    return float((one < other).mean() + 0.5 * (one == other).mean())
