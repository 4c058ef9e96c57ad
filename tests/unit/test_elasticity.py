"""The population follows the number of workers: growth, parking, second copies, deadlines."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from romul_actors.core.elasticity import Elasticity
from romul_actors.core.events import Control, Released
from romul_actors.core.history import ControlIgnored, ReportStale, SlotParked, TrialCreated
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from tests.unit.harness import Run, bowl, population


def elastic(optimizer="romul", *, n_slots=8, steps=12, seconds=1.0, deadline_ms=None, **policy):
    """A population whose slots have ended their first step, so that the median trial is known."""
    made = population(
        optimizer,
        n_slots=n_slots,
        steps=steps,
        elasticity=Elasticity(**policy),
        deadline_ms=deadline_ms,
    )
    run = Run(made).start()
    for slot in range(n_slots):
        run.tell(run.result(slot, float(slot), seconds=seconds))
    return run


def active(run):
    return [slot.index for slot in run.population.slots if slot.active]


def idle_for_long(run, workers):
    """Two ticks, more than a median trial apart."""
    run.tick(run.now_ms + 10, workers)
    return run.tick(run.now_ms + 1_500, workers)


def spread(run):
    steps = [slot.step for slot in run.population.slots if slot.active]
    return max(steps) - min(steps) if steps else 0


@pytest.mark.parametrize("optimizer", [n for n, o in OPTIMIZERS.items() if o.max_lead is not None])
def test_no_slot_is_ever_more_than_two_steps_ahead(optimizer):
    run = Run(population(optimizer, n_slots=16, steps=12)).start()
    shuffler = random.Random(1)
    while run.population.status == "running":
        # Slot 3 is slow: it reports only when no other slot can.
        queued = run.queued()
        slot = shuffler.choice([i for i in queued if i != 3] or queued)
        run.tell(run.result(slot, bowl(run.trials[slot])))
        assert spread(run) <= 2
    assert run.population.status == "finished"


def test_the_wait_for_the_last_slot_has_a_time_limit():
    run = Run(population(n_slots=8, steps=9, quorum_wait_min_s=1.0)).start()
    for _ in range(3):
        for slot in range(7):
            if slot in run.queued():
                run.tell(run.result(slot, float(slot)))
    assert run.queued() == [7]
    assert len(run.tick(run.now_ms + 60_000, workers=8).trials) == 7


def test_idle_workers_make_the_population_grow_by_forks_of_good_slots():
    run = elastic(max_slots=12, second_copy=0.0)
    decision = idle_for_long(run, workers=20)
    assert [trial.slot for trial in decision.trials] == [8, 9, 10, 11]
    for slot in run.population.slots[8:]:
        assert (slot.step, slot.joined, slot.tier) == (1, 1, "all")
        assert slot.parent in ("0-0", "1-0")
        assert slot.checkpoint == f"{slot.parent}-1"
        assert slot.vector != run.population.slots[0].vector
    assert idle_for_long(run, workers=20).trials == ()


def test_a_short_moment_of_idleness_changes_nothing():
    run = elastic(max_slots=12)
    assert run.tick(run.now_ms + 10, workers=20).trials == ()
    assert run.tick(run.now_ms + 500, workers=20).trials == ()


def test_no_slot_joins_when_there_is_no_step_left():
    run = elastic(max_slots=12, steps=1)
    assert run.population.status == "finished"
    run = elastic(max_slots=12, steps=2)
    for slot in range(7):
        run.tell(run.result(slot, float(slot)))
    assert idle_for_long(run, workers=20).trials == ()


def test_a_grown_population_never_waits_for_what_a_new_slot_has_not_done():
    run = elastic(max_slots=12, steps=4)
    idle_for_long(run, workers=20)
    run.to_the_end(bowl)
    assert run.population.status == "finished"
    assert {slot.step for slot in run.population.slots} == {3}
    assert run.population.counts.created == 8 * 4 + 4 * 3


@pytest.mark.parametrize("optimizer", ["random", "asha"])
def test_an_optimizer_without_peers_lets_a_slot_join_from_scratch(optimizer):
    run = elastic(optimizer, max_slots=9)
    (trial,) = idle_for_long(run, workers=20).trials
    assert (trial.slot, trial.step, trial.parent, trial.start) == (8, 0, None, 0.0)


def test_with_few_workers_the_worst_slots_are_parked_when_their_trials_end():
    run = elastic(per_worker=2.0)
    idle_for_long(run, workers=2)
    parking = [slot.index for slot in run.population.slots if slot.parking]
    assert len(parking) == 4
    for slot in range(8):
        run.tell(run.result(slot, float(slot)))
    parked = [slot.index for slot in run.population.slots if slot.status == "parked"]
    assert parked == parking
    assert len(active(run)) == 4
    # The others go on without them.
    for slot in active(run):
        run.tell(run.result(slot, float(slot)))
    assert {run.population.slots[i].step for i in active(run)} == {3}


def test_parking_never_goes_below_the_minimum():
    run = elastic(per_worker=1.0, min_slots=6)
    idle_for_long(run, workers=1)
    run.to_the_end(bowl)
    assert len(run.of(SlotParked)) == 2
    assert run.population.status == "finished"


def test_parked_slots_come_back_first_and_where_the_others_are():
    run = elastic(per_worker=1.0, max_slots=16, steps=12)
    idle_for_long(run, workers=4)
    for _ in range(4):
        for slot in run.queued():
            run.tell(run.result(slot, float(slot)))
    parked = {slot.index for slot in run.population.slots if slot.status == "parked"}
    assert len(parked) == 4
    decision = run.tick(run.now_ms + 10, workers=8)
    assert {trial.slot for trial in decision.trials} == parked
    front = {run.population.slots[i].step for i in active(run)}
    assert max(front) - min(front) <= 1
    assert len({line.trial for line in run.of(TrialCreated)}) == len(run.of(TrialCreated))


def test_slots_that_are_done_are_no_reason_to_park_others():
    run = elastic(per_worker=1.0, steps=2)
    for slot in range(4):
        run.tell(run.result(slot, float(slot)))
    idle_for_long(run, workers=4)
    assert [slot.status for slot in run.population.slots] == ["done"] * 4 + ["queued"] * 4
    assert run.of(SlotParked) == []


def test_a_pinned_slot_is_not_parked():
    run = elastic(per_worker=2.0)
    run.tell(Control(action="pin", slot=7))
    idle_for_long(run, workers=2)
    assert [slot.index for slot in run.population.slots if slot.parking] == [3, 4, 5, 6]


def test_a_pin_keeps_a_slot_that_was_to_be_parked_and_is_too_late_for_a_parked_one():
    run = elastic(per_worker=2.0)
    idle_for_long(run, workers=2)
    run.tell(Control(action="pin", slot=7))
    assert [slot.index for slot in run.population.slots if slot.parking] == [4, 5, 6]
    for slot in range(8):
        run.tell(run.result(slot, float(slot)))
    assert [run.population.slots[i].status for i in (6, 7)] == ["parked", "queued"]
    run.tell(Control(action="pin", slot=6))
    [line] = run.of(ControlIgnored)
    assert (line.action, run.population.slots[6].pinned) == ("pin", False)


@pytest.mark.parametrize("optimizer", ["asha", "tpe"])
def test_a_slot_that_begins_anew_after_it_was_parked_is_judged_by_its_new_age(optimizer):
    run = elastic(optimizer, per_worker=1.0)
    idle_for_long(run, workers=4)
    for slot in run.queued():
        run.tell(run.result(slot, float(slot)))
    parked = next(slot for slot in run.population.slots if slot.status == "parked")
    run.tick(run.now_ms + 10, workers=8)
    back = run.population.slots[parked.index]
    assert back.parent is None
    assert (back.memory["born"], back.memory["rungs"]) == (back.step, parked.memory["rungs"])


def test_a_late_trial_gets_a_second_copy_and_the_first_result_wins():
    run = elastic()
    for slot in range(1, 8):
        run.tell(run.result(slot, float(slot)))
    first = run.result(0, 0.5)
    run.tick(run.now_ms + 10, workers=20)
    decision = run.tick(run.now_ms + 5_000, workers=20)
    assert (0, 2) in [(trial.slot, trial.attempt) for trial in decision.trials]
    second = run.result(0, 0.4)
    assert (first.attempt, second.attempt) == (1, 2)
    run.tell(first)
    assert run.population.slots[0].step == 2
    assert [type(line) for line in run.tell(second).history] == [ReportStale]


def test_one_copy_that_ends_badly_leaves_the_other_alone():
    run = elastic()
    late = run.token(0)
    run.tick(run.now_ms + 10, workers=20)
    run.tick(run.now_ms + 5_000, workers=20)
    assert run.population.slots[0].live_attempts == (1, 2)
    assert run.tell(Released(**late, reason="preempted")).trials == ()
    assert run.population.slots[0].live_attempts == (2,)
    (again,) = run.tell(run.failed(0)).trials
    assert again.attempt == 3


def test_second_copies_can_be_turned_off():
    run = elastic(second_copy=0.0)
    assert idle_for_long(run, workers=20).trials == ()
    assert run.tick(run.now_ms + 100_000, workers=20).trials == ()


def test_a_trial_cut_short_goes_on_from_its_partial_checkpoint():
    run = elastic()
    run.tell(Released(**run.token(0), reason="preempted", checkpoint="0-1-1-p", at=1.5))
    trial = run.trials[0]
    assert (trial.attempt, trial.parent, trial.start, trial.stop) == (2, "0-1-1-p", 1.5, 2.0)
    assert trial.resumed
    assert "0-1-1-p" in run.population.needed_checkpoints()
    # Released again without a newer one, the trial still continues from there.
    run.tell(run.released(0))
    assert (run.trials[0].attempt, run.trials[0].start) == (3, 1.5)
    # If it cannot be read the trial starts over, and no attempt is counted.
    run.tell(run.failed(0, "lost_parent"))
    trial = run.trials[0]
    assert (trial.start, trial.resumed, run.population.slots[0].failures) == (1.0, False, 0)
    assert "0-1-1-p" not in run.population.needed_checkpoints()


@pytest.mark.parametrize("at", [0.5, 1.0, 2.0, 7.0])
def test_a_partial_checkpoint_outside_the_trial_is_not_used(at):
    run = elastic()
    run.tell(Released(**run.token(0), reason="preempted", checkpoint="0-1-1-p", at=at))
    assert not run.trials[0].resumed


def test_at_the_deadline_the_search_ends_with_what_it_has():
    run = elastic(deadline_ms=100_000)
    run.tell(run.result(3, -1.0))
    run.tick(100_000, workers=8)
    assert (run.population.status, run.population.reason) == ("finished", "at its deadline")
    assert run.population.best.trial == "3-1"
    counts = run.population.counts
    assert counts.created == counts.reported + counts.failed + counts.discarded
    assert [type(x) for x in run.tell(run.result(4, -5.0)).history] == [ReportStale]


def test_no_trial_begins_that_would_end_after_the_deadline():
    run = elastic(deadline_ms=60_000, seconds=30.0)
    for slot in range(8):
        run.tell(run.result(slot, float(slot), seconds=30.0), at_ms=31_000 + slot)
    assert (run.population.status, run.population.reason) == ("finished", "at its deadline")


def test_with_a_deadline_the_horizon_follows_the_workers():
    run = elastic(steps=50, deadline_ms=10_000, seconds=1.0)
    run.tick(run.now_ms + 1, workers=8)
    assert run.population.horizon == 10
    run.tick(run.now_ms + 1, workers=2)
    assert run.population.horizon == 3


def test_causes_are_counted_apart_and_survive_the_store():
    run = elastic()
    run.tell(run.released(0))
    run.tell(run.failed(1, "out_of_memory"))
    run.tell(run.failed(2, "timed_out"))
    run.tell(run.expired(3))
    run.tell(run.failed(4, "not_finite"))
    wanted = {"drained": 1, "out_of_memory": 1, "timed_out": 1, "lost": 1, "not_finite": 1}
    assert run.population.causes == wanted
    kept = run.population
    slots = [write_slot(slot, kept.settings, "loss") for slot in kept.slots]
    assert read(kept.settings, "loss", write_meta(kept, "loss"), slots) == kept


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    per_worker=st.sampled_from([None, 0.5, 1.0, 3.0]),
)
def test_whatever_the_workers_do_the_search_ends_and_its_bounds_hold(seed, optimizer, per_worker):
    shuffler = random.Random(seed)
    policy = Elasticity(min_slots=5, max_slots=12, per_worker=per_worker, second_copy=2.0)
    made = population(optimizer, n_slots=8, steps=6, elasticity=policy, quorum_wait_min_s=5.0)
    run = Run(made).start()
    for _ in range(1_500):
        if run.population.status != "running":
            break
        queued = run.queued()
        what = shuffler.random()
        if what < 0.3 or not queued:
            run.tick(run.now_ms + shuffler.choice([100, 2_000, 20_000]), shuffler.randint(0, 16))
        else:
            slot = shuffler.choice(queued)
            attempt = shuffler.choice(run.population.slots[slot].live_attempts)
            token = {**run.token(slot), "attempt": attempt}
            if what < 0.4:
                run.tell(Released(**token, reason="preempted"))
            elif what < 0.45:
                run.tell(run.failed(slot, shuffler.choice(["not_finite", "exception"])))
            else:
                run.tell(run.result(slot, shuffler.random(), seconds=shuffler.random() + 0.5))
        slots, counts = run.population.slots, run.population.counts
        assert len(slots) <= 12
        assert (
            run.population.status != "running"
            or sum(s.status in ("queued", "waiting", "done") for s in slots) >= 5
        )
        live = sum(slot.status == "queued" for slot in slots)
        assert counts.created == counts.reported + counts.failed + counts.discarded + live
        for slot in slots:
            if slot.status == "queued" and slot.checkpoint is not None:
                assert slot.checkpoint in run.population.needed_checkpoints()
    if run.population.status == "failed":
        run.tell(Control(action="resume"))
    run.to_the_end(lambda _: shuffler.random())
    assert run.population.status == "finished"
    created = [line.trial for line in run.of(TrialCreated)]
    assert len(created) == len(set(created))
