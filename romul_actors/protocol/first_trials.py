"""Begins a search from the results of another: its best hyperparameters and their checkpoints.

Half of the slots begin with hyperparameters of the other search, the best first. The others are
drawn, so that the new search is not confined to the region where the old one ended (source: this
project).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from romul_actors.core.parameter import identity
from romul_actors.core.population import Population
from romul_actors.core.rng import FORMER, generator
from romul_actors.core.space import FloatParameter, IntParameter, Space, Value
from romul_actors.errors import ExperimentError, SpaceError
from romul_actors.protocol.declared_tables import FirstCheckpoint
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.mistakes import shown


@dataclass(frozen=True, slots=True)
class Former:
    """The search that a new one begins from.

    Attributes:
        experiment: its declaration.
        population: its current population.
    """

    experiment: Experiment
    population: Population


@dataclass(frozen=True, slots=True)
class Found:
    """A trial of the former search.

    Attributes:
        trial: id of the trial.
        checkpoint: name of its checkpoint.
        hyperparameters: its hyperparameters.
    """

    trial: str
    checkpoint: str
    hyperparameters: Mapping[str, Value]


def found(former: Former, n: int) -> list[Found]:
    """Up to `n` trials: the best one, then the last trial of each slot, by loss.

    Of trials with the same hyperparameters, only the first is included.

    Raises:
        ExperimentError: no trial of the former search has succeeded yet.
    """
    best, name = former.population.best, former.experiment.name
    if best is None:
        raise ExperimentError(f"from_run: no trial of {name} has succeeded yet")
    ends = [
        (slot.outcomes[step].loss, slot.index, step, slot.outcomes[step])
        for slot in former.population.slots
        for step in [max(slot.outcomes, default=-1)]
        if step >= 0 and not slot.outcomes[step].failed and f"{slot.index}-{step}" != best.trial
    ]
    space = former.experiment.search_space()
    all_found = [Found(best.trial, best.checkpoint, best.hyperparameters)]
    for _, index, step, outcome in sorted(ends, key=lambda end: end[:2]):
        values = space.decode(outcome.vector)
        all_found.append(Found(f"{index}-{step}", str(outcome.checkpoint), values))
    # Different vectors may stand for the same choices and integers.
    by_values = dict[str, Found]()
    for trial in all_found:
        by_values.setdefault(identity(trial.hyperparameters), trial)
    return list(by_values.values())[:n]


def n_followed(experiment: Experiment) -> int:
    """Number of slots of a new search that begin with hyperparameters of the former one."""
    return (experiment.population + 1) // 2


def first_vectors(
    experiment: Experiment, former: Former, trials: Sequence[Found]
) -> list[dict[str, Value]]:
    """Hyperparameters of the former search's trials, converted to the new search's space.

    A number outside the new bounds becomes the nearest one inside. If the former search did not
    have a hyperparameter, or the new one does not have its choice, the value is drawn.
    """
    space, theirs = experiment.search_space(), former.experiment.search_space()
    vectors = []
    for number, trial in enumerate(trials):
        rng = generator(experiment.seed, number, 0, FORMER)
        known = theirs.by_axis(trial.hyperparameters)
        vectors.append(space.decode(_translated(space, known, rng)))
    return vectors


def _translated(space: Space, known: Mapping[str, Value], rng: Generator) -> tuple[float, ...]:
    """A vector in `space` with the known values, given by axis; the others are drawn."""
    vector = []
    for axis in space.axes:
        # Drawn in any case, so that an additional hyperparameter does not change the others.
        drawn, value = float(rng.random()), known.get(axis.name)
        numeric = isinstance(axis, FloatParameter | IntParameter)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            if numeric and number:
                vector.append(axis.encode(axis.nearest(float(value))))  # type: ignore[union-attr, arg-type]
            elif axis.name in known:
                vector.append(axis.encode(value))
            else:
                vector.append(drawn)
        except SpaceError:
            vector.append(drawn)
    return tuple(vector)


def check_held(experiment: Experiment, former: Former, trial: Found) -> dict[str, Any]:
    """Values of the hyperparameters that are not mutable, which belong to a trial's checkpoint.

    Raises:
        ExperimentError: the new search's space does not allow one of them.
    """
    values = trial.hyperparameters
    space = experiment.search_space()
    held: dict[str, Any] = {}
    for name, spec in experiment.space.items():
        if spec.mutable:
            continue
        if name not in former.experiment.space:
            raise ExperimentError(
                f"from_run: {name} is not mutable, but {former.experiment.name} has no such "
                'hyperparameter: use what = "hyperparameters"'
            )
        if name not in values:
            # It is inactive for the trial's other values, in both searches.
            continue
        try:
            Space([p for p in space.parameters if p.name == name]).encode({name: values[name]})
        except SpaceError as error:
            raise ExperimentError(
                f"from_run: {error}: a checkpoint of {former.experiment.name} has "
                f"{shown(values[name])}, and can continue only with that value"
            ) from None
        held[name] = values[name]
    return held


def inherit(
    experiment: Experiment, former: Former, copies: Callable[[Sequence[str]], Sequence[str]]
) -> Experiment:
    """Add the initial hyperparameters and checkpoints that `from_run` requests to an experiment.

    Args:
        experiment: a new experiment that declares `from_run`.
        former: the search of that name.
        copies: function that copies checkpoints of the former search, given by slot, and returns
            the names of the copies.

    Raises:
        ExperimentError: the former search has no results, or the spaces do not fit.
        CheckpointError: a checkpoint does not exist any more, or cannot be copied.
    """
    origin, own = experiment.from_run, experiment.initial
    if origin is None:
        return experiment
    trials = found(former, n_followed(experiment))
    values = first_vectors(experiment, former, trials)
    changes: dict[str, Any] = {
        "initial": (*own, *values[: max(0, n_followed(experiment) - len(own))])
    }
    if origin.what == "checkpoints":
        held = [check_held(experiment, former, trial) for trial in trials]
        # The best goes to the first slot after those with declared initial values.
        order = [(slot - len(own)) % len(trials) for slot in range(experiment.population)]
        names = copies([trials[i].checkpoint for i in order])
        firsts = (
            FirstCheckpoint(
                name=name, trial=trials[i].trial, hyperparameters={**values[i], **held[i]}
            )
            for name, i in zip(names, order, strict=True)
        )
        changes["from_run"] = origin.model_copy(update={"checkpoints": tuple(firsts)})
    return experiment.model_copy(update=changes)
