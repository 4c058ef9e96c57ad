"""Compares ROMUL's rivals with independent implementations (docs/rivals.md)."""

import warnings
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from romul_actors.core.history import TrialCreated
from romul_actors.core.optimizers import make
from romul_actors.core.optimizers.base import View, reflect
from romul_actors.core.optimizers.tpe import Tpe
from romul_actors.core.optimizers.truncation import perturb
from romul_actors.core.slot import Outcome, Slot
from romul_actors.core.space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Space,
)
from romul_actors.errors import OptimizerError
from romul_sim.play import optimizer_spec
from tests.unit.harness import Run, population

LINE = Space([FloatParameter("x", 0.0, 1.0)])
PLANE = Space([FloatParameter("x", 0.0, 1.0), FloatParameter("y", 0.0, 1.0)])


def test_a_trial_of_differential_evolution_outside_the_cube_is_reflected():
    assert reflect(np.array([-0.2, 1.3, 2.5, -1.1, 0.4])) == pytest.approx(
        [0.2, 0.7, 0.5, 0.9, 0.4]
    )


def view_of(space, vectors, losses, *, memories=None, step=4, steps=20, tiers=None, seed=0):
    """A population whose slots have all ended one step."""
    memories = memories or [{} for _ in vectors]
    tiers = tiers or ["all"] * len(vectors)
    slots = [
        Slot(index=i, vector=vector, memory=memory, step=step, tier=tier)
        for i, (vector, memory, tier) in enumerate(zip(vectors, memories, tiers, strict=True))
    ]
    known = {
        i: Outcome(loss, vector, f"{i}")
        for i, (vector, loss) in enumerate(zip(vectors, losses, strict=True))
    }
    return View(
        space=space,
        slots=slots,
        pool=range(len(slots)),
        step=step,
        steps=steps,
        known=known,
        rng=lambda i: np.random.default_rng([seed, i]),
    )


def test_steps_beyond_those_expected_are_as_many_to_romul():
    vectors = [(0.1 * i, 0.5) for i in range(8)]
    view = view_of(PLANE, vectors, range(8), step=7, steps=2)
    moves = make("romul", {}).decide(view, range(8))
    assert [move.slot for move in moves if "copied" in move.why] == [2, 3, 4, 5, 6, 7]


# -- initiator PBT --------------------------------------------------------------------------------


def test_slots_that_end_together_all_meet_each_other():
    run = Run(population("initiator", n_slots=8, steps=3)).start()
    for slot in range(8):
        run.tell(run.result(slot, float(slot)), at_ms=1000)
    run.tick(2000)
    lines = [line for line in run.of(TrialCreated) if line.step == 1]
    assert [line.why["known"] for line in lines] == [8] * 8


# -- truncation PBT -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 26))
def test_truncation_selects_those_that_ray_selects(n):
    pbt = pytest.importorskip("ray.tune.schedulers.pbt")
    theirs = pbt.PopulationBasedTraining(
        metric="loss", mode="min", hyperparam_mutations={"x": [0, 1]}, quantile_fraction=0.2
    )
    losses = np.random.default_rng(n).permutation(n).astype(float).tolist()
    for i, loss in enumerate(losses):
        fields = {"index": i, "experiment_tag": "", "is_finished": lambda _: False}
        trial = type("Trial", (), fields)()
        theirs._trial_state[trial] = pbt._PBTTrialState(trial)
        theirs._trial_state[trial].last_score = -loss
    lower, upper = theirs._quantiles()
    moves = [
        move
        for seed in range(20)
        for move in make("truncation", {}).decide(
            view_of(LINE, [(0.5,)] * n, losses, seed=seed), range(n)
        )
    ]
    copies = [move for move in moves if move.source != move.slot]
    assert {move.slot for move in copies} == {trial.index for trial in lower}
    assert {move.source for move in copies} == {trial.index for trial in upper}


