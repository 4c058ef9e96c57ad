"""ROMUL's rules, one by one, and its advantage over peers where it should have one."""

from statistics import median

import numpy as np
import pytest

from romul_actors.core.elasticity import Elasticity
from romul_actors.core.events import Control
from romul_actors.core.history import TrialCreated
from romul_actors.core.optimizers import make
from romul_actors.core.optimizers.base import latin_hypercube
from romul_actors.core.optimizers.truncation import Truncation
from romul_actors.core.space import CategoricalParameter, FloatParameter, Space
from romul_actors.core.transition import Transition
from tests.unit.harness import Run, population


def decided(run, step):
    return {line.slot: line for line in run.of(TrialCreated) if line.step == step}


def one_round(run, losses):
    for slot, loss in enumerate(losses):
        run.tell(run.result(slot, loss))


FULL = {"quorum_share": 1.0}


@pytest.mark.parametrize("seed", range(4))
def test_the_best_quarter_and_the_middle_go_on_with_what_they_tested(seed):
    run = Run(population(seed=seed, options=FULL)).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    # A sixth of the way from a quarter to three quarters, of six steps: 0.33 of eight.
    for slot in range(5):
        assert second[slot].why["rule"] == ("kept" if slot < 2 else "held")
        assert second[slot].vector == first[slot].vector
        assert second[slot].parent == f"{slot}-0"
    assert copied(run, 1) == [5, 6, 7]


def copied(run, step):
    """The slots that began a step with the checkpoint of another slot."""
    return sorted(slot for slot, line in decided(run, step).items() if "copied" in line.why)


def test_as_many_are_replaced_to_the_end_where_their_share_does_not_rise():
    run = Run(population(steps=20, options={**FULL, "rising": False})).start()
    run.to_the_end(lambda trial: float(trial.slot))
    assert [len(copied(run, step)) for step in range(1, 20)] == [2] * 19


@pytest.mark.parametrize("n_slots", [4, 8, 24])
def test_more_are_replaced_the_less_training_is_left(n_slots):
    run = Run(population(n_slots=n_slots, steps=20, options=FULL)).start()
    run.to_the_end(lambda trial: float(trial.slot))
    replaced = [len(copied(run, step)) for step in range(1, 20)]
    assert replaced == sorted(replaced)
    assert replaced[0] == round((0.25 + 0.5 / 20) * n_slots)
    assert replaced[-1] == round((0.25 + 0.5 * 19 / 20) * n_slots)


@pytest.mark.parametrize("steps", [2, 59, 60, 61, 100, 1000])
def test_a_run_has_at_most_sixty_generations_of_nearly_equal_length(steps):
    run = Run(population(steps=steps, options=FULL)).start()
    run.to_the_end(lambda trial: float(trial.slot))
    # A copy begins the step after the one that ended a generation; nothing follows the last.
    ended = [step - 1 for step in range(1, steps) if copied(run, step)] + [steps - 1]
    assert len(ended) == min(60, steps)
    lengths = np.diff([-1, *ended])
    assert max(lengths) - min(lengths) <= 1


def test_within_a_generation_a_slot_goes_on_by_itself():
    run = Run(population(steps=120)).start()
    run.tell(run.result(3, 1.0))
    line = decided(run, 1)[3]
    assert (line.parent, line.why["rule"], line.vector) == (
        "3-0",
        "held",
        decided(run, 0)[3].vector,
    )
    run.tell(run.result(3, 1.0))
    # Step 1 ends a generation: it waits for the others.
    assert 3 not in decided(run, 2)
    for _ in range(2):
        for slot in {*range(8)} - {3}:
            run.tell(run.result(slot, 2.0))
    assert sorted(decided(run, 2)) == list(range(8))
    assert copied(run, 2)


def test_a_failure_within_a_generation_is_mended_at_once():
    run = Run(population(steps=120, options=FULL)).start()
    run.tell(run.result(3, float("nan")))
    for slot in range(3):
        run.tell(run.result(slot, 1.0 + slot))
    # The others have continued; the failed slot waits for a population to copy from.
    assert sorted(decided(run, 1)) == [0, 1, 2]
    for slot in range(4, 8):
        run.tell(run.result(slot, 1.0 + slot))
    assert decided(run, 1)[3].why["copied"] in (0, 1)
    assert copied(run, 1) == [3]


