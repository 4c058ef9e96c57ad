"""Drives a population directly: without a store or workers, and in any order of arrival."""

from romul_actors.core.decide import decide
from romul_actors.core.events import Expired, Failed, Released, Result, Stamped, Submitted, Tick
from romul_actors.core.optimizers import make
from romul_actors.core.population import Population
from romul_actors.core.settings import Settings
from romul_actors.core.space import FloatParameter, Space
from romul_actors.protocol.slot_codec import read, write_meta, write_slot

CUBE = Space([FloatParameter("x", 0.0, 1.0), FloatParameter("y", 0.0, 1.0)])


def population(optimizer="romul", *, space=CUBE, n_slots=8, steps=6, seed=3, options=None, **more):
    return Population(
        settings=Settings(
            space=space,
            optimizer=make(optimizer, options or {}),
            n_slots=n_slots,
            steps=steps,
            budget=1.0,
            seed=seed,
            **more,
        )
    )


class Run:
    """Applies events to a population, and keeps the results."""

    def __init__(self, population):
        self.population = population
        self.trials = {}
        self.history = []
        self.now_ms = 0

    def tell(self, event, at_ms=None):
        self.now_ms = self.now_ms + 1 if at_ms is None else at_ms
        decision = decide(self.population, Stamped(event, self.now_ms))
        self.population = decision.population
        for trial in decision.trials:
            self.trials[trial.slot] = trial
        self.history += decision.history
        return decision

    def start(self):
        self.tell(Submitted())
        return self

    def token(self, slot):
        trial = self.trials[slot]
        return {"trial": trial.id, "slot": slot, "attempt": trial.attempt, "worker": "w"}

    def result(self, slot, value, *, seconds=1.0):
        trial = self.trials[slot]
        checkpoint = f"{trial.id}-{trial.attempt}"
        return Result(**self.token(slot), value=value, checkpoint=checkpoint, seconds=seconds)

    def failed(self, slot, reason="exception"):
        return Failed(**self.token(slot), reason=reason, message="boom", seconds=0.1)

    def expired(self, slot):
        return Expired(**self.token(slot))

    def released(self, slot):
        return Released(**self.token(slot), reason="drained")

    def tick(self, at_ms, workers=8):
        return self.tell(Tick(workers=workers), at_ms)

    def queued(self):
        return [slot.index for slot in self.population.slots if slot.status == "queued"]

    def of(self, kind):
        return [line for line in self.history if isinstance(line, kind)]

    def to_the_end(self, loss, order=lambda queued: queued):
        """Report `loss(trial)` for all trials, one round at a time, in the given order."""
        while self.population.status == "running":
            for slot in order(self.queued()):
                self.tell(self.result(slot, loss(self.trials[slot])))
        return self


def bowl(trial):
    x, y = trial.hyperparameters["x"], trial.hyperparameters["y"]
    return (x - 0.3) ** 2 + 100 * (y - 0.7) ** 2


def reread(kept, metric="loss"):
    """The population, written and read as in a store."""
    rows = [write_slot(slot, kept.settings, metric) for slot in kept.slots]
    return read(kept.settings, metric, write_meta(kept, metric), rows)