def test_a_number_is_perturbed_as_ray_perturbs_it():
    pbt = pytest.importorskip("ray.tune.schedulers.pbt")
    tune = pytest.importorskip("ray.tune")
    rate, size = FloatParameter("rate", 1e-4, 1.0, "log"), IntParameter("size", 2, 200, "log")
    values = {"rate": 0.01, "size": 50}
    np.random.seed(0)  # noqa: NPY002  (Ray draws from the global generators)
    pbt.random.seed(0)
    domains = {"rate": tune.loguniform(1e-4, 1.0), "size": tune.lograndint(2, 201)}
    theirs = [pbt._explore(values, domains, 0.25, (1.2, 0.8), None)[0] for _ in range(4000)]
    rng = np.random.default_rng(0)
    for parameter in (rate, size):
        place = parameter.encode(values[parameter.name])
        ours = [
            parameter.decode(perturb(parameter, place, rng, 0.25, (0.8, 1.2))) for _ in range(4000)
        ]
        both = [[values[parameter.name] for values in theirs], ours]
        for factor in (0.8, 1.2):
            moved = factor * values[parameter.name]
            shares = [np.mean(np.isclose(found, moved)) for found in both]
            assert shares[0] == pytest.approx(shares[1], abs=0.03)
            assert shares[1] == pytest.approx(0.375, abs=0.03)
        # Drawn anew, uniformly on the declared scale.
        quartiles = [np.quantile(np.log(found), [0.1, 0.9]) for found in both]
        assert quartiles[0] == pytest.approx(quartiles[1], abs=0.3)


def test_a_small_number_and_a_choice_can_move_where_rays_may_stay():
    pbt = pytest.importorskip("ray.tune.schedulers.pbt")
    tune = pytest.importorskip("ray.tune")
    theirs = [
        pbt._explore({"n": 2}, {"n": tune.randint(1, 9)}, 0.0, (1.2, 0.8), None)[0]["n"]
        for _ in range(50)
    ]
    rng, few = np.random.default_rng(0), IntParameter("n", 1, 8)
    ours = [few.decode(perturb(few, few.encode(2), rng, 0.0, (0.8, 1.2))) for _ in range(50)]
    assert set(theirs) == {2}
    assert set(ours) == {1, 3}
    kind = CategoricalParameter("kind", ("a", "b", "c"))
    found = Counter(
        kind.decode(perturb(kind, kind.encode("b"), rng, 0.25, (0.8, 1.2))) for _ in range(4000)
    )
    # Drawn anew, or one of the others, each time with the probability of drawing anew.
    changed = 0.25 * 2 / 3 + 0.75 * 0.25
    assert (found["a"] + found["c"]) / 4000 == pytest.approx(changed, abs=0.03)
    assert found["a"] == pytest.approx(found["c"], rel=0.2)


@pytest.mark.parametrize("optimizer", ["truncation", "pb2"])
def test_truncation_may_start_from_romuls_latin_hypercube(optimizer):
    if optimizer == "pb2":
        pytest.importorskip("sklearn")
    starts = {
        even: make(optimizer, {"latin_hypercube": even}).start(PLANE, 8, np.random.default_rng(3))
        for even in (False, True)
    }
    assert make(optimizer, {}).start(PLANE, 8, np.random.default_rng(3)) == starts[False]
    assert make("romul", {}).start(PLANE, 8, np.random.default_rng(3)) == starts[True]
    for axis in range(2):
        cells = sorted(int(8 * start.vector[axis]) for start in starts[True])
        assert cells == [*range(8)]
    options = optimizer_spec(f"{optimizer}:latin_hypercube=true:down=0.5:up=2.0")
    del options["name"]
    assert make(optimizer, options) == make(
        optimizer, {"down": 0.5, "up": 2.0, "latin_hypercube": True}
    )


# -- MF-PBT ---------------------------------------------------------------------------------------


