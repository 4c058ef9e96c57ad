"""Tree-structured Parzen estimator (Bergstra et al. 2011), with Optuna's sampler.

Slots train and stop as in ASHA. But where ASHA draws a new configuration uniformly, this optimizer
draws near good ones. They are ranked by the losses at the highest rung that enough configurations
have reached (the rule of BOHB, Falkner et al. 2018); those stopped earlier follow, ordered by how
far they came (source: this project). The estimator is multivariate, like BOHB's. It counts the
configurations in training as bad ones, so that slots that draw at the same time do not draw the
same. Both are Optuna's defaults since version 5. It needs Optuna: ``pip install 'romul[tpe]'``.
"""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from romul_actors.core.optimizers.asha import Asha
from romul_actors.core.optimizers.base import View
from romul_actors.errors import OptimizerError


@dataclass(frozen=True)
class Tpe(Asha):
    """Constants of TPE.

    Attributes:
        eta: reduction factor; rungs are at 1, eta, eta^2 ... steps. The default is that of BOHB.
        startup: number of losses at one rung from which the estimator is used; before, draws are
            uniform.
    """

    name: ClassVar[str] = "tpe"

    eta: int = 3
    startup: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if importlib.util.find_spec("optuna") is None:
            raise OptimizerError("optimizer 'tpe' needs Optuna: pip install 'romul[tpe]'")

    def moved(
        self, memory: Mapping[str, Any], move: Callable[[Sequence[float]], tuple[float, ...]]
    ) -> Mapping[str, Any]:
        """Convert the remembered vectors too."""
        tried = {
            rung: [[loss, *move(vector)] for loss, *vector in rows]
            for rung, rows in memory.get("tried", {}).items()
        }
        return {**memory, "tried": tried} if tried else memory

    def _tried(self, view: View, i: int, age: int) -> dict[str, Any]:
        before = view.slots[i].memory.get("tried", {})
        tried = {rung: list(rows) for rung, rows in before.items()}
        outcome = view.known[i]
        if self._is_rung(age) and not outcome.failed:
            tried.setdefault(str(age), []).append([outcome.loss, *outcome.vector])
        return tried

    def draw(self, view: View, i: int, memory: Mapping[str, Any]) -> tuple[float, ...]:
        """Draw a vector with the estimator, or uniformly until enough losses are known."""
        tried: dict[int, dict[tuple[float, ...], float]] = {}
        for slot in view.slots:
            remembered = memory if slot.index == i else slot.memory
            for rung, rows in remembered.get("tried", {}).items():
                tried.setdefault(int(rung), {}).update((tuple(row[1:]), row[0]) for row in rows)
        known = [rung for rung, losses in tried.items() if len(losses) >= self.startup]
        if not known:
            return super().draw(view, i, memory)
        # Configurations in training below the rung are not judged yet.
        judged = {slot.vector for slot in view.slots if slot.index != i}
        order: list[tuple[float, ...]] = []
        for rung in sorted((rung for rung in tried if rung <= max(known)), reverse=True):
            losses = tried[rung]
            for vector in sorted(losses, key=losses.__getitem__):
                if vector not in judged or rung == max(known):
                    order.append(vector)
                judged.add(vector)
        ranked = list(dict.fromkeys(order))
        peers = [slot.vector for slot in view.slots if slot.index != i and slot.active]
        training = [vector for vector in peers if vector not in set(ranked)]
        return _ask(view, ranked, training, int(view.rng(i).integers(2**31)))


def _ask(
    view: View,
    ranked: Sequence[tuple[float, ...]],
    training: Sequence[tuple[float, ...]],
    seed: int,
) -> tuple[float, ...]:
    """Draw one vector with Optuna's sampler; unordered choices are categorical for it.

    Args:
        view: the information to decide on.
        ranked: the judged vectors, best first.
        training: vectors in training, which are not judged yet.
        seed: seed of the sampler.
    """
    import optuna  # noqa: PLC0415
    from optuna.distributions import (  # noqa: PLC0415
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
    )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    n_choices = view.space.n_choices
    kinds: dict[str, BaseDistribution] = {
        str(axis): CategoricalDistribution(range(n)) if n else FloatDistribution(0.0, 1.0)
        for axis, n in enumerate(n_choices)
    }

    def parameters(vector: tuple[float, ...]) -> dict[str, float | int]:
        return {
            str(axis): min(int(x * n), n - 1) if n else x
            for axis, (x, n) in enumerate(zip(vector, n_choices, strict=True))
        }

    with warnings.catch_warnings():
        # Both options were experimental in Optuna until version 5.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True
        )
    study = optuna.create_study(sampler=sampler)
    judged = [
        optuna.create_trial(params=parameters(vector), distributions=kinds, value=float(rank))
        for rank, vector in enumerate(ranked)
    ]
    running = optuna.trial.TrialState.RUNNING
    waited_for = [
        optuna.create_trial(state=running, params=parameters(vector), distributions=kinds)
        for vector in training
    ]
    study.add_trials([*judged, *waited_for])
    suggested = study.ask(kinds).params
    return tuple(
        (suggested[str(axis)] + 0.5) / n if n else float(suggested[str(axis)])
        for axis, n in enumerate(n_choices)
    )
