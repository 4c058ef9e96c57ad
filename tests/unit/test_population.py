import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from romul_actors.core.decide import decide
from romul_actors.core.elasticity import Elasticity
from romul_actors.core.events import Control, Result, Stamped, Submitted
from romul_actors.core.history import (
    ReportStale,
    SearchFailed,
    SearchPaused,
    TrialCreated,
    TrialFailed,
    TrialReported,
)
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.core.space import CategoricalParameter, FloatParameter, Space
from tests.unit.harness import Run, bowl, population, reread
from tests.unit.strategies import spaces


def assert_counts_add_up(state):
    counts = state.counts
    live = sum(slot.status == "queued" for slot in state.slots)
    assert counts.created == counts.reported + counts.failed + counts.discarded + live


@st.composite
def endings(draw):
    """How a trial ends: a metric, a failure of some kind, or a lost worker."""
    return draw(
        st.one_of(
            st.floats(-1e3, 1e3),
            st.sampled_from([math.nan, math.inf, "exception", "not_finite", "expired", "released"]),
        )
    )


@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_proposals_stay_in_the_space_and_trials_add_up(data):
    """Invariants of the core with random spaces, optimizers, endings and orders of arrival."""
    space = data.draw(spaces())
    optimizer = data.draw(st.sampled_from(sorted(OPTIMIZERS)))
    run = Run(
        population(
            optimizer,
            options={"generations": data.draw(st.integers(1, 5))} if optimizer == "romul" else {},
            space=space,
            n_slots=data.draw(st.integers(4, 18)),
            steps=data.draw(st.integers(1, 5)),
            maximize=data.draw(st.booleans()),
        )
    ).start()
    best = None
    for _ in range(60):
        queued = run.queued()
        if not queued or run.population.status != "running":
            break
        slot = data.draw(st.sampled_from(queued))
        ending = data.draw(endings())
        match ending:
            case "expired":
                event = run.expired(slot)
            case "released":
                event = run.released(slot)
            case str():
                event = run.failed(slot, ending)
            case _:
                event = run.result(slot, ending)
        before = run.population
        decision = run.tell(event)
        # Decided from what the store gives back, it is the same.
        again = decide(reread(before), Stamped(event, run.now_ms))
        assert again.trials == decision.trials
        assert again.history == decision.history
        assert_counts_add_up(run.population)
        for trial in decision.trials:
            assert all(0.0 <= p <= 1.0 for p in run.population.slots[trial.slot].vector)
            space.encode(trial.hyperparameters)
        known = {e.checkpoint for e in run.of(TrialReported)}
        assert {t.parent for t in decision.trials} <= known | {None}
        if isinstance(ending, float) and math.isfinite(ending):
            loss = -ending if run.population.settings.maximize else ending
            best = loss if best is None else min(best, loss)
        assert (run.population.best.loss if run.population.best else None) == best


def test_a_decision_depends_on_nothing_but_its_arguments():
    run = Run(population()).start()
    for slot in range(7):
        run.tell(run.result(slot, float(slot)))
    event = Stamped(run.result(7, 7.0), 99)
    first = decide(run.population, event)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    Run(population("random")).start()
    assert decide(run.population, event) == first


def test_the_same_seed_is_the_same_run_and_another_seed_another():
    def history(seed):
        return Run(population(seed=seed)).start().to_the_end(bowl).history

    assert history(3) == history(3)
    assert history(3) != history(4)


@pytest.mark.parametrize("n_slots", [6, 8, 16, 24])
@pytest.mark.parametrize("seed", range(3))
def test_with_a_full_quorum_the_order_of_arrival_changes_nothing(n_slots, seed):
    """Nor does it matter which slot is ahead."""
    asked = population(n_slots=n_slots, steps=30, seed=seed, options={"quorum_share": 1.0})

    def decided(order):
        run = Run(asked).start().to_the_end(bowl, order)
        return sorted((line.trial, line.vector, line.parent) for line in run.of(TrialCreated))

    shuffler = random.Random(5)
    assert decided(lambda q: q) == decided(lambda q: [shuffler.choice(q)])


