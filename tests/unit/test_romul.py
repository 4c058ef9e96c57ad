"""What ROMUL does, rule by rule, and that it beats its peers where it should."""

from statistics import median

import numpy as np
import pytest

from romul_actors.optimizers import make
from romul_actors.optimizers.base import latin_hypercube, reflect
from romul_actors.space import CategoricalParameter, FloatParameter, Space
from tests.unit.harness import Run, population


def decided(run, step):
    return {line["slot"]: line for line in run.of("trial") if line["step"] == step}


def one_round(run, losses):
    for slot, loss in enumerate(losses):
        run.tell(run.result(slot, loss))


# A quarter of eight are two: more to look at than the one of the default. Nobody waits or probes.
FULL = {"quorum_share": 1.0, "truncation": 0.25, "patient_share": 0.0, "probe": 0.0}


def test_the_best_quarter_goes_on_with_what_it_tested():
    run = Run(population(options=FULL)).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    for slot in (0, 1):
        assert second[slot]["why"]["rule"] == "kept"
        assert second[slot]["vector"] == first[slot]["vector"]
        assert second[slot]["parent"] == f"{slot}-0"


def test_the_worst_quarter_copies_and_explores_around_what_it_copied():
    run = Run(population(options=FULL)).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    for slot in (6, 7):
        why = second[slot]["why"]
        assert why["rule"] == "explored"
        assert why["copied"] in (0, 1)
        assert second[slot]["parent"] == f"{why['copied']}-0"
        step = np.subtract(second[slot]["vector"], first[why["copied"]]["vector"])
        assert 0 < np.abs(step).max() < 0.3
        kept = np.array(why["crossover"]) == 0
        assert not step[kept].any()


def test_who_is_behind_goes_on_from_the_best_and_all_but_the_worst_keep_their_base():
    run = Run(population(options={**FULL, "copying": 0.5})).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    for slot in range(4):
        assert second[slot]["parent"] == f"{slot}-0"
    for slot in range(4, 8):
        why = second[slot]["why"]
        assert why["copied"] in (0, 1)
        assert second[slot]["parent"] == f"{why['copied']}-0"
        assert why.get("hyperparameters_of") == (slot if slot < 6 else None)
        base = first[slot if slot < 6 else why["copied"]]["vector"]
        assert why["base"] == pytest.approx(base, abs=1e-5)


def test_with_copying_0_nobody_but_the_worst_is_replaced():
    run = Run(population(options={**FULL, "copying": 0.0})).start()
    one_round(run, range(8))
    assert copied(run, 1) == [6, 7]


@pytest.mark.parametrize("seed", range(8))
def test_the_rest_moves_by_current_to_best_1(seed):
    run = Run(population(seed=seed, options=FULL)).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    # The worst two took over the bases of those that they copied before anybody mutated.
    bases = {i: np.array(first[i]["vector"]) for i in range(8)}
    for slot in (6, 7):
        bases[slot] = bases[second[slot]["why"]["copied"]]
    for slot in range(2, 6):
        why = second[slot]["why"]
        assert (why["rule"], why["best"]) == ("mutated", 0)
        assert len({slot, why["a"], why["b"]}) == 3
        donor = (
            bases[slot]
            + why["F1"] * (bases[why["a"]] - bases[why["b"]])
            + why["F2"] * (bases[0] - bases[slot])
        )
        crossed = np.where(why["crossover"], donor, bases[slot])
        assert why["outside"] == np.flatnonzero((crossed < 0.0) | (crossed > 1.0)).tolist()
        for c, (coordinate, x) in enumerate(zip(crossed, second[slot]["vector"], strict=True)):
            if c not in why["outside"]:
                assert x == pytest.approx(coordinate, abs=1e-5)
                continue
            # Folded back, but never farther from the bound than the best is: there it stops.
            bound, folded = float(coordinate > 1.0), reflect(coordinate)
            farther = abs(folded - bound) > abs(bases[0][c] - bound)
            assert x == pytest.approx(bound if farther else folded, abs=1e-5)


