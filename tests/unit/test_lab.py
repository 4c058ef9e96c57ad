"""The toy problems, and the laboratory that compares optimizers on them."""

import json
import math

import numpy as np
import pytest
from numpy.random import default_rng

from romul_actors.core.history import TrialCreated
from romul_actors.core.optimizers import OPTIMIZERS, make
from romul_actors.errors import ExperimentError, OptimizerError
from romul_sim.baselines import PEERS, check_peer
from romul_sim.lab import LabJob, compare, confidence, jobs, play
from romul_sim.play import ASYNCHRONOUS, SYNCHRONOUS, optimizer_spec
from romul_workers.tasks.toy_models import best_dropout, best_noisy_quadratic
from romul_workers.tasks.toys import TOYS, train
from romul_workers.trial import Context, Trial
from tests.conftest import romul
from tests.trials import declare
from tests.unit.harness import Run, bowl, population


def drawn(toy, rng):
    space = declare(space=toy.space).search_space()
    return space.decode(rng.random(len(space)))


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_a_toy_steps_the_same_from_the_same_and_never_beats_its_best(toy):
    rng = default_rng(0)
    for _ in range(20):
        values, state = drawn(toy, rng), None
        for number in range(toy.steps):
            first = toy.step(state, values, number, default_rng(number))
            assert first == toy.step(state, values, number, default_rng(number))
            state = first.state
            assert json.loads(json.dumps(state)) == list(state)
            assert math.isfinite(first.observed)
        if toy.best is not None:
            assert first.true >= toy.best() - 1e-12


def test_the_known_bests_are_those_of_their_problems():
    # A constant rate is one possible schedule, and far from the best.
    step = TOYS["noisy-quadratic"].step

    def constant(rate):
        state = None
        for number in range(40):
            stepped = step(state, {"rate": rate}, number, default_rng(0))
            state = stepped.state
        return stepped.true

    constants = min(constant(rate) for rate in np.logspace(-3, 0, 30))
    assert constants == pytest.approx(0.227, abs=0.005)
    assert best_noisy_quadratic() == pytest.approx(0.0136, abs=0.0005)
    assert best_dropout() == pytest.approx(0.0703, abs=0.0005)