def quorum_of_six(**options):
    run = Run(population(options=options)).start()
    run.tick(1_000)
    for slot in (6, 1, 3, 2, 5, 0):
        run.tell(run.result(slot, 1.0, seconds=4.0))
    return run


def test_idle_workers_wait_a_twentieth_of_a_trial_for_the_rest_of_a_pool():
    run = quorum_of_six()
    assert run.tick(1_006 + 199).trials == ()
    # All waiting slots are decided together.
    assert [t.slot for t in run.tick(1_006 + 200).trials] == [0, 1, 2, 3, 5, 6]
    # A late slot finds the step decided.
    assert [t.slot for t in run.tell(run.result(4, 1.0)).trials] == [4]


def test_while_no_worker_is_idle_waiting_costs_nothing():
    run = quorum_of_six()
    assert run.tick(60_000, workers=2).trials == ()
    assert len(run.tick(61_000, workers=3).trials) == 6


def test_a_whole_pool_is_decided_at_once():
    run = quorum_of_six()
    assert run.tell(run.result(4, 1.0)).trials == ()
    assert [t.slot for t in run.tell(run.result(7, 1.0)).trials] == [*range(8)]


def test_without_grace_the_quorum_is_enough():
    run = quorum_of_six(grace=0.0)
    assert run.queued() == [*range(8)]
    assert [slot.step for slot in run.population.slots] == [1, 1, 1, 1, 0, 1, 1, 0]


def test_no_slot_waits_for_a_quorum_longer_than_the_limit():
    run = Run(population(quorum_wait_min_s=60.0)).start()
    for slot in range(3):
        run.tell(run.result(slot, 1.0, seconds=20.0))
    assert run.tick(90_000).trials == ()
    # 5 times what the population needs for a step: a median of 20 s, 8 slots on 8 workers.
    assert [t.slot for t in run.tick(100_004).trials] == [0, 1, 2]
    # With fewer than 4 known there is no selection.
    assert {line.why["rule"] for line in run.of(TrialCreated)[8:]} == {"held"}


def test_few_workers_for_many_slots_are_no_reason_to_stop_waiting():
    run = Run(population(quorum_wait_min_s=1.0)).start()
    for slot in range(3):
        run.tell(run.result(slot, 1.0, seconds=20.0))
    assert run.tick(100_004, workers=1).trials == ()
    assert run.tick(300_000, workers=0).trials == ()
    assert len(run.tick(800_004, workers=1).trials) == 3


@pytest.mark.parametrize("change", [{"attempt": 2}, {"trial": "0-1"}, {"slot": 99}, {"slot": -1}])
def test_a_report_of_another_attempt_changes_nothing(change):
    run = Run(population()).start()
    before = run.population
    fields = {**run.token(0), "value": 1.0, "checkpoint": "0-0-1", "seconds": 1.0, **change}
    decision = run.tell(Result(**fields))
    assert decision.population == replace(before, causes={"stale": 1})
    assert [type(line) for line in decision.history] == [ReportStale]


def test_a_result_sent_twice_counts_once():
    run = Run(population()).start()
    event = run.result(0, 1.0)
    run.tell(event)
    before = run.population
    assert run.tell(event).population == replace(before, causes={"stale": 1})


def test_a_second_submission_changes_nothing():
    run = Run(population()).start()
    assert run.tell(Submitted()).population == run.population
    assert len(run.of(TrialCreated)) == 8


def test_a_failed_trial_is_tried_again_with_the_same_everything():
    run = Run(population()).start()
    first = run.trials[2]
    again = run.tell(run.failed(2)).trials[0]
    assert (again.id, again.attempt) == (first.id, 2)
    assert (again.hyperparameters, again.parent, again.seed) == (
        first.hyperparameters,
        first.parent,
        first.seed,
    )