def test_a_probe_draws_one_hyperparameter_anew_and_leaves_the_others():
    run = Run(population(options={**FULL, "probe": 4.0, "copying": 0.0})).start()
    one_round(run, range(8))
    first, second = decided(run, 0), decided(run, 1)
    for slot in (0, 1, 6, 7):
        assert second[slot]["why"]["rule"] == ("kept" if slot < 2 else "explored")
    for slot in range(2, 6):
        why = second[slot]["why"]
        assert (why["rule"], second[slot]["parent"]) == ("probed", f"{slot}-0")
        assert sum(why["crossover"]) == 1
        for c, anew in enumerate(why["crossover"]):
            assert (second[slot]["vector"][c] != first[slot]["vector"][c]) == bool(anew)
        # It is a trial: the base stays what it was until the probe has shown what it is worth.
        assert why["base"] == list(first[slot]["vector"])
        assert run.population.slots[slot].memory["base"] == why["base"]
    # From all of the range, not from around the base.
    moved = [
        np.abs(np.subtract(second[i]["vector"], first[i]["vector"])).max() for i in range(2, 6)
    ]
    assert max(moved) > 0.3


def test_what_goes_with_the_checkpoint_is_not_probed():
    free = FloatParameter("x", 0.0, 1.0)
    fixed = FloatParameter("y", 0.0, 1.0, mutable=False)
    for space, n_probes in (([free, fixed], 4), ([fixed], 0)):
        run = Run(population(space=Space(space), options={**FULL, "probe": 8.0})).start()
        one_round(run, range(8))
        probed = [line["why"] for line in decided(run, 1).values()]
        probed = [why for why in probed if why["rule"] == "probed"]
        assert [why["crossover"][0] for why in probed] == [1] * n_probes


@pytest.mark.parametrize(("n_slots", "dims"), [(8, 8), (8, 2), (32, 2)])
def test_each_hyperparameter_is_probed_as_often_whatever_the_number_of_slots(n_slots, dims):
    space = Space([FloatParameter(f"x{c}", 0.0, 1.0) for c in range(dims)])
    options = {"patient_share": 0.0}
    run = Run(population(space=space, n_slots=n_slots, steps=400, options=options)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["x0"])
    rules = [line["why"]["rule"] for line in run.of("trial") if line["step"]]
    searching = rules.count("probed") + rules.count("mutated")
    # Of each slot's moves, 0.24 with as many hyperparameters as slots; within three deviations.
    share = 0.24 * dims / n_slots
    allowed = 3.0 * (share * (1.0 - share) * searching) ** 0.5
    assert abs(rules.count("probed") - share * searching) < allowed


def test_a_base_is_held_until_a_better_rank_or_age_takes_it():
    run = Run(population(options=FULL)).start()
    one_round(run, [0, 1, 2, 3, 4, 5, 6, 7])
    held = run.population.slots[3].memory
    assert (held["rho"], held["base"]) == (3 / 8, list(decided(run, 0)[3]["vector"]))
    one_round(run, [0, 1, 2, 5.5, 4, 5, 6, 7])
    aged = run.population.slots[3].memory
    assert aged["base"] == held["base"]
    assert aged["rho"] == 3 / 8 + 2 / 8
    one_round(run, [0, 1, 2, 4.5, 4, 5, 6, 7])
    assert run.population.slots[3].memory["base"] == list(decided(run, 2)[3]["vector"])


@pytest.mark.parametrize(
    ("n_slots", "n_patient"), [(4, 0), (5, 1), (6, 2), (7, 3), (8, 4), (9, 5), (24, 12)]
)
def test_half_the_slots_are_patient_but_four_always_search(n_slots, n_patient):
    run = Run(population(n_slots=n_slots)).start()
    tiers = [slot.tier for slot in run.population.slots]
    assert tiers == ["greedy"] * (n_slots - n_patient) + ["patient"] * n_patient


def held(run, slot):
    """The steps that a slot began with what it had held before."""
    lines = [line for line in run.of("trial") if line["slot"] == slot and line["step"]]
    return [line["step"] for line in lines if line["why"]["rule"] == "held"]


