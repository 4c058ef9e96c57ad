"""Slots and constants that an operator changes in the middle of a search."""

from dataclasses import replace

import pytest

from romul_actors.core.events import Control
from romul_actors.core.history import (
    ControlIgnored,
    SearchChanged,
    SlotParked,
    SlotResumed,
    TrialCreated,
)
from romul_actors.protocol.experiment import from_json
from romul_actors.protocol.plan import settings
from romul_actors.protocol.redeclare import redeclare
from romul_sim.records.record import Record
from romul_sim.records.replay import fork, verify
from tests.trials import declare
from tests.unit.harness import Run, bowl, population

PAUSE, RESUME = Control(action="pause", by="me"), Control(action="resume", by="me")


def change(population=0, **constants):
    return Control(action="change", by="me", population=population, constants=constants)


def paused(optimizer="romul", *, n_slots=8, steps=8, **more):
    """A search that was paused after two steps, with all results in."""
    run = Run(population(optimizer, n_slots=n_slots, steps=steps, **more)).start()
    for _ in range(2):
        for slot in run.queued():
            run.tell(run.result(slot, bowl(run.trials[slot])))
    run.tell(PAUSE)
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot])))
    assert run.queued() == []
    return run


def losses(run):
    return {slot.index: slot.outcomes[max(slot.outcomes)].loss for slot in run.population.slots}


@pytest.mark.parametrize("optimizer", ["romul", "truncation", "de", "mf_pbt", "random"])
def test_fewer_slots_park_the_worst_and_no_worker_brings_them_back(optimizer):
    run = paused(optimizer)
    worst = sorted(losses(run), key=losses(run).get)[-3:]
    run.tell(change(5))
    assert {line.slot for line in run.of(SlotParked)} == set(worst)
    run.tell(RESUME)
    run.tick(run.now_ms + 10_000, workers=99)
    run.tick(run.now_ms + 10_000, workers=99)
    assert not run.of(SlotResumed)
    run.to_the_end(bowl)
    ended = [slot.index for slot in run.population.slots if max(slot.outcomes) == 7]
    assert set(ended) == set(range(8)) - set(worst)


@pytest.mark.parametrize("optimizer", ["romul", "truncation", "de", "mf_pbt", "random"])
def test_more_slots_are_forked_when_the_search_runs(optimizer):
    run = paused(optimizer)
    run.tell(change(11))
    assert (len(run.population.slots), run.queued(), run.of(SlotParked)) == (8, [], [])
    run.tell(RESUME)
    assert len(run.population.slots) == 11
    joined = [line for line in run.of(TrialCreated) if line.slot >= 8]
    assert [line.why["rule"] for line in joined] == ["joined"] * 3
    run.to_the_end(bowl)
    assert all(slot.status == "done" for slot in run.population.slots)
    # It is not applied again at the next resume.
    assert len(run.population.slots) == 11


def test_a_running_search_has_them_at_once():
    run = paused()
    run.tell(RESUME)
    run.tell(change(10))
    assert len(run.population.slots) == 10
    run.tell(change(6))
    parked = [slot for slot in run.population.slots if slot.status == "parked" or slot.parking]
    assert len(parked) == 4
    run.tell(change(8))
    run.tick(run.now_ms + 1, workers=1)
    parked = [slot for slot in run.population.slots if slot.status == "parked" or slot.parking]
    assert len(parked) == 2


def test_constants_hold_from_then_on():
    run = paused()
    run.tell(change(factor=0.0, power=2))
    run.tell(RESUME)
    first = len(run.of(TrialCreated))
    run.to_the_end(bowl)
    rules = {line.why["rule"] for line in run.of(TrialCreated)[first:]}
    assert rules <= {"kept", "held", "redrawn"}
    optimizer = run.population.settings.optimizer
    assert (optimizer.factor, optimizer.power, optimizer.guarded) == (0.0, 2, 0.7)


def test_what_was_there_before_stands_in_the_line():
    run = paused()
    run.tell(change(9, factor=0.3))
    [line] = run.of(SearchChanged)
    assert (line.population, line.constants, line.by) == (9, {"factor": 0.3}, "me")
    assert line.before == {"population": 8, "constants": {"factor": 1.0}}


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (change(3), "population: 3 is not between 4 and 100000"),
        (change(200_000), "population: 200000 is not between 4"),
        (change(31), "31 slots are more than max_trials = 30"),
        (change(facotr=0.3), "did you mean 'factor'"),
        (change(factor=-0.3), "below 0"),
        (change(factor="much"), "is not a float"),
    ],
)
def test_what_is_not_possible_is_ignored_in_words(event, why):
    run = paused(max_trials=30)
    before = run.population
    run.tell(event)
    assert run.population == before
    [line] = run.of(ControlIgnored)
    assert why in line.why
    given = {"population": event.population, "constants": event.constants}
    assert line.given == {name: value for name, value in given.items() if value}


def test_new_slots_need_a_trial_to_go_on_from():
    run = Run(population(n_slots=4)).start()
    run.tell(change(6))
    assert "no trial has ended yet" in run.of(ControlIgnored)[0].why
    ended = Run(population(n_slots=4, steps=1)).start().to_the_end(bowl)
    ended.tell(change(6))
    assert (ended.of(ControlIgnored)[0].status, len(ended.population.slots)) == ("finished", 4)
    fresh = Run(population(n_slots=4))
    fresh.tell(change(6))
    assert len(fresh.start().population.slots) == 6