def test_a_worker_that_gives_back_costs_the_trial_no_life():
    run = Run(population(max_attempts=2)).start()
    for _ in range(5):
        run.tell(run.released(0))
    assert (run.population.slots[0].attempt, run.population.slots[0].failures) == (6, 0)


def test_after_max_attempts_the_slot_goes_on_from_a_good_peer():
    run = Run(population(options={"grace": 0.0}, max_attempts=2)).start()
    run.tell(run.failed(0))
    run.tell(run.failed(0))
    assert run.population.slots[0].status == "waiting"
    for slot in range(1, 6):
        run.tell(run.result(slot, float(slot)))
    slot = run.population.slots[0]
    assert (slot.status, slot.step, slot.attempt, slot.failures) == ("queued", 1, 1, 0)
    assert slot.parent in ("1-0", "2-0")
    assert_counts_add_up(run.population)


def test_a_loss_that_is_not_finite_ranks_last_and_is_not_tried_again():
    run = Run(population()).start()
    run.tell(run.result(0, math.nan))
    run.tell(run.failed(1, "not_finite"))
    for slot in range(2, 8):
        run.tell(run.result(slot, float(slot)))
    for slot in (0, 1):
        assert run.population.slots[slot].parent in ("2-0", "3-0")
    assert run.population.best.loss == 2.0
    assert run.population.counts.failed == 2


def test_when_every_slot_fails_the_experiment_says_so_and_can_be_resumed():
    run = Run(population(max_attempts=1)).start()
    for slot in range(8):
        run.tell(run.failed(slot))
    assert run.population.status == "failed"
    assert [type(line) for line in run.history[-2:]] == [TrialFailed, SearchFailed]
    assert_counts_add_up(run.population)
    decision = run.tell(Control(action="resume"))
    assert [(t.id, t.attempt) for t in decision.trials] == [(f"{i}-0", 2) for i in range(8)]
    run.to_the_end(bowl)
    assert run.population.status == "finished"
    assert_counts_add_up(run.population)


@pytest.mark.parametrize("optimizer", ["random", "asha", "truncation"])
def test_a_slot_that_joins_late_and_fails_does_not_end_the_search_of_the_others(optimizer):
    run = Run(population(optimizer, steps=12)).start()
    for _ in range(6):
        for slot in run.queued():
            run.tell(run.result(slot, bowl(run.trials[slot])))
    run.tell(Control(action="change", population=9))
    run.tell(run.failed(8, "not_finite"))
    assert run.population.status == "running"
    run.to_the_end(bowl)
    assert run.population.status == "finished"
    assert_counts_add_up(run.population)


def test_a_slot_that_others_have_passed_does_not_end_their_search():
    run = Run(population(steps=200, options={"generations": 20})).start()
    for lagging in ((), (0,)):
        for _ in range(12 if not lagging else 2):
            for slot in run.queued():
                if slot not in lagging:
                    run.tell(run.result(slot, bowl(run.trials[slot])))
    # What ends a search drops the outcomes of all steps but each slot's last.
    run.tell(Control(action="stop"))
    run.tell(Control(action="extend", steps=400))
    assert [run.population.slots[i].step for i in (0, 1)] == [12, 14]
    run.tell(run.failed(0, "not_finite"))
    assert run.population.status == "running"


def test_to_resume_a_failed_search_leaves_parked_slots_parked():
    elasticity = Elasticity(min_slots=4, max_slots=8, per_worker=1.0)
    run = Run(population(steps=40, max_attempts=1, elasticity=elasticity)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot])), run.now_ms + 100)
    run.tell(run.failed(7, "not_finite"), run.now_ms + 100)
    for _ in range(6):
        run.tick(run.now_ms + 2000, workers=5)
    for _ in range(3):
        for slot in run.queued():
            run.tell(run.result(slot, bowl(run.trials[slot])), run.now_ms + 100)
    parked = [slot.index for slot in run.population.slots if slot.status == "parked"]
    assert 7 in parked
    while run.population.status == "running":
        for slot in run.queued():
            run.tell(run.failed(slot), run.now_ms + 10)
    assert run.population.status == "failed"
    decision = run.tell(Control(action="resume"))
    assert {trial.slot for trial in decision.trials} == set(range(8)) - set(parked)


