"""The audit of a drill: what must hold once a search has ended."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported
from romul_actors.core.population import Population
from romul_actors.errors import CheckpointError
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings
from romul_workers.checkpoints import Checkpoints


@dataclass(slots=True)
class Verdict:
    """What the audit found.

    Attributes:
        trials: how many were created.
        lost: trials that were created and never ended.
        doubled: trials that were decided or accepted more than once.
        broken: invariants that do not hold, in words.
        causes: by cause, how many attempts ended without a result.
        completed: whether the search finished.
    """

    trials: int = 0
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    completed: bool = True


class _Checks:
    """Collects what does not hold of one search."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken: list[str] = []

    def must(self, holds: bool, what: str) -> None:  # noqa: FBT001
        """Note `what` if it does not hold."""
        if not holds:
            self.fail(what)

    def fail(self, what: str) -> None:
        """Note what does not hold."""
        self.broken.append(f"{self.name}: {what}")


def audit(
    experiment: Experiment,
    population: Population,
    history: Sequence[Line],
    depths: Mapping[str, int],
    checkpoints: Checkpoints,
) -> Verdict:
    """Compare an ended experiment's population, history and checkpoints with what must hold."""
    created = [line for line in history if isinstance(line, TrialCreated)]
    reported = [line for line in history if isinstance(line, TrialReported)]
    decided = Counter(line.trial for line in created)
    accepted = Counter(line.trial for line in reported)
    given_up = Counter(
        line.trial for line in history if isinstance(line, TrialFailed) and not line.again
    )
    ended = accepted + given_up
    verdict = Verdict(trials=len(decided), completed=population.status == "finished")
    verdict.lost = sum(trial not in ended for trial in decided)
    verdict.doubled = sum(n > 1 for n in decided.values()) + sum(n > 1 for n in ended.values())
    verdict.causes = Counter(population.causes)
    checks = _Checks(experiment.name)
    must = checks.must
    must(verdict.completed, f"it is {population.status}: {population.reason}")
    _audit_counts(experiment, population, len(decided), len(accepted), checks)
    must(depths["trials"] == 0 and depths["inbox"] == 0, f"queues are not empty: {dict(depths)}")
    for line in created:
        if line.parent is not None:
            must(line.parent in accepted, f"{line.trial}: its parent never ended well")
    # The task reports it when a checkpoint's own count of updates does not fit its place.
    must(not verdict.causes["bad_result"], "a checkpoint did not fit its trial")
    _audit_best(experiment, population, [line.value for line in reported], checkpoints, checks)
    verdict.broken = checks.broken
    return verdict


def _audit_counts(
    experiment: Experiment, population: Population, created: int, reported: int, checks: _Checks
) -> None:
    """Compare the population's own counts with those of history, and with one another."""
    counts, must = population.counts, checks.must
    must(counts.created == created, "the count of created trials differs from history")
    must(counts.reported == reported, "the count of results differs from history")
    must(
        counts.created == counts.reported + counts.failed + counts.discarded,
        "created is not reported + failed + discarded",
    )
    bounds = settings(experiment).elasticity
    n_slots = len(population.slots)
    must(
        bounds.min_slots <= n_slots <= max(bounds.max_slots, experiment.population),
        f"{n_slots} slots are out of bounds",
    )


def _audit_best(
    experiment: Experiment,
    population: Population,
    values: Sequence[float],
    checkpoints: Checkpoints,
    checks: _Checks,
) -> None:
    """Look whether the best trial is the best, and whether its checkpoint is whole."""
    best, must = population.best, checks.must
    if best is None or not values:
        checks.fail("there is no best trial")
        return
    must(best.loss == min(values), "the best loss is not the lowest of all results")
    try:
        folder = checkpoints.fetch(best.checkpoint)
    except CheckpointError as error:
        checks.fail(f"the best checkpoint is gone: {error}")
        return
    updates = json.loads((folder / "state.json").read_text())[2]
    step = int(best.trial.partition("-")[2])
    must(
        updates == int((step + 1) * experiment.budget),
        f"the best checkpoint holds {updates} updates after step {step}",
    )