DECLARED = declare(*"xy", population=8, steps=8, seed=3, initial=[{"x": 0.5, "y": 0.5}] * 7)


@pytest.mark.parametrize(
    "elasticity", [{}, {"max": 8}, {"max": 12, "min": 7}], ids=["fixed", "same", "grows"]
)
@pytest.mark.parametrize("n_slots", [5, 10])
def test_the_declaration_is_changed_and_can_be_read_again(elasticity, n_slots):
    declared = DECLARED.model_copy(
        update={"elasticity": type(DECLARED.elasticity).model_validate(elasticity)}
    )
    before = settings(declared)
    run = paused()
    run.population = replace(run.population, settings=replace(before, initial=()))
    run.tell(change(n_slots, power=0.2))
    after = run.population.settings
    changed = redeclare(declared, before, after)
    assert from_json(changed.model_dump_json()) == changed
    assert settings(changed).elasticity == after.elasticity
    assert (changed.population, settings(changed).optimizer) == (n_slots, after.optimizer)
    assert changed.optimizer.options == {"power": 0.2}
    assert len(changed.initial) == min(7, n_slots)


def test_a_record_of_a_changed_run_is_decided_again_the_same():
    run = Run(population(n_slots=8, steps=8)).start()
    events = {
        1: change(11),
        2: change(3),
        3: change(6, factor=0.2),
        4: Control(action="bounds", by="me", parameter="x", low=0.1, high=0.6),
        5: Control(action="bounds", by="me", parameter="x", low=0.2, high=0.5),
    }
    for n in range(7):
        if n in events:
            run.tell(events[n])
        for slot in run.queued():
            run.tell(run.result(slot, bowl(run.trials[slot])))
    run.to_the_end(bowl)
    start = settings(DECLARED.model_copy(update={"initial": ()}))
    stored = redeclare(DECLARED.model_copy(update={"initial": ()}), start, run.population.settings)
    assert (stored.population, stored.space["x"].model_dump()["max"]) == (6, 0.5)
    record = Record(stored, 0, run.history, [], 1.0)
    assert verify(record).parting is None
    assert fork(record, []).changed == 0
    # A named value counts at each event, even if the run ended with it; nothing else changes.
    before_the_change = 3 * 11
    assert 0 < fork(record, ["factor=0.2"]).changed <= before_the_change
    assert fork(record, ["factor=0.2", "power=4.0"]).changed == fork(record, ["factor=0.2"]).changed


def test_a_record_whose_bounds_were_changed_is_decided_with_others():
    run = Run(population(n_slots=8, steps=8)).start()
    narrow = Control(action="bounds", by="me", parameter="x", low=0.0, high=0.5)
    for n in range(4):
        if n == 2:
            run.tell(narrow)
        for slot in run.queued():
            run.tell(run.result(slot, bowl(run.trials[slot])))
    run.to_the_end(bowl)
    # Its first trial lay outside the later bounds.
    declared = DECLARED.model_copy(update={"initial": ()})
    stored = redeclare(declared, settings(declared), run.population.settings)
    record = Record(stored, 0, run.history, [], 1.0)
    # Naming a current value changes nothing; changing one parameter's bounds keeps others.
    assert fork(record, ["space.y.max=1.0"]).changed == 0
    assert fork(record, ["optimizer.options.power=4.0"]).changed == 0
    as_it_ended = fork(record, ["space.x.max=0.5"])
    assert 0 < as_it_ended.changed <= 3 * 8
    assert fork(record, ["optimizer.name=random"]).changed > as_it_ended.changed


def test_limits_of_a_record_are_those_of_each_event():
    run = Run(population(n_slots=8, steps=4, max_trials=12)).start().to_the_end(bowl)
    assert run.population.counts.created == 12
    before = run.population.settings
    run.tell(Control(action="extend", by="me", steps=6))
    run.to_the_end(bowl)
    declared = DECLARED.model_copy(update={"initial": (), "steps": 4, "max_trials": 12})
    record = Record(redeclare(declared, before, run.population.settings), 0, run.history, [], 1.0)
    found = fork(record, [])
    assert (found.decisions, found.changed, found.sooner) == (48, 0, 0)


@pytest.mark.parametrize("key", ["initial", "from_run"])
def test_first_values_outside_later_bounds_leave_a_search_that_can_be_read(key):
    first = {"x": 0.95, "y": 0.5}
    origin = {"name": "e", "what": "checkpoints"}
    held = [{"name": "c", "trial": "0-0", "hyperparameters": first}]
    given = (
        {"initial": (first,)} if key == "initial" else {"from_run": {**origin, "checkpoints": held}}
    )
    declared = type(DECLARED).model_validate({**DECLARED.model_dump(), "initial": (), **given})
    run = Run(replace(population(), settings=settings(declared))).start()
    before = run.population.settings
    run.tell(Control(action="bounds", by="me", parameter="x", low=0.0, high=0.5))
    stored = redeclare(declared, before, run.population.settings)
    found = from_json(stored.model_dump_json())
    assert found.model_dump()[key] == declared.model_dump()[key]
    assert settings(found, stored=True).space.axes == run.population.settings.space.axes