def test_a_parking_slot_completes_the_quorum_of_a_failed_one():
    run = Run(population(steps=120)).start()
    run.tell(run.result(3, float("nan")))
    for slot in (0, 1, 2, 4):
        run.tell(run.result(slot, 1.0 + slot))
    assert 3 not in decided(run, 1)
    transition = Transition(run.population)
    transition.change_slot(transition.slots[7], parking=True)
    run.population = transition.freeze()
    run.tell(run.result(7, 8.0))
    assert decided(run, 1)[3].why["copied"] in (0, 1)


def test_a_thousand_slots_that_waited_go_on_together():
    run = Run(population(n_slots=1000, steps=2000)).start()
    # No slot is more than two steps ahead of the last one.
    for _ in range(3):
        for slot in range(1, 1000):
            run.tell(run.result(slot, float(slot)))
    assert run.queued() == [0]
    run.tell(run.result(0, 0.0))
    assert len(run.queued()) == 1000
    run.tell(Control(action="pause"))
    for slot in range(1000):
        run.tell(run.result(slot, float(slot)))
    assert not run.queued()
    run.tell(Control(action="resume"))
    assert len(run.queued()) > 900


def test_an_extended_run_replaces_fewer_again():
    def first_decision(steps):
        run = Run(population(steps=steps, n_slots=24, options=FULL)).start()
        one_round(run, range(24))
        return len(copied(run, 1))

    assert first_decision(2) > first_decision(20)


UNDRAWN = {"power": 1e9}
"""w^power is zero, except in one of some hundred million draws."""


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_moves_by_current_to_best_1_around_what_it_copied(seed):
    options = {**FULL, **UNDRAWN}
    run = Run(population(seed=seed, options=options)).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    # Differences are those of the vectors tried, also of slots that copy another in this decision.
    tried = [np.array(first[i].vector) for i in range(8)]
    for slot in (5, 6, 7):
        why = second[slot].why
        assert why["copied"] in (0, 1)
        assert second[slot].parent == f"{why['copied']}-0"
        base = tried[why["copied"]]
        assert why["base"] == pytest.approx(base, abs=1e-5)
        assert (why["rule"], why["best"]) == ("mutated", 0)
        assert len({slot, why["a"], why["b"]}) == 3
        moved = (
            base + why["F1"] * (tried[why["a"]] - tried[why["b"]]) + why["F2"] * (tried[0] - base)
        )
        assert why["outside"] == np.flatnonzero((moved < 0.0) | (moved > 1.0)).tolist()
        assert second[slot].vector == pytest.approx(np.clip(moved, 0.0, 1.0), abs=1e-5)


@pytest.mark.parametrize("n_slots", [3, 8])
def test_every_copy_moves_by_current_to_best_1_unless_it_is_turned_off(n_slots):
    def rules(**options):
        run = Run(population(n_slots=n_slots, steps=20, options=options)).start()
        # A failed slot copies, or begins again where there are fewer than four.
        run.to_the_end(lambda trial: float("nan") if trial.slot == 2 else float(trial.slot))
        return {line.why["rule"] for line in run.of(TrialCreated) if "base" in line.why}

    assert rules() == ({"mutated"} if n_slots == 8 else {"redrawn"})
    assert rules(factor=0.0) == {"redrawn"}


def test_each_coordinate_goes_a_part_of_the_way_to_a_place_drawn_anew():
    """Without differences: |u - x| w^4, of which one in six is more than half of the way."""
    options = {**FULL, "factor": 0.0}
    run = Run(population(n_slots=24, steps=100, options=options)).start()
    run.to_the_end(lambda trial: float(trial.slot))
    moves = [line for line in run.of(TrialCreated) if line.why["rule"] == "redrawn"]
    bases = np.array([line.why["base"] for line in moves])
    after = np.array([line.vector for line in moves])
    anew = np.array([line.why["drawn"] for line in moves], bool)
    n, way = anew.size, np.abs(after - bases)
    assert n > 1000
    share = 1.0 - 0.5 ** (1 / 4)
    assert abs(anew.sum() - share * n) < 3.0 * (share * (1.0 - share) * n) ** 0.5
    # No coordinate stays exactly, but half of them nearly do.
    assert way.max() > 0.7
    assert 0.0 < np.median(way) < 1 / 16
    assert after.min() > 0.0
    assert after.max() < 1.0
    assert (after[anew].min(), after[anew].max()) == pytest.approx((0.0, 1.0), abs=0.05)


