"""Advice on valid experiments: where the optimizer may not pay, and what it assumes."""

import math
from dataclasses import replace

from romul_actors import plugins
from romul_actors.core.guard import is_rate
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.core.optimizers.romul import Romul
from romul_actors.core.parameter import FloatParameter, Parameter
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings

MEASURED_STEPS = 10
"""Smallest number of steps in measurements of the default (docs/results.md, "Small and large")."""


def advice(experiment: Experiment) -> list[str]:
    """Sentences about what may work worse than expected; empty if there is nothing to say."""
    return [*_of_its_name(experiment.optimizer.name), *_of_its_size(experiment)]


def _of_its_name(name: str) -> list[str]:
    """Advice on plugins that have the name of a built-in optimizer."""
    if name not in OPTIMIZERS:
        return []
    return [
        f"optimizer = {name!r} is the built-in one: the optimizer of that name in the package "
        f"{origin} is ignored; rename it"
        for origin in plugins.origins("optimizers", name)
    ]


def _of_its_size(experiment: Experiment) -> list[str]:
    """Advice on few steps, or few trials per slot."""
    each = experiment.n_trials / experiment.population
    steps = math.ceil(each)
    few, remedy = f"steps = {steps}", "shorter steps (budget) and more of them"
    if steps < experiment.steps:
        slots = f"{experiment.population} slot{'s'[: experiment.population > 1]}"
        mean = "1 step each" if each == 1 else f"{each:.3g} steps each on average"
        few = f"max_trials = {experiment.max_trials} for {slots} allows {mean}"
        remedy = "fewer slots (population) or more trials"
    if steps == 1:
        return [f"{few}: no hyperparameter changes during training; this is a random search"]
    if experiment.optimizer.name == "romul" and steps < MEASURED_STEPS:
        moves = "once" if steps - 1 == 1 else f"{steps - 1} times"
        text = (
            f"{few}: a slot's hyperparameters change only between steps, so at most {moves}, and "
            f"'romul' was never measured with fewer than {MEASURED_STEPS} steps; consider {remedy}"
        )
        return [text]
    return []


def guarded(experiment: Experiment) -> str | None:
    """Which hyperparameters the optimizer `romul` guards, and why; None for other optimizers."""
    optimizer = settings(experiment).optimizer
    if not isinstance(optimizer, Romul):
        return None
    every = "romul's moves may lower every hyperparameter from the first step on"
    if min(optimizer.guarded, optimizer.guarded_generations) <= 0:
        return every
    space = experiment.search_space()
    held = [name for name in space.names if space.guarded[space.axes_of(name)[0]]]
    free = [name for name in space.names if name not in held]
    missed = [name for name in free if _is_in_a_rates_table(space.axes[space.axes_of(name)[0]])]
    more = (
        f"; they may lower {', '.join(missed)}, because only the last part of a nested name "
        "counts: guarded = true guards these too (docs/spaces.md)"
        if missed
        else ""
    )
    if not held:
        return f"{every}{more}"
    known = any(getattr(axis, "guarded", None) or is_rate(axis) for axis in space)
    why = (
        ""
        if known
        else ", the ones with a logarithmic scale, as no name is a learning rate's (docs/spaces.md)"
    )
    return f"early in a run romul's moves do not lower {', '.join(held)}{why}{more}"


def _is_in_a_rates_table(axis: Parameter) -> bool:
    """Whether the full name with its tables, but not the last part, is that of a learning rate.

    Only for hyperparameters that do not declare `guarded`.
    """
    if not isinstance(axis, FloatParameter) or axis.guarded is not None or axis.scale != "log":
        return False
    parts = axis.name.split(".")
    longer = ["_".join(parts[i:]) for i in range(len(parts) - 1)]
    return any(is_rate(replace(axis, name=name)) for name in longer)
