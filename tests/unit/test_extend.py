"""Extending a search: from its end, from a stop, or while it runs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import romul
from romul_actors.actor.garbage import NeededCheckpoints
from romul_actors.core.events import Control
from romul_actors.core.history import (
    ControlIgnored,
    SearchExtended,
    SearchFinished,
    TrialCreated,
    TrialReported,
)
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.protocol.experiment import Experiment
from romul_sim.records.record import Record
from romul_sim.records.replay import fork, verify
from tests.unit.harness import Run, bowl, population

WITHOUT_LIBRARIES = [name for name in OPTIMIZERS if name not in ("tpe", "pb2")]


def extension(steps):
    return Control(action="extend", by="me", steps=steps)


def books_agree(run):
    counts = run.population.counts
    live = sum(slot.status == "queued" for slot in run.population.slots)
    assert counts.created == counts.reported + counts.failed + counts.discarded + live
    ids = [line.trial for line in run.of(TrialCreated)]
    assert len(ids) == len(set(ids)) == counts.created


@pytest.mark.parametrize("optimizer", WITHOUT_LIBRARIES)
def test_a_finished_search_goes_on_from_its_last_checkpoints(optimizer):
    run = Run(population(optimizer, n_slots=8, steps=4)).start().to_the_end(bowl)
    kept = {slot.outcomes[3].checkpoint for slot in run.population.slots}
    run.tell(extension(9))
    first = [line for line in run.of(TrialCreated) if line.step == 4]
    assert [line.slot for line in first] == list(range(8))
    parents = {run.trials[slot].parent for slot in range(8)}
    assert parents - {None} <= kept
    run.to_the_end(bowl)
    assert (run.population.status, run.population.reason) == ("finished", "")
    assert all(max(slot.outcomes) == 8 for slot in run.population.slots)
    assert run.population.counts.reported == 72
    assert run.of(SearchExtended) == [SearchExtended(at_ms=34, steps=9, before=4, by="me")]
    books_agree(run)


def test_the_share_of_steps_done_is_that_of_the_new_number():
    """Step 4 of 4 is decided like step 4 of 8 if the population is the same."""
    run = Run(population(n_slots=8, steps=4)).start().to_the_end(bowl)
    end = run.population
    run.tell(extension(8))
    eight = replace(
        end,
        status="paused",
        slots=tuple(replace(slot, status="waiting") for slot in end.slots),
        settings=replace(end.settings, steps=8),
        horizon=8,
    )
    other = Run(eight)
    other.tell(Control(action="resume"))
    decided = [slot.vector for slot in other.population.slots]
    assert [slot.vector for slot in run.population.slots] == decided


def test_a_slot_that_was_two_steps_behind_at_the_stop_does_not_wait_for_peers_that_cannot_report():
    """The peers' results at its step are no longer stored after the stop."""
    run = Run(population(n_slots=8, steps=9)).start()
    while any(slot in run.queued() for slot in range(1, 8)):
        for slot in run.queued():
            if slot:
                run.tell(run.result(slot, float(slot)))
        # An idle worker waits for the rest of the pool for a moment only.
        run.tick(run.now_ms + 100, workers=2)
    assert [slot.step for slot in run.population.slots] == [0] + 7 * [2]
    run.tell(Control(action="stop"))
    run.tell(extension(10))
    run.tell(run.result(0, 9.0))
    assert (run.queued(), run.trials[0].step) == ([0], 1)
    run.to_the_end(bowl)
    assert run.population.status == "finished"
    books_agree(run)


def test_a_stopped_search_goes_on_with_the_trials_that_were_discarded():
    run = Run(population(n_slots=8, steps=6)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot])))
    for slot in run.queued()[:3]:
        run.tell(run.result(slot, bowl(run.trials[slot])))
    interrupted, before = run.queued(), dict(run.trials)
    garbage = NeededCheckpoints(run.population)
    held = run.population
    run.tell(Control(action="stop", by="me"))
    stopped = run.population
    dropped = garbage.follow(held, stopped, stopped.slots, [])
    late = run.result(interrupted[0], 0.1)
    run.tell(late)
    run.tell(extension(12))
    assert run.population.status == "running"
    for slot in interrupted:
        again = run.trials[slot]
        assert (again.id, again.attempt) == (before[slot].id, 2)
        assert (again.parent, again.seed) == (before[slot].parent, before[slot].seed)
        assert again.parent not in dropped
    books_agree(run)
    run.to_the_end(bowl)
    assert run.population.counts.reported == 96
    assert run.population.counts.discarded == 0
    books_agree(run)


def test_a_worker_that_has_not_heard_of_the_stop_may_still_report():
    run = Run(population(n_slots=4, steps=3)).start()
    first = run.result(0, 0.5)
    run.tell(Control(action="stop"))
    run.tell(extension(4))
    run.tell(first)
    assert [(line.trial, line.attempt) for line in run.of(TrialReported)] == [("0-0", 1)]
    run.tell(run.released(1))
    assert run.population.slots[1].live_attempts == (1,)
    run.trials = {slot: replace(t, attempt=1) for slot, t in run.trials.items()}
    run.to_the_end(bowl)
    books_agree(run)