def test_a_choice_is_drawn_anew_or_kept():
    space = Space([CategoricalParameter("c", tuple("abcdefgh"))])
    run = Run(population(space=space, steps=100, options={**FULL, "factor": 0.0})).start()
    run.to_the_end(lambda trial: float(trial.slot))
    moves = [line for line in run.of(TrialCreated) if line.why["rule"] == "redrawn"]
    for line in moves:
        assert line.why["drawn"][0] or line.vector == pytest.approx(line.why["base"], abs=1e-5)
    assert 0.12 < np.mean([line.why["drawn"][0] for line in moves]) < 0.2


def test_what_goes_with_the_checkpoint_is_not_moved():
    free = FloatParameter("x", 0.0, 1.0)
    fixed = FloatParameter("y", 0.0, 1.0, mutable=False)
    for axes in ([fixed, free], [fixed]):
        run = Run(population(space=Space(axes), options=FULL)).start()
        one_round(run, range(8))
        moves = [line for line in decided(run, 1).values() if "base" in line.why]
        assert len(moves) == 3
        for line in moves:
            kept, *moved = zip(line.vector, line.why["base"], strict=True)
            assert kept[0] == pytest.approx(kept[1], abs=1e-5)
            assert all(after != pytest.approx(base, abs=1e-9) for after, base in moved)


RATES = Space([FloatParameter("rate", 1e-3, 1.0, scale="log"), FloatParameter("x", 0.0, 1.0)])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("steps", "until"), [(20, 14), (30, 21), (40, 21), (180, 63)])
def test_while_the_guard_holds_no_move_lowers_a_learning_rate(steps, until, seed):
    run = Run(population(space=RATES, steps=steps, seed=seed)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["rate"] + trial.hyperparameters["x"])
    lowered = {True: [0, 0], False: [0, 0]}
    turned = 0
    for line in run.of(TrialCreated):
        if "base" in line.why:
            early = line.step < until
            turned += len(line.why.get("guarded", ()))
            assert ("guarded" in line.why) == early
            for c in range(2):
                lowered[early][c] += line.vector[c] < line.why["base"][c] - 1e-5
    assert lowered[True][0] == 0
    assert lowered[True][1] > 0
    assert lowered[False][0] > 0
    assert turned > 0


@pytest.mark.parametrize(("done", "lowers"), [(1, False), (9, True)])
def test_a_slot_that_joins_moves_as_a_copy_does(done, lowers):
    space = Space([FloatParameter("rate", 1e-4, 1.0, "log"), FloatParameter("x", 0.0, 1.0)])
    moves = []
    for seed in range(40):
        elasticity = Elasticity(max_slots=9)
        run = Run(population(space=space, steps=12, seed=seed, elasticity=elasticity)).start()
        for _ in range(done):
            one_round(run, range(8))
        run.tick(run.now_ms + 10, 20)
        [trial] = run.tick(run.now_ms + 1_500, 20).trials
        line = run.of(TrialCreated)[-1]
        assert (line.why["rule"], trial.slot) == ("joined", 8)
        assert line.parent == f"{line.why['copied']}-{done - 1}"
        assert line.why["copied"] in (0, 1)
        assert line.why["copied"] not in (line.why["a"], line.why["b"])
        moves.append(np.array(line.vector) - line.why["base"])
    rates, others = np.array(moves).T
    assert (rates.min() < 0.0) == lowers
    assert others.min() < 0.0 < others.max()


def test_differences_alone_raise_a_guarded_coordinate_in_about_half_of_the_moves():
    options = {"guarded": 1.0, "guarded_generations": 100, **UNDRAWN}
    run = Run(population(n_slots=24, space=RATES, steps=100, options=options)).start()
    run.to_the_end(lambda trial: float(trial.seed % 997))
    n = n_kept = 0
    for line in run.of(TrialCreated):
        # In the end all have risen to the end of the range.
        if "base" in line.why and line.why["base"][0] < 0.999:
            base, after, kept = line.why["base"][0], line.vector[0], 0 in line.why["guarded"]
            assert after > base - 1e-5
            assert not kept or after == pytest.approx(base, abs=1e-5)
            n, n_kept = n + 1, n_kept + kept
    assert n > 100
    assert 0.3 * n < n_kept < 0.7 * n


