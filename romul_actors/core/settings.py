"""What an experiment fixes, as the core needs it; only an operator changes any of it."""

import math
from dataclasses import dataclass, field

from romul_actors.core.elasticity import Elasticity
from romul_actors.core.optimizers.base import Optimizer
from romul_actors.core.space import Space


@dataclass(frozen=True, slots=True)
class Inherited:
    """A checkpoint of another search, from which a slot begins.

    Attributes:
        checkpoint: its name.
        trial: the other search's name and its trial, for people.
        vector: what it was trained with, shape (n_dims,).
    """

    checkpoint: str
    trial: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an experiment fixes.

    Attributes:
        space: the search space; only an operator's new bounds change it.
        optimizer: the algorithm, with its constants.
        n_slots: size of the population at its start.
        steps: PBT steps of each slot; only an operator extends them.
        budget: length of one step, in the user's unit (epochs, updates, seconds).
        seed: from which all random numbers follow.
        maximize: whether a higher metric is better.
        max_attempts: failures after which a trial is given up.
        max_lost_attempts: attempts lost with their workers after which a trial is given up: the
            trial may be what ends the workers.
        initial: first vectors of the first slots, in place of the optimizer's, whose
            coordinates are taken where they are None.
        inherited: checkpoints that the first slots begin from, in place of none.
        quorum_wait_min_s: a wait for a quorum that is shorter never ends early, in seconds.
        elasticity: how the population follows the workers.
        deadline_ms: when the search must have ended, in milliseconds since the epoch; None: no
            deadline.
        max_ms: how long it may go on after its beginning, pauses counted, in milliseconds; None:
            for any time.
        max_trials: how many trials it may begin; None: any number.
        target_loss: the loss at which it ends; None: none.
    """

    space: Space
    optimizer: Optimizer
    n_slots: int
    steps: int
    budget: float
    seed: int
    maximize: bool = False
    max_attempts: int = 3
    max_lost_attempts: int = 10
    initial: tuple[tuple[float | None, ...], ...] = ()
    inherited: tuple[Inherited, ...] = ()
    quorum_wait_min_s: float = 60.0
    elasticity: Elasticity = field(default_factory=Elasticity)
    deadline_ms: int | None = None
    max_ms: int | None = None
    max_trials: int | None = None
    target_loss: float | None = None

    @property
    def planned_steps(self) -> int:
        """How many steps a slot comes to if nothing but the number of trials ends the search."""
        if self.max_trials is None:
            return self.steps
        return min(self.steps, math.ceil(self.max_trials / self.n_slots))
