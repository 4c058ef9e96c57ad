"""When a search's task is at fault, rather than its trials' hyperparameters."""

import pytest

from romul_actors.core.history import TrialFailed
from romul_actors.observe.judge import Judge


def failed(slot, message):
    return TrialFailed(
        at_ms=slot,
        trial=f"{slot}-0",
        attempt=1,
        worker="w",
        slot=slot,
        step=0,
        reason="exception",
        message=f"Traceback:\n  in slot {slot}\n{message}",
        again=True,
    )


@pytest.mark.parametrize(
    "message",
    [
        "KeyError: 'loss'",
        "FileNotFoundError: No such file: '/runs/f/checkpoints/{slot}-0-1-a{slot}c/sub/x.json'",
        "FileNotFoundError: No such file: 'tmp-a{slot}c/x.json'",
        "TypeError: cannot pickle <Net object at 0x7f{slot}a>",
        "RuntimeError: loss is {slot}.5",
    ],
)
def test_a_fault_is_the_same_whatever_paths_addresses_and_numbers_it_names(message):
    judge = Judge(6)
    assert [judge.take(failed(slot, message.format(slot=slot))) for slot in (1, 2)] == ["", ""]
    assert "3 trials" in judge.take(failed(3, message.format(slot=3)))


def test_faults_of_other_words_are_no_fault_of_the_task():
    judge = Judge(6)
    for slot, name in enumerate(("adam", "sgd", "lion", "adam")):
        assert judge.take(failed(slot, f"KeyError: {name}")) == ""
