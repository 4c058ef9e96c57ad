"""The settings of an experiment, as the core uses them. Only an operator can change them."""

import math
from dataclasses import dataclass, field

from romul_actors.core.elasticity import Elasticity
from romul_actors.core.optimizers.base import Optimizer
from romul_actors.core.space import Space


@dataclass(frozen=True, slots=True)
class Inherited:
    """A checkpoint of another search, from which a slot begins.

    Attributes:
        checkpoint: name of the checkpoint.
        trial: name of the other search and id of the trial, for people.
        vector: hyperparameters of that trial in the unit cube, shape (n_dims,).
    """

    checkpoint: str
    trial: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of an experiment.

    Attributes:
        space: the search space.
        optimizer: the optimizer, with its constants.
        n_slots: number of slots, without those that elasticity adds.
        steps: number of PBT steps of each slot.
        budget: length of one step, in the user's unit (epochs, updates, seconds).
        seed: seed for all random numbers.
        maximize: whether a higher metric is better.
        max_attempts: number of failures after which a trial is given up.
        max_lost_attempts: number of attempts lost with their workers after which a trial is given
            up, since the trial itself may kill the workers.
        initial: first vectors of the first slots, instead of the optimizer's. Where a coordinate is
            None, the optimizer's is used.
        inherited: checkpoints that the first slots begin from.
        quorum_wait_min_s: lower bound, in seconds, of the longest wait for a quorum.
        elasticity: how the population follows the workers.
        deadline_ms: when the search must have ended, in milliseconds since the epoch, or None.
        max_ms: maximal duration of the search including pauses, in milliseconds, or None.
        max_trials: maximal number of trials, or None.
        target_loss: loss at which the search ends, or None.
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
        """Number of steps that a slot reaches unless a limit other than `max_trials` applies."""
        if self.max_trials is None:
            return self.steps
        return min(self.steps, math.ceil(self.max_trials / self.n_slots))