def test_a_low_guarded_coordinate_rises_more_often_than_a_high_one():
    options = {"guarded": 1.0, "guarded_generations": 100, "factor": 0.0}
    run = Run(population(n_slots=24, space=RATES, steps=100, options=options)).start()
    run.to_the_end(lambda trial: float(trial.slot))
    rose: dict[bool, list[bool]] = {True: [], False: []}
    for line in run.of(TrialCreated):
        if "base" in line.why:
            base = line.why["base"][0]
            assert line.vector[0] >= base - 1e-5
            rose[base < 0.5].append(0 not in line.why["guarded"])
    low, high = (np.mean(rose[each]) for each in (True, False))
    assert low > high + 0.2


@pytest.mark.parametrize(("steps", "again"), [(12, 10), (40, 21)])
def test_the_guard_of_an_extended_run_is_that_of_its_new_number_of_steps(steps, again):
    # 0.7 of 12 is reached before step 10, so the guard is off there.
    run = Run(population(space=RATES, steps=10)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["x"])
    run.tell(Control(action="extend", by="me", steps=steps))
    run.to_the_end(lambda trial: trial.hyperparameters["x"])
    moves = [line for line in run.of(TrialCreated) if line.step >= 10 and "base" in line.why]
    assert {line.step for line in moves if "guarded" in line.why} == set(range(10, again))
    assert {line.step for line in moves} == set(range(10, steps))


def test_selection_may_lower_what_moves_do_not():
    run = Run(population(space=RATES, steps=40)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["rate"])
    first = [line.vector[0] for line in decided(run, 0).values()]
    middle = [line.vector[0] for line in decided(run, 20).values()]
    assert median(middle) < median(first)


def test_a_slot_that_fails_copies_the_best():
    run = Run(population(steps=40)).start()
    for slot in range(7):
        run.tell(run.result(slot, float(slot)))
    run.tell(run.failed(7, "not_finite"))
    assert decided(run, 1)[7].why["copied"] in (0, 1)


def test_slots_remember_nothing():
    run = Run(population(steps=10)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["x"])
    assert {(slot.tier, len(slot.memory)) for slot in run.population.slots} == {("all", 0)}


def test_no_choice_dies_out_and_none_is_invented():
    choices = CategoricalParameter("c", ("a", "b", "c"))
    space = Space([FloatParameter("x", 0.0, 1.0), choices])
    run = Run(population(space=space, steps=200, options=FULL)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["x"] + (trial.hyperparameters["c"] != "a"))
    late = [line.hyperparameters["c"] for line in run.of(TrialCreated) if line.step > 150]
    assert late.count("a") > 0.8 * len(late)
    assert {"b", "c"} <= set(late)


def test_the_first_vectors_fill_every_axis_evenly():
    points = latin_hypercube(8, 3, np.random.default_rng(0))
    assert points.shape == (8, 3)
    for axis in points.T:
        assert sorted((axis * 8).astype(int)) == list(range(8))
        assert np.diff(np.sort(axis)) == pytest.approx(1 / 8)
    # No two axes alike, in order or in place.
    assert len({tuple(np.argsort(axis)) for axis in points.T}) == 3
    assert len(set((points[0] * 8 % 1).tolist())) == 3


def test_a_best_that_lies_at_a_bound_is_reached():
    run = Run(population(steps=40)).start()
    run.to_the_end(lambda trial: 2.0 - sum(trial.hyperparameters.values()))
    assert run.population.best.loss == 0.0


BOX = Space([FloatParameter(name, 0.0, 1.0) for name in "abc"])


def misspecified(trial):
    """A bowl whose three axes differ by 1, 10 and 100 in scale."""
    centre, width = np.array([0.3, 0.7, 0.55]), np.array([1.0, 0.1, 0.01])
    return float((((np.array(list(trial.hyperparameters.values())) - centre) / width) ** 2).sum())


@pytest.mark.parametrize("n_slots", [8, 24])
def test_steps_adapt_to_scales_that_are_not_declared(n_slots):
    """Anisotropy (the paper, section 2.1): peers with fixed steps stay far behind."""

    def final(optimizer):
        runs = (
            Run(population(optimizer, space=BOX, n_slots=n_slots, steps=60, seed=seed)).start()
            for seed in range(7)
        )
        return median(run.to_the_end(misspecified).population.best.loss for run in runs)

    ours = final("romul")
    assert ours < 0.2 * final("truncation")
    assert ours < 0.1 * final("random")


def test_optimizers_are_made_by_name_and_keep_their_constants():
    assert make("truncation", {"up": 1.5}) == Truncation(up=1.5)
