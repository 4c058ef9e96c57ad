"""Which of the attempts that a population waits for are missing."""

from romul_actors.actor.reconciliation import REMEMBERED_BYTES, missing_attempts
from romul_actors.core.events import Tick
from romul_actors.protocol.messages import encode
from romul_actors.store import Outstanding
from tests.unit.harness import Run, population


def missing(run, trials, inbox=()):
    found = missing_attempts(run.population, Outstanding("1.1.", list(trials), list(inbox)))
    return [(each.slot, each.attempt) for each in found]


def test_an_attempt_is_known_by_its_trial_or_by_its_report_however_often_it_is_looked_at():
    run = Run(population(n_slots=4)).start()
    bodies = [encode(run.trials[slot]) for slot in range(4)]
    for _ in range(2):
        assert missing(run, bodies) == []
        assert missing(run, bodies[:2]) == [(2, 1), (3, 1)]
        assert missing(run, bodies[:2], [encode(run.failed(2))]) == [(3, 1)]
    assert missing(run, [], [encode(run.result(0, 1.0))]) == [(1, 1), (2, 1), (3, 1)]


def test_what_holds_no_attempt_makes_none_known():
    run = Run(population(n_slots=2)).start()
    long = b"\xc1" * (REMEMBERED_BYTES + 1)
    assert missing(run, [b"no trial", long], [b"no event", encode(Tick(workers=1))]) == [
        (0, 1),
        (1, 1),
    ]