def evolved(losses, periods, step):
    """By slot, whose weights and whose hyperparameters it takes, and whether it explores.

    Written from the authors' description alone.
    """
    best_first = np.argsort(losses, kind="stable").tolist()
    found = {i: (i, i, False) for i in range(len(losses))}
    for period in set(periods):
        if (step + 1) % period:
            continue
        own = [i for i in best_first if periods[i] == period]
        migrants = [i for i in best_first if periods[i] != period]
        quarter = max(1, len(own) // 4)
        for rank in range(quarter):
            found[own[len(own) - quarter + rank]] = (own[rank], own[rank], True)
        for i in own[2 * quarter : 3 * quarter]:
            if migrants and losses[migrants[0]] < losses[i]:
                migrant = migrants.pop(0)
                found[i] = (migrant, migrant if periods[migrant] > period else own[0], False)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_mf_pbt_evolves_as_its_authors_describe(seed):
    rng = np.random.default_rng(seed)
    periods = np.repeat([1, 4, 8, 16], rng.integers(4, 13)).tolist()
    losses = (rng.permutation(len(periods)) + rng.choice([0, 20]) * np.log(periods)).tolist()
    step = int(rng.choice([0, 3, 7, 15]))
    vectors = [tuple(row) for row in rng.random((len(periods), 2)).tolist()]
    view = view_of(PLANE, vectors, losses, step=step, tiers=[str(p) for p in periods])
    expected = evolved(losses, periods, step)
    moves = make("mf_pbt", {}).decide(view, view.pool)
    assert [move.slot for move in moves] == list(view.pool)
    for move in moves:
        weights, hyperparameters, explores = expected[move.slot]
        assert move.source == weights
        assert (move.why["rule"] == "perturbed") is explores
        if not explores:
            assert move.vector == vectors[hyperparameters]


def test_mf_pbts_third_quarter_takes_migrants_though_its_first_takes_none():
    # The third quarter of the greedy ones: slots 4 and 5. The best of the others ranks between.
    losses = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 5.0, *range(10, 17)]
    vectors = [(i / 16, 0.5) for i in range(16)]
    view = view_of(PLANE, vectors, losses, step=0, tiers=["1"] * 8 + ["4"] * 8)
    moves = make("mf_pbt", {}).decide(view, view.pool)
    assert [move.source for move in moves[:6]] == [0, 1, 2, 3, 4, 8]
    # Hyperparameters from a slower sub-population are copied as they are.
    assert moves[5].vector == vectors[8]
    assert moves[5].why["hyperparameters_of"] == 8
    assert [move.why["rule"] for move in moves[6:8]] == ["perturbed"] * 2


# -- ASHA -----------------------------------------------------------------------------------------


def arrivals(losses, eta):
    """For each arrival at the first rung: whether ours stops it, and how many were better."""
    asha = make("asha", {"eta": eta})
    vectors = [(0.5,)] * len(losses)
    memories: list[dict[str, Any]] = [{} for _ in losses]
    for i, loss in enumerate(losses):
        view = view_of(LINE, vectors, losses, memories=memories, step=0)
        [move] = asha.decide(view, [i])
        memories[i] = dict(move.memory)
        yield i, bool(move.fresh), sum(other < loss for other in losses[:i])


