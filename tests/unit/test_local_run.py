"""Which calls of `romul.run` continue the run in a folder, and which declare another search."""

import json

import pytest

from romul.local_run import CALL, LocalRun, Task
from romul_actors.errors import ExperimentExistsError
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import from_values

DECLARED = {
    "name": "e",
    "task": "t",
    "steps": 4,
    "initial": [{"rate": 1}],
    "constants": {"width": 2},
    "space": {"rate": {"type": "float", "min": 0, "max": 1}},
}


@pytest.fixture
def begin(tmp_path):
    """Begins a run in the same folder, as a call with these keys does."""

    def begun(**changes):
        experiment = from_values({**DECLARED, **changes}, "the test")
        run = LocalRun(tmp_path / "e", experiment, Task("t", (), "0"), 1)
        return run.begin(resume=False, fresh=False)

    return begun


@pytest.mark.parametrize(
    "changes",
    [
        {"initial": [{"rate": 1.0}]},
        {"constants": {"width": 2.0}},
        {"space": {"rate": {"type": "float", "min": 0.0, "max": 1.0, "scale": "linear"}}},
        {"max_attempts": 3, "seed": 0, "direction": "minimize", "elasticity": {}},
        {"optimizer": {"name": "romul", "power": 4}},
        {"optimizer": "romul"},
    ],
)
def test_the_same_search_in_other_words_goes_on(begin, changes):
    begin()
    assert begin(**changes) == Changes()
    # And what the second call wrote down is the first one's search.
    assert begin() == Changes()


def test_a_call_that_an_older_version_noted_without_a_key_goes_on(begin, tmp_path):
    begin()
    file = tmp_path / "e" / CALL
    noted = json.loads(file.read_text())
    del noted["experiment"]["max_losses"], noted["experiment"]["keep_checkpoints"]
    file.write_text(json.dumps(noted))
    assert begin() == Changes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_attempts": 4}, "max_attempts was 3, and is 4.*cannot be changed"),
        ({"optimizer": {"name": "romul", "power": 3.0}}, "optimizer was .*use resume=True"),
        ({"constants": {"width": 3}}, "another search of the same name .constants was"),
    ],
)
def test_another_declaration_is_named(begin, changes, words):
    begin()
    with pytest.raises(ExperimentExistsError, match=words):
        begin(**changes)
