"""Optimizers of other libraries (peers) on the problems of a run, each through its own interface.

A peer has the budget of a population: as many lines of training as slots, each with the same number
of steps. Peers that search for constants (nevergrad's DE, Optuna's TPE) train a quarter of the
lines at a time, learn from their final losses, and propose the next ones. This module needs an
extra: pip install 'romul[peers]'.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.random import default_rng

from romul_actors.core.space import Space
from romul_actors.errors import OptimizerError
from romul_actors.protocol.experiment import Experiment
from romul_sim.play import SYNCHRONOUS, Conditions, Played, State, Training, Winners, schedule


@dataclass(slots=True)
class _Line:
    """One model in training: its state, and the hyperparameters that led to it."""

    state: State | None = None
    history: tuple[Mapping[str, Any], ...] = ()

    @property
    def step(self) -> int:
        return len(self.history)


@dataclass(slots=True)
class Lines:
    """Trains lines of models, and keeps the best trials.

    Attributes:
        training: the problem.
        seed: seed of the training's random numbers.
        winners: the best trials; the kept value is a function that judges the trial's state, and
            the hyperparameters that led to it.
        trials: number of trials so far.
    """

    training: Training
    seed: int
    winners: Winners = field(default_factory=Winners)
    trials: int = 0

    def train(self, line: _Line, values: Mapping[str, Any]) -> float:
        """Train one step, and return the reported loss."""
        self.trials += 1
        rng = default_rng([self.seed, self.trials])
        line.state, loss = self.training.step(line.state, values, line.step, rng)
        line.history = (*line.history, dict(values))
        judge = partial(self.training.judge, line.state)
        self.winners.see(line.step - 1, loss, (judge, line.history))
        return loss

    def played(self) -> Played:
        """The result of the run, up to the first step without a loss."""
        won: list[tuple[Callable[[], float], tuple[Mapping[str, Any], ...]]] = []
        while len(won) in self.winners.steps:
            won.append(self.winners.steps[len(won)][1])
        curve = [judge() for judge, _ in won]
        line = schedule(self.training.space, won[-1][1])
        return Played(curve[-1], curve, line, float(self.training.steps))


def _space(training: Training) -> Space:
    given = {"name": "lab", "task": "lab", "steps": training.steps, "space": training.space}
    return Experiment.model_validate(given).search_space()


def _constants(
    lines: Lines,
    n_lines: int,
    ask: Callable[[int], Sequence[Any]],
    tell: Callable[[Any, float], None],
    values: Callable[[Any], Mapping[str, Any]],
) -> Lines:
    """Train lines with constant hyperparameters, a quarter of them at a time."""
    batch = max(1, n_lines // 4)
    for start in range(0, n_lines, batch):
        asked = ask(min(batch, n_lines - start))
        for one in asked:
            line, loss = _Line(), 0.0
            for _ in range(lines.training.steps):
                loss = lines.train(line, values(one))
            tell(one, loss)
    return lines


def _nevergrad(training: Training, n_lines: int, seed: int) -> Lines:
    import nevergrad as ng  # noqa: PLC0415

    space = _space(training)
    cube = ng.p.Array(shape=(len(space),), lower=0.0, upper=1.0)
    cube.random_state.seed(seed)
    optimizer = ng.optimizers.registry["DE"](cube, budget=n_lines, num_workers=max(1, n_lines // 4))
    return _constants(
        Lines(training, seed),
        n_lines,
        lambda n: [optimizer.ask() for _ in range(n)],
        optimizer.tell,
        lambda candidate: space.decode([min(max(float(x), 0.0), 1.0) for x in candidate.value]),
    )


def _optuna(training: Training, n_lines: int, seed: int) -> Lines:
    import optuna  # noqa: PLC0415
    from optuna.distributions import (  # noqa: PLC0415
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def distribution(spec: Mapping[str, Any]) -> Any:
        match spec["type"]:
            case "categorical":
                return CategoricalDistribution(spec["choices"])
            case "boolean":
                return CategoricalDistribution([False, True])
            case "int":
                return IntDistribution(spec["min"], spec["max"], log=spec.get("scale") == "log")
        return FloatDistribution(spec["min"], spec["max"], log=spec.get("scale") == "log")

    kinds = {name: distribution(spec) for name, spec in training.space.items()}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    return _constants(
        Lines(training, seed),
        n_lines,
        lambda n: [study.ask(kinds) for _ in range(n)],
        lambda trial, loss: (study.tell(trial, loss), None)[1],
        lambda trial: trial.params,
    )


def _syne_tune(training: Training, n_lines: int, seed: int) -> Lines:
    logging.getLogger("syne_tune").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from syne_tune.backend.trial_status import Trial  # noqa: PLC0415
        from syne_tune.optimizer.scheduler import SchedulerDecision  # noqa: PLC0415
        from syne_tune.optimizer.schedulers.pbt import (  # noqa: PLC0415
            PopulationBasedTraining,
        )
    from datetime import UTC, datetime  # noqa: PLC0415

    # Syne Tune also draws from the global generators.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    scheduler = PopulationBasedTraining(
        config_space={name: _syne_tune_domain(spec) for name, spec in training.space.items()},
        metric="loss",
        time_attr="step",
        max_t=training.steps,
        population_size=n_lines,
        perturbation_interval=1,
        random_seed=seed,
    )
    ran = Lines(training, seed)
    lines: dict[int, _Line] = {}
    trials: dict[int, Any] = {}

    def start() -> int:
        suggestion = scheduler.suggest()
        number = len(trials)
        parent = suggestion.checkpoint_trial_id
        line = lines[parent] if parent is not None else _Line()
        lines[number] = _Line(line.state, line.history)
        trials[number] = Trial(number, suggestion.config, datetime.now(UTC))
        scheduler.on_trial_add(trials[number])
        return number

    running = [start() for _ in range(n_lines)]
    while running:
        following = []
        for number in running:
            line = lines[number]
            loss = ran.train(line, trials[number].config)
            report = {"loss": loss, "step": line.step}
            decision = scheduler.on_trial_result(trials[number], report)
            if decision == SchedulerDecision.CONTINUE:
                following.append(number)
            elif line.step < training.steps:
                # The scheduler replaces it by a new trial from another trial's checkpoint.
                following.append(start())
        running = following
    return ran


def _syne_tune_domain(spec: Mapping[str, Any]) -> Any:
    from syne_tune import config_space  # noqa: PLC0415

    match spec["type"]:
        case "categorical":
            return config_space.choice(spec["choices"])
        case "boolean":
            return config_space.choice([False, True])
        case "int":
            return config_space.randint(spec["min"], spec["max"])
    log = spec.get("scale") == "log"
    return (config_space.loguniform if log else config_space.uniform)(spec["min"], spec["max"])


def _ray(training: Training, n_lines: int, seed: int) -> Lines:
    """Run Ray's PBT through Tuner.fit; it starts its own processes and takes seconds per run."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415
    from ray.tune.schedulers import PopulationBasedTraining  # noqa: PLC0415

    domains = {key: _ray_domain(spec) for key, spec in training.space.items()}
    # Ray multiplies all values whose mutation is not a list.
    mutations = {
        key: domain.categories if hasattr(domain, "categories") else domain
        for key, domain in domains.items()
    }
    trainable = _ray_trainable(training, seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        ray.init(address="local", num_cpus=n_lines, include_dashboard=False, log_to_driver=False)
        try:
            results = tune.Tuner(
                trainable,
                param_space=domains,
                tune_config=tune.TuneConfig(
                    scheduler=PopulationBasedTraining(
                        time_attr="training_iteration",
                        perturbation_interval=1,
                        hyperparam_mutations=mutations,
                        metric="loss",
                        mode="min",
                        synch=True,
                    ),
                    num_samples=n_lines,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    stop={"training_iteration": training.steps},
                    storage_path=folder,
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
                ),
            ).fit()
            ran = Lines(training, seed)
            for result in results:
                for row in result.metrics_dataframe.to_dict("records"):
                    history = tuple(json.loads(row["history"]))
                    judge = partial(float, row["true"])
                    ran.winners.see(len(history) - 1, row["loss"], (judge, history))
        finally:
            ray.shutdown()
    return ran


def _ray_domain(spec: Mapping[str, Any]) -> Any:
    from ray import tune  # noqa: PLC0415

    match spec["type"]:
        case "categorical":
            return tune.choice(spec["choices"])
        case "boolean":
            return tune.choice([False, True])
        case "int":
            return tune.randint(spec["min"], spec["max"] + 1)
    log = spec.get("scale") == "log"
    return (tune.loguniform if log else tune.uniform)(spec["min"], spec["max"])


def _ray_trainable(training: Training, seed: int) -> type:
    from ray import tune  # noqa: PLC0415

    class Line(tune.Trainable):  # type: ignore[misc]
        """One member of Ray's population."""

        def setup(self, config: dict[str, Any]) -> None:
            self.config, self.line = config, _Line()

        def step(self) -> dict[str, Any]:
            rng = default_rng([seed, self.iteration, os.getpid()])
            # Ray's perturbation may leave the declared range.
            config = {
                key: min(max(value, spec["min"]), spec["max"]) if "min" in spec else value
                for (key, value), spec in zip(
                    self.config.items(), training.space.values(), strict=True
                )
            }
            state, loss = training.step(self.line.state, config, self.line.step, rng)
            self.line = _Line(state, (*self.line.history, config))
            return {
                "loss": loss,
                "true": training.judge(state),
                "history": json.dumps(self.line.history),
            }

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            del checkpoint_dir
            return {"line": self.line}

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.line = checkpoint["line"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

    return Line


@dataclass(frozen=True, slots=True)
class Peer:
    """Another library's optimizer.

    Attributes:
        module: the module that must be installed.
        play: runs the optimizer; its arguments are the problem, the number of lines and a seed.
    """

    module: str
    play: Callable[[Training, int, int], Lines]


IN_ONE_PROCESS = "ray-pbt"
"""The peer that starts its own processes, and must not run several times in parallel."""

PEERS: Mapping[str, Peer] = {
    "nevergrad-de": Peer("nevergrad", _nevergrad),
    "optuna-tpe": Peer("optuna", _optuna),
    "syne-tune-pbt": Peer("syne_tune", _syne_tune),
    IN_ONE_PROCESS: Peer("ray", _ray),
}


def check_peer(name: str, conditions: Conditions = SYNCHRONOUS) -> None:
    """Check that a peer can run.

    Raises:
        OptimizerError: its library is not installed, or the conditions are not synchronous.
    """
    if conditions != SYNCHRONOUS:
        raise OptimizerError(
            f"peer {name!r} runs synchronously only: leave it out, or leave out --asynchronous"
        )
    if importlib.util.find_spec(PEERS[name].module) is None:
        raise OptimizerError(
            f"peer {name!r}: {PEERS[name].module} is not installed (pip install 'romul[peers]')"
        )


def play_peer(name: str, training: Training, population: int, seed: int) -> Lines:
    """Run a peer with the budget of a population.

    Raises:
        OptimizerError: the peer's library is not installed.
    """
    check_peer(name)
    return PEERS[name].play(training, population, seed)
