"""The laboratory: optimizers on toy problems, over many seeds, compared with their uncertainty.

The optimizers run in the production core (`decide`, events, quorum and all); only training and the
arrival of results are simulated, one heap of events a run.
"""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import default_rng

from romul_actors.errors import ExperimentError
from romul_actors.events import Released, Result, Stamped, Submitted, Tick, Trial
from romul_actors.experiment import Experiment
from romul_actors.plan import settings
from romul_actors.population import decide
from romul_actors.state import Population
from romul_sim.golden import HistoryHash
from romul_sim.peers import IN_ONE_PROCESS, PEERS, Played, play_peer
from romul_workers.tasks.toys import TOYS, State, Toy

TICK = 0.125
"""How often idle workers are thought of, in durations of the fastest worker's trial."""

RESAMPLES = 2_000
"""Bootstrap samples behind each confidence."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How results arrive.

    Attributes:
        workers: how many; None: one for each slot.
        speeds: ratio of the fastest worker's speed to the slowest one's.
        spread: standard deviation of a trial's duration, in log.
        preempted: probability that a trial is cut short and done again.
    """

    workers: int | None = None
    speeds: float = 1.0
    spread: float = 0.0
    preempted: float = 0.0


SYNCHRONOUS = Conditions()
ASYNCHRONOUS = Conditions(speeds=4.0, spread=0.2, preempted=0.2)


