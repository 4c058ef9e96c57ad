"""Records of trials, and their rows in exports."""

from typing import Any

from romul_actors.core.history import TrialCreated, TrialFailed, TrialReported
from romul_actors.observe.trial_records import trial_rows, trials

CREATED = TrialCreated(
    at_ms=5,
    trial="0-0",
    slot=0,
    step=0,
    parent=None,
    hyperparameters={"x": 1},
    vector=(0.5,),
    seed=7,
    why={"rule": "drawn"},
)
TOKEN: dict[str, Any] = {"trial": "0-0", "attempt": 1, "worker": "w", "slot": 0, "step": 0}
LOST = TrialFailed(**TOKEN, at_ms=6, again=True, reason="lost", message="")
FAILED = TrialFailed(**TOKEN, at_ms=7, again=False, reason="exception", message="x", seconds=2.0)
REPORTED = TrialReported(
    **TOKEN, at_ms=8, value=0.25, checkpoint="0-0-1", seconds=3.0, metrics={"accuracy": 0.75}
)


def test_a_record_goes_from_the_decision_to_the_result():
    record = trials([CREATED, LOST, REPORTED])["0-0"]
    assert (record.id, record.rule, record.copied_from, record.seed) == ("0-0", "drawn", None, 7)
    assert (record.created_ms, record.ended_ms, record.failed) == (5, 8, "")
    assert (record.value, record.seconds, record.worker) == (0.25, 3.0, "w")


def test_a_result_whose_decision_is_gone_has_no_record():
    assert trials([LOST, FAILED, REPORTED]) == {}


def test_a_failed_trial_that_was_resumed_keeps_its_failure():
    record = trials([CREATED, FAILED, REPORTED])["0-0"]
    assert (record.failed, record.value, record.ended_ms) == ("exception", 0.25, 8)


def test_rows_of_trials_hold_failures_too():
    rows = trial_rows([CREATED, LOST, FAILED])
    assert [(r["failed"], r["ended_ms"], r["value"], r["h.x"]) for r in rows] == [
        ("exception", 7, None, 1)
    ]


def test_a_row_has_every_figure_under_its_own_name():
    [row] = trial_rows([CREATED, REPORTED])
    assert row == {
        "trial": "0-0",
        "slot": 0,
        "step": 0,
        "parent": None,
        "rule": "drawn",
        "copied": None,
        "decided_ms": 5,
        "ended_ms": 8,
        "value": 0.25,
        "seconds": 3.0,
        "attempt": 1,
        "worker": "w",
        "failed": "",
        "h.x": 1,
        "m.accuracy": 0.75,
    }