def test_paused_means_nothing_new_and_nothing_lost():
    run = Run(population()).start()
    run.tell(Control(action="pause", by="me"))
    assert run.population.status == "paused"
    assert run.of(SearchPaused) == [SearchPaused(at_ms=2, by="me")]
    for slot in range(8):
        assert run.tell(run.result(slot, float(slot))).trials == ()
    assert len(run.tell(Control(action="resume")).trials) == 8


def test_stopped_is_for_good_and_what_was_queued_is_discarded():
    run = Run(population()).start()
    run.tell(run.result(0, 1.0))
    run.tell(Control(action="stop"))
    assert run.population.counts.discarded == 7
    assert_counts_add_up(run.population)
    before = run.population
    run.tell(run.result(1, 0.5))
    run.tell(Control(action="resume"))
    assert run.population == replace(before, causes={"stale": 1})


def test_a_metric_to_maximise_is_negated_once():
    run = Run(population(maximize=True, options={"quorum_share": 1.0})).start()
    for slot in range(8):
        run.tell(run.result(slot, float(slot)))
    assert run.population.best.trial == "7-0"
    assert {run.population.slots[i].parent for i in (0, 1)} <= {"6-0", "7-0"}
    assert run.of(TrialReported)[7].value == 7.0


def test_an_immutable_hyperparameter_travels_with_the_checkpoint():
    kinds = CategoricalParameter("optimizer", ("sgd", "adam", "lion", "muon"), mutable=False)
    width = FloatParameter("width", 0.0, 1.0, mutable=False)
    space = Space([FloatParameter("x", 0.0, 1.0), kinds, width])
    run = Run(population(space=space, n_slots=12, steps=12)).start()
    shuffler = random.Random(0)
    run.to_the_end(lambda _: shuffler.random())
    drawn = {line.trial: line for line in run.of(TrialCreated)}
    copied = 0
    for line in drawn.values():
        if line.parent is not None:
            parent = drawn[line.parent]
            copied += parent.slot != line.slot
            for name in ("optimizer", "width"):
                assert line.hyperparameters[name] == parent.hyperparameters[name]
    assert copied > 10


def test_initial_values_take_the_place_of_drawn_ones():
    run = Run(population(initial=((0.25, 0.75),))).start()
    assert run.trials[0].hyperparameters == {"x": 0.25, "y": 0.75}


def test_time_is_counted_from_the_very_beginning():
    run = Run(population(steps=3)).start().to_the_end(bowl)
    last = run.trials[0]
    assert (last.step, last.start, last.stop) == (2, 2.0, 3.0)
    assert run.population.status == "finished"


def test_outcomes_are_kept_until_the_last_peer_has_passed_the_step():
    run = Run(population(steps=9, options={"grace": 0.0})).start()
    for _ in range(2):
        for slot in range(6):
            run.tell(run.result(slot, float(slot)))
    assert min(run.population.slots[0].outcomes) == 0
    for _ in range(2):
        for slot in (6, 7):
            run.tell(run.result(slot, 0.0))
    for slot in range(6):
        run.tell(run.result(slot, float(slot)))
    assert min(run.population.slots[0].outcomes) == 2


def test_vanished_workers_are_counted_apart_from_failures():
    run = Run(population(max_attempts=2, max_lost_attempts=3)).start()
    for _ in range(2):
        run.tell(run.expired(0))
    run.tell(run.failed(0))
    slot = run.population.slots[0]
    assert (slot.status, slot.lost_attempts, slot.failures, slot.attempt) == ("queued", 2, 1, 4)
    run.tell(run.expired(0))
    assert run.population.slots[0].status == "waiting"
    assert run.population.counts.failed == 1
