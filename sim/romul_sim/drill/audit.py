"""The audit of a drill: checks what must hold after a search has ended."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported
from romul_actors.core.population import Population
from romul_actors.errors import CheckpointError
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings
from romul_workers.checkpoints.storage import Checkpoints


@dataclass(slots=True)
class Verdict:
    """The result of the audit.

    Attributes:
        trials: number of trials that were created.
        lost: number of trials that were created but never ended.
        doubled: number of trials that were decided or accepted more than once.
        broken: messages about invariants that do not hold.
        causes: number of attempts that ended without a result, by cause.
        completed: whether the search finished.
    """

    trials: int = 0
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    completed: bool = True


class _Checks:
    """Collects failed checks of one search."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken: list[str] = []

    def must(self, holds: bool, what: str) -> None:  # noqa: FBT001
        """Record the message `what` if `holds` is false."""
        if not holds:
            self.fail(what)

    def fail(self, what: str) -> None:
        """Record a message."""
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
    # The task fails with this reason if a checkpoint's count of updates is wrong.
    must(not verdict.causes["bad_result"], "a checkpoint did not fit its trial")
    _audit_best(experiment, population, [line.value for line in reported], checkpoints, checks)
    verdict.broken = checks.broken
    return verdict


def _audit_counts(
    experiment: Experiment, population: Population, created: int, reported: int, checks: _Checks
) -> None:
    """Compare the population's counts with history and with each other."""
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
    """Check that the best trial has the lowest loss and that its checkpoint is complete."""
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
