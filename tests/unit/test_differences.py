"""A declaration that was changed during its search: applied, or refused with a reason."""

import pytest

from romul_actors.core.events import Control
from romul_actors.core.history import BoundsChanged
from romul_actors.errors import ExperimentError
from romul_actors.protocol.differences import Changes, differences
from romul_actors.protocol.experiment import parse
from tests.unit.harness import Run, bowl, population

BEFORE = """\
name = "e"
task = "t"
population = 8
steps = 30
optimizer = { name = "romul", power = 0.2 }

[space]
rate = { type = "float", min = 1e-3, max = 1.0, scale = "log" }
width = { type = "int", min = 16, max = 256, step = 16 }
kind = { type = "categorical", choices = ["a", "b"] }
rates = { type = "float", min = 0.0, max = 1.0, size = 3 }
"""


def changed(*pairs):
    text = BEFORE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return differences(parse(BEFORE), parse(text))


def test_the_same_declaration_changes_nothing():
    assert changed() == Changes()
    assert not changed()


def test_what_can_be_changed_is_translated():
    found = changed(
        ("min = 1e-3, max = 1.0", "min = 1e-4, max = 0.5"),
        ("max = 256", "max = 512"),
        ("min = 0.0, max = 1.0, size", "min = 0.5, max = 1.0, size"),
        ("steps = 30", "steps = 60"),
        ("population = 8", "population = 12"),
        ("power = 0.2", "factor = 0.3"),
    )
    assert found == Changes(
        bounds={"rate": (1e-4, 0.5), "width": (16.0, 512.0), "rates": (0.5, 1.0)},
        steps=60,
        population=12,
        # The omitted option has its default again.
        constants={"factor": 0.3, "power": 4.0},
    )
    assert found


def test_what_is_guarded_stays_as_it_was():
    found = changed(('scale = "log" }', 'scale = "log", guarded = false }'))
    assert found == Changes(kept=("space.rate.guarded",))
    assert not found


def test_an_option_that_no_longer_counts_is_no_difference():
    before = parse(BEFORE.replace("power = 0.2", "power = 0.2, replaced_first = 0.5"))
    assert not differences(before, parse(BEFORE))


def test_what_decides_nothing_stays_as_it_was():
    found = changed(("steps = 30", "steps = 30\nmax_attempts = 9\nhistory_keep = 7"))
    assert found.kept == ("max_attempts", "history_keep")
    assert not found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[space]", '[space]\nx = { type = "boolean" }', "space: x was added: existing trials"),
        ('kind = { type = "categorical", choices = ["a", "b"] }', "", "space: kind was removed"),
        ('["a", "b"]', '["a", "c"]', "space: kind was {"),
        (', scale = "log"', "", "only bounds may change"),
        ("size = 3", "size = 4", "space: rates was {"),
        ("step = 16", "step = 8", "only bounds may change"),
        ("max = 256, step = 16", "max = 256, step = 16, mutable = false", "only bounds may change"),
        ('"t"', '"other"', "task was 't' and is now 'other'"),
        ("steps = 30", "steps = 30\nseed = 4", "seed was 0 and is now 4"),
        ("steps = 30", "steps = 20", "steps was 30 and is now 20: steps already done"),
        ('"romul", power = 0.2', '"truncation"', "optimizer was 'romul' and is now 'truncation'"),
    ],
)
def test_another_search_is_refused_with_what_to_do(old, new, said):
    with pytest.raises(ExperimentError) as error:
        changed((old, new))
    first, last = str(error.value).splitlines()
    assert first.startswith("e: ")
    assert said in first
    assert last == (
        "That is a different search: give it another name. To begin it with the results of "
        'this one, use --from-run e (in Python: from_run="e").'
    )


def test_all_differences_are_named_at_once():
    with pytest.raises(ExperimentError) as error:
        changed(
            ("[space]", '[space]\nx = { type = "boolean" }'),
            ('"t"', '"u"'),
            ("size = 3", "size = 2"),
        )
    assert len(str(error.value).splitlines()) == 4


def test_a_finished_search_gets_bounds_before_it_is_extended():
    run = Run(population(n_slots=8, steps=2)).start().to_the_end(bowl)
    run.tell(Control(action="bounds", by="me", parameter="x", low=0.25, high=0.5))
    assert run.of(BoundsChanged)[0].before == (0.0, 1.0)
    run.tell(Control(action="extend", steps=4))
    assert all(0.25 <= run.trials[slot].hyperparameters["x"] <= 0.5 for slot in range(8))