def copied(run, step):
    """The slots that began a step with the checkpoint of another one."""
    return sorted(slot for slot, line in decided(run, step).items() if "copied" in line["why"])


def slow_but_steady(trial):
    """Patient slots of eight come down from 1 to 0 evenly; all others stop at 0.5 early."""
    if trial.slot > 3:
        return 1.0 - trial.step / 39 + 0.001 * trial.slot
    return max(0.5, 1.0 - 0.3 * trial.step) + 0.001 * trial.slot


def test_who_learns_slowly_for_a_better_end_holds_until_it_is_compared():
    run = Run(population(steps=40)).start()
    run.to_the_end(slow_but_steady)
    first = decided(run, 0)
    for slot in range(4, 8):
        # 0.6 of the steps, though all others are ahead of it for the first half of the run.
        assert held(run, slot)[:24] == list(range(1, 25))
        assert decided(run, 24)[slot]["vector"] == first[slot]["vector"]
        assert decided(run, 24)[slot]["parent"] == f"{slot}-23"
    # Then the patient decide among themselves, and late in the run all are one pool.
    searching = {
        step: [slot for slot in range(8) if step not in held(run, slot)] for step in (25, 34, 35)
    }
    assert searching[25] == [0, 1, 2, 3, 6, 7]
    pools = {
        step: {decided(run, step)[slot]["why"]["pool"] for slot in searching[step]}
        for step in searching
    }
    assert pools == {25: {4}, 34: {4}, 35: {8}}
    assert run.population.best.trial.split("-")[0] in "4567"


def at_once_or_partly(trial):
    """All start at 1. Then patient slots of eight stop at 0.6, the others at about 0."""
    if trial.step == 0:
        return 1.0
    return 0.6 if trial.slot > 3 else 0.01 * trial.slot


def test_who_falls_behind_gives_up_its_weights_and_keeps_its_place_in_the_search():
    run = Run(population(steps=40)).start()
    run.to_the_end(at_once_or_partly)
    first = decided(run, 0)
    for slot in range(4, 8):
        # They made 0.4 of the leader's progress: enough until 0.4 of the 40 steps have passed.
        assert held(run, slot) == list(range(1, 17))
        began = decided(run, 17)[slot]
        assert began["parent"] == "0-16"
    [last] = [line for line in run.of("trial") if line["trial"] == "7-16"]
    assert last["why"]["leader"] == 0
    assert last["why"]["bar"] == pytest.approx(0.6)
    # The very worst is selected against as anybody is; all others search from where they were.
    bases = {slot: decided(run, 17)[slot]["why"]["base"] for slot in range(4, 8)}
    assert bases[7] == pytest.approx(decided(run, 16)[0]["vector"], abs=1e-5)
    for slot in (4, 5, 6):
        assert bases[slot] == pytest.approx(first[slot]["vector"], abs=1e-5)
    assert {slot.tier for slot in run.population.slots} == {"greedy"}


def test_patience_asks_neither_for_the_scale_nor_for_the_origin_of_the_losses():
    def tried(transformed):
        run = Run(population(steps=40)).start()
        run.to_the_end(lambda trial: transformed(at_once_or_partly(trial)))
        return [(line["trial"], line["vector"], line["parent"]) for line in run.of("trial")]

    assert tried(lambda loss: loss) == tried(lambda loss: 1024.0 * loss - 4096.0)


def sixteen(searching, scale, origin):
    """A run whose patient slots come down by 0.02 a step, while the others stop at 0.6 early.

    The gain of who has moved from what it drew is `searching` times as much.
    """
    drawn, losses = {}, {}

    def loss(trial):
        place = dict(trial.hyperparameters)
        before = losses.get((trial.parent or "").rpartition("-")[0], 1.0 + 0.0001 * trial.slot)
        gain = 0.02 * (1 if drawn.setdefault(trial.slot, place) == place else searching)
        if trial.slot < 8:
            gain = 0.05 if trial.step < 8 else 0.0
        losses[trial.id] = before - gain
        return origin + scale * losses[trial.id]

    return Run(population(n_slots=16, steps=40)).start().to_the_end(loss)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("origin", [0.0, -1.0])