@pytest.mark.parametrize("seed", range(5))
def test_asha_stops_those_that_ray_and_syne_tune_stop_but_for_one_rank(seed):
    theirs = pytest.importorskip("ray.tune.schedulers.async_hyperband")
    rays = theirs._Bracket(1, 16, 4, 0)
    syne = pytest.importorskip("syne_tune.optimizer.schedulers.asha").Bracket(1, 16, 4, 0)
    losses = np.random.default_rng(seed).permutation(40).astype(float).tolist()
    same: Counter[str] = Counter()
    for i, ours, better in arrivals(losses, 4):
        ray_stops = rays.on_result(SimpleNamespace(trial_id=f"{i}"), 1, -losses[i]) == "STOP"
        syne_stops = syne.on_result(i, 1, {"loss": losses[i]}) == "STOP"
        # In our version the first three continue.
        if i < 3:
            assert not ours
            continue
        # In ours the best quarter of the arrivals continues, rounded down, as in the paper.
        assert ours == (better >= (i + 1) // 4)
        for name, stops in (("ray", ray_stops), ("syne", syne_stops)):
            same[name] += ours == stops
            assert ours == stops or abs(better - (i + 1) / 4) <= 1
    assert min(same["ray"], same["syne"]) >= 32


@pytest.mark.parametrize("optimizer", ["asha", "tpe"])
def test_rungs_need_a_factor_of_two_or_more(optimizer):
    if optimizer == "tpe":
        pytest.importorskip("optuna")
    with pytest.raises(OptimizerError, match=f"optimizer '{optimizer}': eta = 1 is below 2"):
        make(optimizer, {"eta": 1})
    assert vars(make(optimizer, {}))["eta"] == {"asha": 4, "tpe": 3}[optimizer]


# -- TPE ------------------------------------------------------------------------------------------


def test_tpe_draws_away_from_what_peers_train_with():
    pytest.importorskip("optuna")
    # Two places are equally good.
    places = np.linspace(0.0, 1.0, 20)
    rows = [[min(abs(x - 0.2), abs(x - 0.8)), x] for x in places.tolist()]

    def near_the_upper(peers):
        memories = [{"tried": {"1": rows}}, *({} for _ in peers)]
        drawn: list[float] = []
        for seed in range(25):
            view = view_of(
                LINE, [(0.0,), *peers], [1.0] * (1 + len(peers)), memories=memories, seed=seed
            )
            drawn += Tpe().draw(view, 0, memories[0])
        return np.mean(np.array(drawn) > 0.5)

    spread = [0.01 * n for n in range(-3, 4)]
    assert near_the_upper([(0.2 + x + 0.001,) for x in spread]) > 0.75
    assert near_the_upper([(0.8 + x + 0.001,) for x in spread]) < 0.25


# -- PB2 ------------------------------------------------------------------------------------------


def some_training(seed, n_slots=8, steps=7):
    """Vectors, losses and rows (step, loss before, fall, vector) of lines; where falls are best."""
    rng = np.random.default_rng(seed)
    best = rng.uniform(0.2, 0.8, 2)
    losses, vectors = 4.0 * rng.uniform(0.8, 1.2, n_slots), rng.random((n_slots, 2))
    rows: list[list[list[float]]] = [[] for _ in range(n_slots)]
    for step in range(1, steps + 1):
        for i in range(n_slots):
            if rng.random() < 0.3:
                vectors[i] = rng.random(2)
            noise = 0.01 * losses[i] * rng.standard_normal()
            fall = 0.15 * losses[i] * goodness(vectors[i], best) + noise
            rows[i].append([float(step), losses[i], fall, *vectors[i].tolist()])
            losses[i] -= fall
    return [tuple(v) for v in vectors.tolist()], losses.tolist(), rows, best


def goodness(vector, best):
    return float(np.exp(-np.sum((np.array(vector) - best) ** 2) / 0.25))


def explored(view):
    return [move for move in make("pb2", {}).decide(view, view.pool) if move.source != move.slot]


def test_pb2_goes_where_rays_process_would_or_to_better_places():
    pytest.importorskip("sklearn")
    theirs = pytest.importorskip("ray.tune.schedulers.pb2")
    ours, rays = [], []
    for seed in range(8):
        vectors, losses, rows, best = some_training(seed)
        memories = [{"falls": falls} for falls in rows]
        moves = explored(view_of(PLANE, vectors, losses, memories=memories, step=7))
        assert [move.why["rule"] for move in moves] == ["bandit"] * 2
        ours += [goodness(move.vector, best) for move in moves]
        table = np.array([row for falls in rows for row in falls])
        table = table[np.argsort(table[:, 0], kind="stable")]
        donor = rows[moves[0].source][-1]
        np.random.seed(seed)  # noqa: NPY002  (Ray draws from the global generator)
        bounds = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its process comes to its bounds
            place = theirs._select_config(
                table[:, [0, 1, 3, 4]], table[:, 2], None, np.array(donor[:2]), bounds, 2
            )
        rays.append(goodness(place, best))
    assert np.mean(ours) > np.mean(rays)
    assert np.median(ours) > 0.7


@pytest.mark.parametrize("seed", range(1, 4))
def test_pb2_knows_that_a_high_loss_falls_far(seed):
    """A loss falls by 0.4 of itself plus 0.6 x; lines with a high loss have a low x by chance."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(64):
        high = rng.random() < 0.5
        before = rng.uniform(3.0, 4.0) if high else rng.uniform(1.0, 2.0)
        x = float(np.clip((0.3 if high else 0.7) + 0.2 * rng.standard_normal(), 0.0, 1.0))
        fall = 0.4 * before + 0.6 * x + 0.05 * rng.standard_normal()
        rows.append([float(number % 8), before, fall, x])
    table = np.array(rows)
    right = table[:, 3] > 0.5
    assert table[~right, 2].mean() > table[right, 2].mean() + 0.2
    memories = [{"falls": rows[i : i + 8]} for i in range(0, 64, 8)]
    losses = [1.0 + 0.1 * i for i in range(8)]
    moves = explored(view_of(LINE, [(0.5,)] * 8, losses, memories=memories, step=7))
    assert len(moves) == 2
    assert all(move.vector[0] > 0.8 for move in moves)


def test_pb2_remembers_the_loss_that_a_step_began_with():
    pytest.importorskip("sklearn")
    vectors = [(0.1 * i,) for i in range(8)]
    memories = [{"before": 2.0, "falls": [[3.0, 3.0, 1.0, 0.5]]} for _ in vectors]
    view = view_of(LINE, vectors, [1.0 + i for i in range(8)], memories=memories)
    moves = make("pb2", {}).decide(view, view.pool)
    for move in moves:
        row = [4.0, 2.0, 2.0 - view.known[move.slot].loss, *vectors[move.slot]]
        assert move.memory["falls"] == [[3.0, 3.0, 1.0, 0.5], row]
        assert move.memory["before"] == view.known[move.source].loss
    # A quarter of them copies, as in the authors' code.
    assert sum(move.source != move.slot for move in moves) == 2
