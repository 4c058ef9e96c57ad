"""How a search begins with what another one has found: its first vectors, and their checkpoints.

Half of the slots begin with the other search's hyperparameters, the best first; the rest is drawn,
so that the new search is not confined to where the old one ended (source: this project).
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
    """The search that another one begins from.

    Attributes:
        experiment: its declaration.
        population: as it is now.
    """

    experiment: Experiment
    population: Population


@dataclass(frozen=True, slots=True)
class Found:
    """A trial of the former search.

    Attributes:
        trial: its id.
        checkpoint: the name of its checkpoint.
        hyperparameters: what it was trained with.
    """

    trial: str
    checkpoint: str
    hyperparameters: Mapping[str, Value]


def found(former: Former, n: int) -> list[Found]:
    """The best trial ever, then the last ones of the slots by their loss: `n` at most.

    Of those with the same hyperparameters there is the first one alone.

    Raises:
        ExperimentError: no trial of it has succeeded yet.
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
    # Two places in the cell of a choice or of a whole number are the same hyperparameters.
    by_values = dict[str, Found]()
    for trial in all_found:
        by_values.setdefault(identity(trial.hyperparameters), trial)
    return list(by_values.values())[:n]


def n_followed(experiment: Experiment) -> int:
    """How many slots of a new search begin with hyperparameters of the former one."""
    return (experiment.population + 1) // 2


def first_vectors(
    experiment: Experiment, former: Former, trials: Sequence[Found]
) -> list[dict[str, Value]]:
    """Hyperparameters of the former search's trials, in the new search's space.

    A number outside the new bounds becomes the nearest one inside. A hyperparameter that the former
    search did not have, or a choice that is none any more, is drawn.
    """
    space, theirs = experiment.search_space(), former.experiment.search_space()
    vectors = []
    for number, trial in enumerate(trials):
        rng = generator(experiment.seed, number, 0, FORMER)
        known = theirs.by_axis(trial.hyperparameters)
        vectors.append(space.decode(_translated(space, known, rng)))
    return vectors


def _translated(space: Space, known: Mapping[str, Value], rng: Generator) -> tuple[float, ...]:
    """A place in `space`: where the known values are, by axis, and drawn for what is not known."""
    vector = []
    for axis in space.axes:
        # Drawn in any case, so that one hyperparameter more changes no other one.
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
    """Values of what goes with a trial's checkpoint and never changes.

    Raises:
        ExperimentError: the new search's space does not admit one of them.
    """
    values = trial.hyperparameters
    space = experiment.search_space()
    held: dict[str, Any] = {}
    for name, spec in experiment.space.items():
        if spec.mutable:
            continue
        if name not in former.experiment.space:
            raise ExperimentError(
                f"from_run: {name} goes with a checkpoint, and {former.experiment.name} had none: "
                "begin from its hyperparameters alone"
            )
        if name not in values:
            # It does not count beside the trial's other values, here or there.
            continue
        try:
            Space([p for p in space.parameters if p.name == name]).encode({name: values[name]})
        except SpaceError as error:
            raise ExperimentError(
                f"from_run: {error}: a checkpoint of {former.experiment.name} has "
                f"{shown(values[name])}, and goes on with it only"
            ) from None
        held[name] = values[name]
    return held


def inherit(
    experiment: Experiment, former: Former, copies: Callable[[Sequence[str]], Sequence[str]]
) -> Experiment:
    """The experiment with what its `from_run` asks for.

    Args:
        experiment: a new one, which declares `from_run`.
        former: the search of that name.
        copies: copies checkpoints of the former search, by slot; the names of the copies.

    Raises:
        ExperimentError: the former search has found nothing, or the spaces do not allow it.
        CheckpointError: a checkpoint is not there any more, or cannot be copied.
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
        # After the slots that the declaration gives values of their own, the best first.
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