def test_some_hold_to_the_end_where_searching_gains_no_more(scale, origin):
    run = sixteen(1.0, scale, origin)
    # The better half goes on; four are left to search.
    assert [slot for slot in range(16) if 39 in held(run, slot)] == [8, 9, 10, 11]
    assert all(held(run, slot) == list(range(1, 40)) for slot in range(8, 12))
    assert all(decided(run, 39)[slot]["parent"] == f"{slot}-38" for slot in range(8, 12))
    assert all(held(run, slot) == list(range(1, 25)) for slot in range(12, 16))
    assert {line["why"]["rule"] for line in decided(run, 25).values()} >= {"held", "mutated"}
    # The worst quarter of those that always searched took weights; of the patient only the worst.
    assert copied(run, 1) == [6, 7]
    assert [slot for slot in copied(run, 25) if slot > 7] == [15]


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("origin", [0.0, -1.0])
def test_nobody_holds_to_the_end_where_searching_gains_much_more(scale, origin):
    run = sixteen(4.0, scale, origin)
    # The others have searched for one step when they see it, and keep their weights.
    assert all(held(run, slot) == list(range(1, 26)) for slot in range(8, 12))
    gave_up = [decided(run, 26)[slot] for slot in range(8, 12)]
    assert {line["parent"] for line in gave_up} >= {"9-25", "10-25"}
    assert {line["why"]["pool"] for line in gave_up} == {8}