def test_a_running_search_is_extended_while_some_slots_are_done():
    run = Run(population("random", n_slots=4, steps=2)).start()
    for _ in range(2):
        run.tell(run.result(0, bowl(run.trials[0])))
    assert run.population.slots[0].status == "done"
    run.tell(extension(3))
    assert (run.population.slots[0].status, run.population.slots[0].step) == ("queued", 2)
    run.to_the_end(bowl)
    assert run.population.counts.reported == 12


@pytest.mark.parametrize("status", ["paused", "failed"])
def test_a_paused_or_failed_search_has_the_steps_when_it_is_resumed(status):
    run = Run(population(n_slots=4, steps=2, max_attempts=1)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot])))
    if status == "paused":
        run.tell(run.result(0, 0.0))
        run.tell(Control(action="pause"))
        for slot in run.queued():
            run.tell(run.result(slot, 0.0))
    else:
        for slot in run.queued():
            run.tell(run.failed(slot))
    assert run.population.status == status
    run.tell(extension(3))
    assert (run.population.status, run.queued()) == (status, [])
    run.tell(Control(action="resume"))
    run.to_the_end(bowl)
    assert all(max(slot.outcomes) == 2 for slot in run.population.slots)
    books_agree(run)


def test_a_search_that_was_only_submitted_begins_with_the_new_number():
    run = Run(population(n_slots=4, steps=2))
    run.tell(extension(3))
    run.start().to_the_end(bowl)
    assert run.population.counts.reported == 12


@pytest.mark.parametrize("steps", [1, 4])
def test_fewer_steps_are_no_extension(steps):
    run = Run(population(n_slots=4, steps=4)).start().to_the_end(bowl)
    before = run.population
    run.tell(extension(steps))
    assert run.population == before
    [ignored] = run.of(ControlIgnored)
    assert ignored.why == f"steps: {steps} is not above the current 4"
    assert (ignored.action, ignored.given, ignored.by) == ("extend", {"steps": steps}, "me")


def test_a_deadline_that_has_passed_counts_no_more():
    run = Run(population(n_slots=4, steps=4, deadline_ms=10)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot]), seconds=0.001))
    run.tick(20, workers=4)
    assert [line.reason for line in run.of(SearchFinished)] == ["at its deadline"]
    run.tell(extension(6))
    assert run.of(SearchExtended)[0].lifted == {"deadline_ms": 10}
    run.to_the_end(bowl)
    assert run.population.counts.reported == 24


def test_a_slot_that_was_parked_waits_until_there_are_workers():
    run = Run(population(n_slots=8, steps=9)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot])))
    slots = list(run.population.slots)
    slots[7] = replace(slots[7], status="parked", step=0, outcomes={0: slots[7].outcomes[0]})
    run.population = replace(run.population, slots=tuple(slots), oldest=None)
    while run.population.status == "running":
        for slot in run.queued():
            run.tell(run.result(slot, bowl(run.trials[slot])))
    run.tell(extension(12))
    assert run.population.slots[7].status == "parked"
    run.tick(run.now_ms + 1, workers=8)
    assert (run.population.slots[7].status, run.population.slots[7].step) == ("queued", 9)


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False), st.sampled_from(["romul", "de", "asha"]))
def test_whenever_it_comes_every_slot_ends_all_steps(random, optimizer):
    run = Run(population(optimizer, n_slots=5, steps=3)).start()
    extended = [random.randrange(15), random.randrange(25)]
    for n in range(60):
        if n in extended:
            if random.random() < 0.5:
                run.tell(Control(action="stop"))
            run.tell(extension(run.population.settings.steps + random.randrange(1, 3)))
        queued = run.queued()
        if queued:
            slot = random.choice(queued)
            run.tell(run.result(slot, bowl(run.trials[slot])))
        books_agree(run)
    run.to_the_end(bowl)
    steps = run.population.settings.steps
    assert run.population.counts.reported == 5 * steps
    assert all(slot.step == steps - 1 for slot in run.population.slots)


def experiment(**fields):
    space = {name: {"type": "float", "min": 0.0, "max": 1.0} for name in "xy"}
    return Experiment.model_validate(
        {"name": "e", "task": "t", "space": space, "population": 8, "seed": 3, "budget": 1.0}
        | fields
    )


def test_a_record_of_an_extended_run_is_decided_again_the_same():
    run = Run(population(n_slots=8, steps=4)).start().to_the_end(bowl)
    run.tell(extension(3))
    run.tell(extension(8))
    run.to_the_end(bowl)
    # The stored declaration has the new number.
    record = Record(experiment(steps=8), 0, run.history, [], 1.0)
    found = verify(record)
    assert (found.parting, found.trials) == (None, 64)
    same = fork(record, [])
    assert (same.changed, same.decisions) == (0, 64)
    assert fork(record, ["optimizer.power=0.3"]).changed > 0


def test_ask_and_tell_goes_on_too():
    space = {"x": romul.Float(0, 1), "y": romul.Float(0, 1)}
    asked = romul.Population(space, population=8, steps=2, clock=None)

    def to_the_end():
        while not asked.done:
            trial = asked.ask()
            asked.tell(trial, bowl(trial))

    to_the_end()
    with pytest.raises(romul.ExperimentError, match="2 is not above the 2"):
        asked.extend(2)
    asked.extend(5)
    assert (asked.done, asked.ready) == (False, 8)
    asked = romul.Population.load(asked.state, clock=None)
    to_the_end()
    assert "40 of 40 trials" in repr(asked)
