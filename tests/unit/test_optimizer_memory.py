"""Optimizer state stored in slots: it is either usable when read, or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import StoredDataError
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from tests.unit.harness import Run, population

KEYS = ("loss", "base", "born", "rungs", "tried", "falls", "before")
NUMBERS = st.one_of(
    *(st.integers(-1, 9), st.floats(-9.0, 9.0), st.booleans(), st.none(), st.text(max_size=2)),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
)
ROWS = st.lists(st.one_of(NUMBERS, st.lists(NUMBERS, max_size=4)), max_size=3)
MEMORY = st.dictionaries(
    st.sampled_from(KEYS),
    st.one_of(NUMBERS, ROWS, st.dictionaries(st.sampled_from(["1", "3", "x"]), ROWS, max_size=2)),
    max_size=4,
)


def begun(optimizer):
    """A population with optimizer state in its slots, one result before the next decisions."""
    run = Run(population(optimizer, n_slots=4, steps=6)).start()
    for _ in range(3):
        for slot in run.queued():
            run.tell(run.result(slot, float(slot)))
    for slot in run.queued()[1:]:
        run.tell(run.result(slot, float(slot)))
    return run


def reread(kept, **changes):
    """The stored population with other fields of its second slot."""
    rows = [write_slot(slot, kept.settings, "loss") for slot in kept.slots]
    rows[1] |= changes
    return read(kept.settings, "loss", write_meta(kept, "loss"), rows, "e")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_an_optimizer_keeps_is_what_it_is_read_back_as(optimizer):
    run = Run(population(optimizer, n_slots=4, steps=6)).start()
    while run.population.status == "running":
        for slot in run.queued():
            lost = (run.trials[slot].step, slot) == (2, 3)
            run.tell(replace(run.result(slot, float(slot)), value=float("nan") if lost else slot))
        assert reread(run.population) == run.population
    assert run.population.status == "finished"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_whatever_is_found_there_is_refused_or_decided_on(optimizer):
    run = begun(optimizer)

    @given(MEMORY)
    @settings(max_examples=20 if optimizer in ("tpe", "pb2") else 100)
    def check(memory):
        try:
            found = reread(run.population, memory=json.dumps(memory))
        except StoredDataError as error:
            refused.append(str(error))
            return
        again = Run(found)
        again.trials = dict(run.trials)
        slot = again.queued()[0]
        again.tell(again.result(slot, 0.5))
        assert again.queued()

    refused: list[str] = []
    check()
    assert all("slot 1: field 'memory' holds " in words for words in refused)
    keeps = optimizer in ("de", "asha", "tpe", "pb2")
    assert bool(refused) == keeps


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_of_any_size_leave_a_memory_that_can_be_read_back(optimizer):
    run = begun(optimizer)
    losses = [1.7e308, -1.7e308, 1e308, -1e308, 0.0, 1e-308, 1.0, 1e200]
    for n in range(5):
        for slot in run.queued():
            run.tell(run.result(slot, losses[(3 * slot + n) % len(losses)]))
        assert reread(run.population) == run.population
    vectors = np.array([slot.vector for slot in run.population.slots])
    assert np.isfinite(vectors).all()