def test_a_toy_is_a_task_too(tmp_path):
    parent, found = None, []
    for step in range(3):
        folder = tmp_path / str(step)
        folder.mkdir()
        trial = Trial(
            id=f"0-{step}",
            hyperparameters={"x0": 0.5},
            parent=parent,
            checkpoint=folder,
            start=float(step),
            stop=step + 1.0,
            seed=1,
            step=step,
            context=Context("e", "cpu", {"problem": "dropout"}),
        )
        found.append(train(trial)["true_loss"])
        parent = folder
    assert found == pytest.approx([math.exp(-0.105 * n) + 0.005 * n for n in (1, 2, 3)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("conditions", [SYNCHRONOUS, ASYNCHRONOUS], ids=["sync", "async"])
def test_every_optimizer_plays_and_a_job_comes_out_the_same(optimizer, conditions):
    job = LabJob("mixed", optimizer, 8, 5, conditions, steps=10)
    first = play(job)
    assert play(job) == first
    assert len(first.curve) == 10
    assert set(first.schedule) == set(TOYS["mixed"].space)
    # Slow workers and lost trials cost time.
    assert (first.makespan > 1.2 * 10) == (conditions is ASYNCHRONOUS)


def test_rows_are_ranked_and_say_how_sure_they_are():
    todo = jobs(["misspecified"], ["romul", "random"], [8], 5, SYNCHRONOUS)
    first, second = compare({job: play(job) for job in todo})
    assert (first.optimizer, first.rank, second.optimizer, second.rank) == ("romul", 1, "random", 2)
    assert first.beats["random"] == 1.0
    found = first.as_json()
    assert (found["problem"], found["population"], found["seeds"]) == ("misspecified", 8, 5)
    assert found["ratio_to_best"] is None
    assert found["quartiles"][0] <= found["median"] <= found["quartiles"][1]


def test_runs_that_differ_in_more_than_seeds_are_no_row():
    ran = play(LabJob("misspecified", "random", 8, 0, SYNCHRONOUS, 4))
    [row] = compare({LabJob("misspecified", "random", 8, s, SYNCHRONOUS, 4): ran for s in (0, 1)})
    assert len(row.finals) == 2
    for other in (
        LabJob("misspecified", "random", 8, 1),
        LabJob("misspecified", "random", 8, 1, ASYNCHRONOUS, 4),
    ):
        with pytest.raises(ValueError, match="do not belong into one row"):
            compare({LabJob("misspecified", "random", 8, 0, SYNCHRONOUS, 4): ran, other: ran})


def test_a_confidence_is_a_half_where_there_is_no_difference():
    assert confidence([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(0.5, abs=0.05)
    assert confidence([1.0, 1.1], [2.0, 2.1]) == 1.0
    assert confidence([2.0, 2.1], [1.0, 1.1]) == 0.0


def test_mf_pbt_takes_only_weights_of_a_greedier_one():
    run = Run(population("mf_pbt", n_slots=16, steps=5, options={"quorum_share": 1.0})).start()
    assert [s.tier for s in run.population.slots] == ["1"] * 4 + ["4"] * 4 + ["8"] * 4 + ["16"] * 4
    # The greedy ones are the best all the time, the second tier the next.
    run.to_the_end(lambda trial: float(trial.slot))
    fourth = [line for line in run.of(TrialCreated) if line.step == 4 and 4 <= line.slot < 8]
    migrated = [line for line in fourth if line.why["rule"] == "migrated"]
    assert [line.slot for line in migrated] == [6]
    [line] = migrated
    assert line.parent == "0-3"
    assert line.why["hyperparameters_of"] == 4
    kept = {line.trial: line.vector for line in run.of(TrialCreated)}
    assert line.vector == kept["4-3"]


def test_an_optimizers_constants_may_stand_behind_its_name():
    assert optimizer_spec("romul:factor=0.25:power=4.0") == {
        "name": "romul",
        "factor": 0.25,
        "power": 4.0,
    }
    with pytest.raises(ExperimentError, match="'factor' is not option=value"):
        optimizer_spec("romul:factor")
    base = play(LabJob("misspecified", "romul", 8, 0))
    assert play(LabJob("misspecified", "romul:factor=0.1", 8, 0)) != base
    assert play(LabJob("misspecified", "romul:factor=1.0", 8, 0)) == base


def test_a_barrier_on_unequal_workers_is_as_good_as_equal_ones_and_slower():
    barrier = "romul:quorum_share=1.0"
    equal = play(LabJob("misspecified", barrier, 8, 0))
    unequal = play(LabJob("misspecified", barrier, 8, 0, ASYNCHRONOUS))
    assert (unequal.final, unequal.curve) == (equal.final, equal.curve)
    assert unequal.makespan > 2 * equal.makespan


def test_a_job_may_have_other_steps_than_its_problem_is_meant_for():
    few = play(LabJob("misspecified", "romul", 8, 0, steps=12))
    assert (len(few.curve), len(few.schedule["x0"]), few.makespan) == (12, 12, 12.0)
    assert play(LabJob("misspecified", "romul", 8, 0, steps=60)) == play(
        LabJob("misspecified", "romul", 8, 0)
    )


def test_the_command_prints_one_line(tmp_path):
    arguments = ["lab", "--problems", "dropout,mixed", "--optimizers", "romul,random"]
    arguments += ["--population", "4", "--seeds", "2", "--out", str(tmp_path), "--json"]
    called = romul(*arguments)
    assert called.returncode == 0, called.stderr
    [line] = called.stdout.splitlines()
    assert [row["rank"] for row in json.loads(line)["rows"]] == [1, 2, 1, 2]
    assert json.loads((tmp_path / "lab.json").read_text()) == json.loads(line)
    assert (tmp_path / "lab-4.png").stat().st_size > 10_000


@pytest.mark.parametrize("toy", [t for t in TOYS.values() if t.best_schedule], ids=lambda t: t.name)
def test_the_best_schedule_leads_to_the_best_loss(toy):
    schedule, state = toy.best_schedule(), None
    assert set(schedule) == set(toy.space)
    for number in range(toy.steps):
        values = {name: steps[number] for name, steps in schedule.items()}
        stepped = toy.step(state, values, number, default_rng(0))
        state = stepped.state
    assert stepped.true == pytest.approx(toy.best(), abs=1e-3)


@pytest.mark.parametrize("peer", ["nevergrad-de", "optuna-tpe", "syne-tune-pbt"])
def test_a_peer_gets_the_same_budget_and_plays_the_same_again(peer):
    pytest.importorskip(PEERS[peer].module)
    job = LabJob("mixed", peer, 8, 3)
    played = play(job)
    assert played == play(job)
    assert played != play(LabJob("mixed", peer, 8, 4))
    assert len(played.curve) == TOYS["mixed"].steps
    assert {len(values) for values in played.schedule.values()} == {TOYS["mixed"].steps}
    space = declare(space=TOYS["mixed"].space).search_space()
    for number in range(TOYS["mixed"].steps):
        space.encode({name: steps[number] for name, steps in played.schedule.items()})
    if peer != "syne-tune-pbt":
        assert all(len(set(values)) == 1 for values in played.schedule.values())


def test_peers_and_ours_stand_in_one_table():
    todo = jobs(["dropout"], ["romul", "optuna-tpe"], [8], 3, SYNCHRONOUS)
    rows = compare({job: play(job) for job in todo})
    assert {row.optimizer for row in rows} == {"romul", "optuna-tpe"}
    assert all(row.as_json()["ratio_to_best"] >= 1.0 for row in rows)


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OptimizerError, match=r"pip install 'romul\[peers\]'"):
        check_peer("ray-pbt")
    with pytest.raises(OptimizerError, match=r"pip install 'romul\[tpe\]'"):
        make("tpe", {})
    with pytest.raises(OptimizerError, match=r"pip install 'romul\[pb2\]'"):
        make("pb2", {})


def test_pb2_copies_go_where_losses_fell_most():
    """The loss falls in a step by an amount that depends on x, most at 0.8."""

    def fall(trial):
        return 1.0 - (trial.hyperparameters["x"] - 0.8) ** 2

    lines: dict[str, float] = {}

    def loss(trial):
        lines[trial.id] = lines.get((trial.parent or "").rpartition("-")[0], 100.0) - fall(trial)
        return lines[trial.id]

    run = Run(population("pb2", n_slots=8, steps=25)).start().to_the_end(loss)
    tried = [line for line in run.of(TrialCreated) if line.why["rule"] == "bandit"]
    assert len(tried) > 30
    late = [line.hyperparameters["x"] for line in tried[10:]]
    assert abs(np.median(late) - 0.8) < 0.1
    # The bound lies above the best fall there is, and not far.
    assert np.median([line.why["hopes_for"] for line in tried[10:]]) == pytest.approx(1, abs=0.2)
    # Peers differ: two copies of one step do not try the same.
    assert len({tuple(line.vector) for line in tried}) == len(tried)


def test_tpe_draws_where_good_ones_were_found():
    run = Run(population("tpe", n_slots=8, steps=30)).start()

    def loss(trial):
        return bowl(trial) + 0.001 * trial.step

    run.to_the_end(loss)
    drawn = [line for line in run.of(TrialCreated) if line.why["rule"] == "drawn anew"]
    assert len(drawn) > 12
    later = [abs(line.hyperparameters["y"] - 0.7) for line in drawn[6:]]
    # Uniform draws would be 0.29 away on average.
    assert sum(later) / len(later) < 0.2
    again = Run(population("tpe", n_slots=8, steps=30)).start().to_the_end(loss)
    assert again.history == run.history