@dataclass(frozen=True, slots=True)
class Job:
    """One run; of `steps` PBT steps, or of those that the problem is meant for.

    With `golden` its history is hashed, which takes about a third more time.
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
        """The problem, of so many steps."""
        toy = TOYS[self.problem]
        return toy if self.steps is None else replace(toy, steps=self.steps)


def optimizer_spec(text: str) -> dict[str, Any]:
    """Read "name" or "name:option=value:option=value" into what an experiment declares.

    Raises:
        ExperimentError: an option is not of that form.
    """
    name, *options = text.split(":")
    spec: dict[str, Any] = {"name": name}
    for option in options:
        key, _, value = option.partition("=")
        try:
            spec[key] = json.loads(value)
        except ValueError:
            raise ExperimentError(f"optimizer {text!r}: {option!r} is not option=value") from None
    return spec


def play(job: Job) -> Played:
    """Run one job; the same job comes out the same."""
    if job.optimizer in PEERS:
        return play_peer(job.optimizer, job.toy, job.population, job.seed)
    toy = job.toy
    experiment = Experiment.model_validate(
        {
            "name": "lab",
            "task": "lab",
            "space": toy.space,
            "population": job.population,
            "steps": toy.steps,
            "seed": job.seed,
            "optimizer": optimizer_spec(job.optimizer),
        }
    )
    return _Run(job, Population(settings=settings(experiment))).to_the_end()


class _Run:
    def __init__(self, job: Job, population: Population) -> None:
        self.toy = job.toy
        self.conditions = job.conditions
        self.population = population
        self.rng = default_rng([job.seed, 17])
        n = job.conditions.workers or job.population
        self.speeds = job.conditions.speeds ** (self.rng.random(n) - 1.0)
        self.idle = list(range(n))
        self.queue: list[tuple[int, int, Trial]] = []
        self.busy: list[tuple[float, int, int, float, Trial]] = []
        self.now = 0.0
        self.told = 0
        self.states: dict[str, State] = {}
        self.true: dict[str, float] = {}
        self.observed: dict[str, float] = {}
        self.trials: dict[str, tuple[Mapping[str, Any], str | None]] = {}
        self.golden = HistoryHash() if job.golden else None

    def to_the_end(self) -> Played:
        self.tell(Submitted())
        ticked = 0.0
        while self.busy or self.queue:
            self.hand_out()
            if self.idle and self.busy[0][0] > ticked + TICK:
                # Idle workers do not wait for ever; whoever is waited for is known by the clock.
                self.now = ticked = max(self.now, ticked + TICK)
                self.tell(Tick(workers=len(self.speeds)))
                continue
            self.now, _, worker, duration, trial = heapq.heappop(self.busy)
            ticked = max(ticked, TICK * (self.now // TICK))
            self.idle.append(worker)
            cut_short = self.rng.random() < self.conditions.preempted
            self.tell(_released(trial) if cut_short else self.train(trial, duration))
        return self.played()

    def train(self, trial: Trial, duration: float) -> Result:
        name = f"{trial.id}-{trial.attempt}"
        parent = self.states[trial.parent] if trial.parent else None
        # Of the trial, not of the worker: done again, it comes out the same.
        rng = default_rng(trial.seed)
        stepped = self.toy.step(parent, trial.hyperparameters, trial.step, rng)
        self.states[name] = stepped.state
        self.observed[trial.id], self.true[trial.id] = stepped.observed, stepped.true
        parent_trial = trial.parent and trial.parent.rpartition("-")[0]
        self.trials[trial.id] = (trial.hyperparameters, parent_trial)
        return Result(
            trial=trial.id,
            slot=trial.slot,
            attempt=trial.attempt,
            worker="lab",
            value=stepped.observed,
            checkpoint=name,
            seconds=duration,
        )

    def tell(self, event: Submitted | Result | Released | Tick) -> None:
        decision = decide(self.population, Stamped(event, int(1000 * self.now)))
        self.population = decision.population
        if self.golden is not None:
            for line in decision.history:
                self.golden.add(line)
        for trial in decision.trials:
            heapq.heappush(self.queue, (trial.step, self.next(), trial))

    def next(self) -> int:
        self.told += 1
        return self.told

    def hand_out(self) -> None:
        """Lowest step first, as the elastic queue would."""
        while self.queue and self.idle:
            _, _, trial = heapq.heappop(self.queue)
            worker = self.idle.pop(0)
            duration = float(self.rng.lognormal(0.0, self.conditions.spread)) / self.speeds[worker]
            heapq.heappush(self.busy, (self.now + duration, self.next(), worker, duration, trial))

    def played(self) -> Played:
        curve = []
        winner = ""
        for step in range(self.toy.steps):
            ids = [f"{i}-{step}" for i in range(len(self.population.slots))]
            known = [trial for trial in ids if trial in self.observed]
            winner = min(known, key=lambda trial: (self.observed[trial], trial))
            curve.append(self.true[winner])
        line: list[Mapping[str, Any]] = []
        trial: str | None = winner
        while trial:
            values, trial = self.trials[trial]
            line.append(values)
        schedule = {name: [values[name] for values in line[::-1]] for name in self.toy.space}
        golden = None if self.golden is None else self.golden.hexdigest()
        return Played(curve[-1], curve, schedule, self.now, golden)


def _released(trial: Trial) -> Released:
    return Released(
        trial=trial.id, slot=trial.slot, attempt=trial.attempt, worker="lab", reason="drained"
    )


@dataclass(slots=True)
class Row:
    """One optimizer on one problem.

    Attributes:
        finals: final true losses, by seed.
        curves: by seed and step, shape (n_seeds, n_steps).
        schedules: by seed, that of the winner.
        makespan: mean duration, in trials of the fastest worker.
        rank: of the medians on this problem with this population, from 1.
        beats: by other optimizer, the bootstrap's probability that this one's median is lower.
        golden: by seed, the hash of the history, if it was asked for and the core decided it.
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
            # A best of 0 has no ratio.
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
) -> list[Job]:
    """All runs of a comparison."""
    return [
        Job(problem, optimizer, population, seed, conditions, steps, golden)
        for population in populations
        for problem in problems
        for optimizer in optimizers
        for seed in range(seeds)
    ]


def play_all(todo: Sequence[Job], processes: int | None = None) -> Iterator[tuple[Job, Played]]:
    """Play jobs on all cores, as they end."""
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(play, job): job for job in todo if job.optimizer != IN_ONE_PROCESS}
        for future in as_completed(running):
            yield running[future], future.result()
    # Those that bring processes of their own.
    for job in todo:
        if job.optimizer == IN_ONE_PROCESS:
            yield job, play(job)


def compare(played: Mapping[Job, Played]) -> list[Row]:
    """Rows of a comparison, in order of problem, population and rank.

    Args:
        played: runs; those of one problem, population and optimizer differ in their seeds only.

    Raises:
        ValueError: some of them differ in more.
    """
    rows: dict[tuple[str, int, str], Row] = {}
    firsts: dict[tuple[str, int, str], Job] = {}
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

    The same in every process: the samples are drawn from a fixed seed.
    """
    rng = default_rng(0)

    def medians(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
        return np.asarray(np.median(np.asarray(values)[drawn], axis=1))

    one, other = medians(ours), medians(theirs)
    return float((one < other).mean() + 0.5 * (one == other).mean())