@pytest.mark.parametrize(
    ("n_slots", "gave_up", "n_held"),
    [
        *[(8, 0, 2), (8, 1, 1), (8, 2, 0), (9, 0, 3), (9, 1, 2), (9, 3, 0)],
        *[(16, 0, 4), (16, 1, 3), (16, 2, 2), (16, 4, 0), (24, 0, 6), (24, 2, 5), (24, 8, 0)],
    ],
)
def test_half_hold_on_but_fewer_where_many_have_given_up(n_slots, gave_up, n_held):
    n_patient = min(n_slots // 2 + n_slots % 2, n_slots - 4)
    run = Run(population(n_slots=n_slots, steps=40)).start()
    searching = range(n_slots - n_patient)
    lost = range(n_slots - gave_up, n_slots)

    def loss(trial):
        if trial.slot in lost:
            return 2.0
        if trial.slot in searching:
            return max(0.5, 1.0 - 0.3 * trial.step) + 0.001 * trial.slot
        return 1.0 - trial.step / 39 + 0.001 * trial.slot

    run.to_the_end(loss)
    holding = [slot for slot in range(n_slots) if 25 in held(run, slot)]
    assert holding == list(range(len(searching), len(searching) + n_held))


def test_few_patient_slots_decide_among_themselves_and_move_towards_the_others():
    def loss(trial):
        return 0.6 if trial.slot in (4, 5) and trial.step else slow_but_steady(trial)

    # Half as good as the leader would be enough to hold; a line that stops at the start is not.
    run = Run(population(steps=40)).start()
    run.to_the_end(lambda trial: 2.0 if trial.slot in (4, 5) else loss(trial))
    assert [slot.tier for slot in run.population.slots] == ["greedy"] * 6 + ["patient"] * 2
    moved = decided(run, 25)
    assert {moved[slot]["why"]["pool"] for slot in (6, 7)} == {2}
    assert moved[6]["why"]["rule"] == "kept"
    assert (moved[7]["why"]["rule"], moved[7]["why"]["copied"]) == ("mutated", 6)
    assert moved[7]["why"]["best"] < 6


def test_who_fails_holds_no_longer():
    run = Run(population(steps=40)).start()
    for slot in range(7):
        run.tell(run.result(slot, float(slot)))
    run.tell(run.failed(7, "not_finite"))
    moved = decided(run, 1)[7]["why"]
    assert (moved["rule"], moved["copied"]) == ("explored", 0)
    assert decided(run, 1)[6]["why"]["rule"] == "held"
    assert [slot.tier for slot in run.population.slots][6:] == ["patient", "greedy"]


def test_who_holds_can_be_copied_where_nobody_searches_with_success():
    run = Run(population(steps=40)).start()
    for slot in range(4):
        run.tell(run.failed(slot, "not_finite"))
    for slot in range(4, 8):
        run.tell(run.result(slot, float(slot)))
    assert all(decided(run, 1)[slot]["why"]["copied"] == 4 for slot in range(4))
    assert all(decided(run, 1)[slot]["why"]["rule"] == "held" for slot in range(4, 8))


def test_the_only_one_that_learns_is_copied_though_it_holds_and_the_dead_hold_no_longer():
    def loss(trial):
        # Whatever continues slot 4 learns on; nothing else ever does.
        born[trial.id] = trial.slot == 4 or born.get((trial.parent or "").rpartition("-")[0], False)
        return (1.0 - trial.step / 80 if born[trial.id] else 1.0) + 0.0001 * abs(trial.slot - 4)

    born = {}
    run = Run(population(steps=40)).start()
    run.to_the_end(loss)
    assert held(run, 4) == list(range(1, 25))
    assert [held(run, slot) for slot in (5, 6, 7)] == [[1, 2]] * 3
    # The very worst from the beginning, then those who give up.
    assert decided(run, 1)[0]["why"]["copied"] == 4
    assert [decided(run, 3)[slot]["why"]["copied"] for slot in (5, 6, 7)] == [4, 4, 4]
    assert all(born[f"{slot}-39"] for slot in range(8))


def test_who_holds_is_never_replaced_and_with_it_there_are_enough_to_select():
    run = Run(population(steps=40)).start()
    # Six of eight are the quorum, and only two of them search: the worse of these copies.
    for slot in (0, 1, 4, 5, 6, 7):
        run.tell(run.result(slot, float(slot)))
    run.tick(run.now_ms + 1_000)
    rules = {slot: line["why"]["rule"] for slot, line in decided(run, 1).items()}
    assert rules == {0: "kept", 1: "explored", 4: "held", 5: "held", 6: "held", 7: "held"}
    assert decided(run, 1)[1]["why"]["copied"] == 0


def test_no_choice_dies_out_and_none_is_invented():
    choices = CategoricalParameter("c", ("a", "b", "c"))
    space = Space([FloatParameter("x", 0.0, 1.0), choices])
    run = Run(population(space=space, steps=200, options=FULL)).start()
    run.to_the_end(lambda trial: trial.hyperparameters["x"] + (trial.hyperparameters["c"] != "a"))
    late = [line["hyperparameters"]["c"] for line in run.of("trial") if line["step"] > 150]
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
    # The best of both is a corner: folding alone would keep it at a distance.
    run = Run(population(steps=40)).start()
    run.to_the_end(lambda trial: 2.0 - sum(trial.hyperparameters.values()))
    assert run.population.best.loss == 0.0


def test_outside_the_cube_is_reflected():
    assert reflect(np.array([-0.2, 1.3, 2.5, -1.1, 0.4])) == pytest.approx(
        [0.2, 0.7, 0.5, 0.9, 0.4]
    )


BOX = Space([FloatParameter(name, 0.0, 1.0) for name in "abc"])


def misspecified(trial):
    """A bowl whose three axes differ by 1, 10 and 100 in scale."""
    centre, width = np.array([0.3, 0.7, 0.55]), np.array([1.0, 0.1, 0.01])
    return float((((np.array(list(trial.hyperparameters.values())) - centre) / width) ** 2).sum())


@pytest.mark.parametrize("n_slots", [8, 24])
def test_steps_adapt_to_scales_that_nobody_told(n_slots):
    """Anisotropy (the paper, section 2.1): peers with fixed steps stay far behind."""

    def final(optimizer):
        runs = (
            Run(population(optimizer, space=BOX, n_slots=n_slots, steps=60, seed=seed)).start()
            for seed in range(7)
        )
        return median(run.to_the_end(misspecified).population.best.loss for run in runs)

    ours = final("romul")
    assert ours < 1e-2 * final("truncation")
    assert ours < 1e-2 * final("random")


def test_optimizers_are_made_by_name_and_keep_their_constants():
    assert make("truncation", {"up": 1.5}).up == 1.5
