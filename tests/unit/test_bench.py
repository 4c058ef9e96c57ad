"""The bench: how runs are judged and stored, and how it continues after an interruption."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from romul_actors.core.decide import decide
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import ExperimentError, OptimizerError
from romul_sim.baselines import PEERS
from romul_sim.bench import runs as bench
from romul_sim.bench.fingerprint import covered, fingerprint
from romul_sim.bench.results import Results
from romul_sim.bench.runs import BenchJob, canonical, jobs, key, play, play_all, shard
from romul_sim.bench.standings import curve, standings
from romul_sim.play import ASYNCHRONOUS, SYNCHRONOUS, Run, Training, Winners
from tests.conftest import romul, wait_for
from tests.unit import bench_problems

SUITE = "tests.unit.bench_problems"
BOWL = BenchJob("bowl", "romul", 8, 6, 0, suite=SUITE)


def command(*arguments):
    return [sys.executable, "-m", "romul_actors.cli", "bench", "--suite", SUITE, *arguments]


def called(*arguments, code=0):
    done = romul("bench", "--suite", SUITE, "--processes", "1", *arguments)
    assert done.returncode == code, done.stderr
    return done


# -- one run --------------------------------------------------------------------------------------


def test_a_job_comes_out_the_same_and_its_seed_matters():
    first = play(BOWL, "k")
    assert play(BOWL, "k") == first
    assert play(replace(BOWL, seed=1), "k")["test"] != first["test"]
    assert (first["key"], first["problem"], first["optimizer"]) == ("k", "bowl", "romul")
    assert (first["steps"], first["makespan"], len(first["curve"])) == (6, 6.0, 6)


def test_what_is_judged_is_the_lowest_validation_loss_ever():
    line = play(BenchJob("rising", "random", 8, 4, 0, suite=SUITE), "k")
    # Each step is worse by 1 than the one before; the judge counts from 10.
    assert line["loss"] == pytest.approx(line["test"] - 10.0)
    assert line["test"] < 11.0
    assert line["test_last"] == pytest.approx(line["test"] + 3.0)
    assert line["curve"] == sorted(line["curve"])


def test_a_run_without_a_finite_loss_has_no_test_loss():
    line = play(BenchJob("never", "romul", 8, 3, 0, suite=SUITE), "k")
    assert (line["test"], line["test_last"], line["loss"]) == (None, None, None)
    assert line["curve"] == [None, None, None]
    bowl = {**play(replace(BOWL, steps=3), "k"), "problem": "never", "optimizer": "random"}
    found = standings([line, bowl], ["never"], ["random", "romul"])
    assert [row["median"] for row in found["problems"]] == [bowl["test"], None]
    assert found["problems"][1]["without_loss"] == 1
    assert found["problems"][1]["first_wins"]["share"] == 1.0
    json.dumps(found, allow_nan=False)


def test_medians_that_are_shown_are_those_that_are_ranked():
    line = play(replace(BOWL, steps=3), "k")
    runs = [
        {**line, "seed": seed, "optimizer": name, "test": test, "test_last": test}
        for name, tests in (("romul", [1.0, 2.0, None, None]), ("random", [3.0, 4.0, 5.0, 6.0]))
        for seed, test in enumerate(tests)
    ]
    found = standings(runs, ["bowl"], ["romul", "random"])
    shown = [(row["median"], row["median_last"], row["without_loss"]) for row in found["problems"]]
    assert shown == [(None, None, 2), (4.5, 4.5, 0)]
    assert [row["mean_rank"] for row in found["all"]] == [2.0, 1.0]
    assert found["problems"][1]["p_holm"] is None


def test_the_table_says_how_many_runs_have_no_loss():
    done = called("--problems", "never,bowl", "--optimizers", "random", "--seeds", "2")
    [never] = [line for line in done.stdout.splitlines() if "never" in line]
    [bowl] = [line for line in done.stdout.splitlines() if "bowl" in line]
    assert "2 (2 without)" in never
    assert "without" not in bowl


def test_unequal_workers_take_longer_and_come_to_other_ends():
    unequal = play(replace(BOWL, asynchronous=True), "k")
    assert unequal["conditions"] == "asynchronous"
    assert unequal["makespan"] > 1.2 * 6
    assert unequal["test"] != play(BOWL, "k")["test"]


@pytest.mark.parametrize("conditions", [SYNCHRONOUS, ASYNCHRONOUS], ids=["sync", "async"])
@pytest.mark.parametrize("optimizer", ["romul", "random", "asha"])
def test_states_that_nothing_needs_are_dropped_and_change_nothing(optimizer, conditions):
    problem = bench_problems.SUITE["bowl"]
    training = Training(problem.space, 25, problem.step, problem.test)
    kept = Run(training, optimizer, 8, 0, conditions, keep=True).to_the_end()
    dropped = Run(training, optimizer, 8, 0, conditions).to_the_end()
    assert dropped.trials == kept.trials
    assert dropped.population.slots == kept.population.slots
    assert dropped.population.best == kept.population.best
    assert len(kept.states) == len(kept.trials)
    assert len(dropped.states) <= 4 * 8
    last = dropped.winner(24)
    assert dropped.state(last) == kept.state(last)


def test_the_later_copy_of_a_trial_is_not_trained():
    trained = []
    problem = bench_problems.SUITE["bowl"]

    def step(state, values, number, rng):
        trained.append(number)
        return problem.step(state, values, number, rng)

    training = Training(problem.space, 20, step, problem.test)
    for seed in range(20):
        trained.clear()
        slow = replace(ASYNCHRONOUS, speeds=30.0, preempted=0.0)
        run = Run(training, "romul", 8, seed, slow).to_the_end()
        if run.population.counts.retried:
            break
    assert run.population.causes["stale"] > 0
    assert len(trained) == len(run.trials) == run.population.counts.reported


def test_of_equal_winners_the_first_stays_and_none_is_not_finite():
    winners = Winners()
    for step, loss, kept in ((0, 2.0, "a"), (0, 2.0, "b"), (1, float("nan"), "c"), (1, 3.0, "d")):
        winners.see(step, loss, kept)
    assert winners.best == (2.0, "a")
    assert winners.steps == {0: (2.0, "a"), 1: (3.0, "d")}


# -- peers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["nevergrad-de", "optuna-tpe", "syne-tune-pbt"])
def test_a_peer_is_judged_in_the_same_way(peer):
    pytest.importorskip(PEERS[peer].module)
    line = play(BenchJob("rising", peer, 8, 4, 3, suite=SUITE), "k")
    assert line == play(BenchJob("rising", peer, 8, 4, 3, suite=SUITE), "k")
    assert line["test"] == pytest.approx(line["loss"] + 10.0)
    assert line["test_last"] > line["test"] + 2.0
    assert len(line["curve"]) == 4


def test_a_peer_has_fewer_seeds_and_says_what_it_is():
    pytest.importorskip("nevergrad")
    todo = jobs(["bowl"], ["romul", "nevergrad-de"], 8, range(5, 9), 2, module=SUITE)
    assert [job.seed for job in todo if job.optimizer == "nevergrad-de"] == [5, 6]
    assert [job.seed for job in todo if job.optimizer == "romul"] == [5, 6, 7, 8]
    found = standings([play(job, "k") for job in todo], ["bowl"], ["romul", "nevergrad-de"])
    assert [(row["peer"], row["runs"]) for row in found["problems"]] == [(False, 4), (True, 2)]


@pytest.mark.parametrize("name", ["bench", "lab"])
def test_a_peer_under_asynchronous_conditions_is_refused(name):
    pytest.importorskip("nevergrad")
    arguments = [name, "--optimizers", "romul,nevergrad-de", "--asynchronous"]
    done = romul(*arguments, *(["--suite", SUITE] if name == "bench" else []), COLUMNS="200")
    assert done.returncode == 2
    assert "runs synchronously only" in done.stderr
    with pytest.raises(OptimizerError, match="runs synchronously only"):
        play(BenchJob("bowl", "nevergrad-de", 8, 6, 0, asynchronous=True, suite=SUITE), "k")


def test_with_a_few_runs_nothing_is_called_sure():
    lines = [
        {**play(replace(BOWL, seed=seed), "k"), "optimizer": name, "test": test + seed}
        for seed in range(8)
        for name, test in (("romul", 0.0), ("random", 100.0), ("asha", 100.0))
        if name != "asha" or seed < 7
    ]
    found = standings(lines, ["bowl"], ["romul", "random", "asha"])
    assert [row["enough_runs"] for row in found["all"]] == [True, True, False]
    assert [row["first_wins"]["surely"] for row in found["all"][1:]] == [True, False]
    assert [row["first_wins"]["surely"] for row in found["problems"][1:]] == [True, False]


def test_two_runs_of_one_seed_are_refused_and_equal_seeds_are_compared_as_pairs():
    line = play(BOWL, "k")
    runs = [
        {**line, "seed": seed, "optimizer": name, "test": 10.0 * seed + after}
        for seed in range(8)
        for name, after in (("romul", 0.0), ("random", 1.0))
    ]
    found = standings(runs, ["bowl"], ["romul", "random"])
    # Romul is ahead with each seed, by less than the seeds differ.
    assert found["all"][1]["first_wins"]["low"] > 0.5
    with pytest.raises(ValueError, match="'bowl' has two runs of 'random' with seed 7"):
        standings([*runs, runs[-1]], ["bowl"], ["romul", "random"])


# -- keys -----------------------------------------------------------------------------------------


def test_a_key_is_of_all_that_a_run_depends_on():
    others = [
        replace(BOWL, problem="gated"),
        replace(BOWL, optimizer="truncation"),
        replace(BOWL, optimizer="romul:guarded=0.0"),
        replace(BOWL, population=9),
        replace(BOWL, steps=7),
        replace(BOWL, seed=1),
        replace(BOWL, asynchronous=True),
    ]
    keys = [key(job) for job in [BOWL, *others]]
    assert len(set(keys)) == len(keys)
    assert key(BOWL) == keys[0]


def test_a_key_changes_with_data_and_with_space(monkeypatch):
    before, problem = key(BOWL), bench_problems.SUITE["bowl"]
    for changes in ({"identity": "1"}, {"space": {"x": {"type": "float", "min": 0.0, "max": 2.0}}}):
        monkeypatch.setitem(bench_problems.SUITE, "bowl", replace(problem, **changes))
        assert key(BOWL) != before
    monkeypatch.setitem(bench_problems.SUITE, "bowl", problem)
    assert key(BOWL) == before


def test_options_have_one_order():
    assert canonical("romul:power=4.00:guarded=0.0") == "romul:guarded=0.0:power=4.0"
    assert canonical("random") == "random"
    with pytest.raises(ExperimentError, match="is not option=value"):
        canonical("romul:guarded")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that changes one module of a package and returns the fingerprint of the top."""
    folder = tmp_path / "planted"
    folder.mkdir()
    texts = {
        "__init__": "",
        "top": '"""Doc."""\nfrom planted.below import f\n\n\ndef g(x):\n    return f(x) + 1\n',
        "below": "import json\nfrom planted import constants\n\n\ndef f(x):\n    return x\n",
        "constants": "A = 0.5\n\n\ndef h(x):\n    raise ValueError(f'{x}: ' 'wrong', 1)\n",
        "beside": "B = 1\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Modules of another test's package would be read instead.
    for name in [name for name in sys.modules if name.split(".")[0] == "planted"]:
        monkeypatch.delitem(sys.modules, name)

    def changed(name, before, after):
        path = folder / f"{name}.py"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
        fingerprint.cache_clear()
        found = fingerprint("planted.top", ("planted",))
        path.write_text(text)
        return found

    return changed


def test_a_fingerprint_is_of_code_here_and_below(package):
    before = package("top", "x", "x")
    assert package("top", "+ 1", "+ 2") != before
    assert package("below", "return x", "return -x") != before
    assert package("constants", "0.5", "0.25") != before


def test_a_fingerprint_is_not_of_words_nor_of_what_is_not_imported(package):
    before = package("top", "x", "x")
    assert package("top", '"""Doc."""', '"""Other words."""  # and a comment') == before
    assert package("top", "return f(x) + 1", "return (\n        f(x) + 1\n    )") == before
    assert package("constants", "f'{x}: ' 'wrong'", "'no'") == before
    assert package("constants", "wrong', 1", "wrong', 2") != before
    assert package("beside", "1", "2") == before
    with pytest.raises(ModuleNotFoundError, match=r"planted\.nothing"):
        fingerprint("planted.nothing", ("planted",))


def test_the_core_is_in_an_optimizers_fingerprint_and_another_optimizer_is_not():
    theirs = OPTIMIZERS["truncation"].__module__
    core, optimizer = (covered(name, ("romul_actors",)) for name in (decide.__module__, theirs))
    assert {"romul_actors.core.slot", "romul_actors.core.optimizers.base"} <= set(core)
    assert theirs in optimizer
    assert not {OPTIMIZERS["romul"].__module__, "romul_actors.protocol.experiment"} & {
        *core,
        *optimizer,
    }


# -- many runs ------------------------------------------------------------------------------------


def test_shards_share_out_the_work_and_come_to_the_same_file(tmp_path):
    todo = jobs(["bowl", "rising"], ["romul", "random"], 8, range(3), 3, module=SUITE)
    parts = [shard(todo, i, 5) for i in range(1, 6)]
    assert sorted(map(str, [job for part in parts for job in part])) == sorted(map(str, todo))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for name, part in (
        ("whole", todo),
        ("first", shard(todo, 1, 2)),
        ("second", shard(todo, 2, 2)),
    ):
        with Results(tmp_path / name) as results:
            for job in part:
                results.append(play(job, key(job)))
    merged = tmp_path / "merged"
    merged.write_bytes((tmp_path / "second").read_bytes() + (tmp_path / "first").read_bytes())
    with Results(merged) as results:
        assert set(results.lines) == {key(job) for job in todo}
    assert merged.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_half_written_line_is_dropped_and_others_are_kept(tmp_path):
    path = tmp_path / "runs.jsonl"
    with Results(path) as results:
        results.append(play(BOWL, "one"))
        assert not results.dropped
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    with Results(path) as results:
        assert (results.dropped, list(results.lines)) == (True, ["one"])
        results.append(play(replace(BOWL, seed=1), "two"))
    assert path.read_bytes().startswith(whole)
    with Results(path) as results:
        assert (results.dropped, list(results.lines)) == (False, ["one", "two"])
    path.write_bytes(whole[:100])
    with Results(path) as results:
        assert (results.dropped, results.lines) == (True, {})


def test_a_file_that_is_no_file_of_runs_is_left_as_it_is(tmp_path):
    path = tmp_path / "runs.jsonl"
    with Results(path) as results:
        results.append(play(BOWL, "one"))
    line = path.read_text()
    for text, said in (
        ("some text\n", "line 1 is not a run"),
        ("{}\n", "line 1 is not a run"),
        (line + line.replace('"test":', '"test":1'), "line 2 differs from an earlier line"),
    ):
        path.write_text(text)
        with pytest.raises(ExperimentError, match=said), Results(path):
            pass
        assert path.read_text() == text


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "runs.jsonl"
    with Results(path), pytest.raises(ExperimentError, match="in use"), Results(path):
        pass


def test_processes_count_one_thread_each_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with bench._one_thread_each():
        assert {os.environ[name] for name in bench._THREADS} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_on_several_processes_all_comes_out_as_on_one():
    todo = {key(job): job for job in jobs(["bowl"], ["romul"], 8, range(4), 1, module=SUITE)}
    together = {line["key"]: line for line in play_all(todo, 2)}
    assert together == {name: play(job, name) for name, job in todo.items()}


def test_a_killed_run_goes_on_and_comes_to_the_same_bytes(tmp_path, monkeypatch):
    arguments = ["--problems", "bowl,gated", "--optimizers", "romul,random", "--seeds", "2"]
    whole, killed, gate = tmp_path / "whole", tmp_path / "killed", tmp_path / "gate"
    called(*arguments, "--results", str(whole))
    monkeypatch.setenv("BENCH_GATE", str(gate))
    running = subprocess.Popen(
        command(*arguments, "--results", str(killed), "--processes", "1"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # The first two runs of the first seed end; the third waits at the gate.
        wait_for(lambda: killed.exists() and killed.read_text().count("\n") == 2)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert len(children) >= 1
        running.kill()
        running.wait()
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    finally:
        # If they did not end with their parent, they would wait at the gate forever.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    with killed.open("a") as file:
        file.write(whole.read_text()[:50])
    gate.touch()
    again = called(*arguments, "--results", str(killed))
    assert "the last line was incomplete and has been dropped" in " ".join(again.stderr.split())
    assert killed.read_bytes() == whole.read_bytes()
    # No run is missing, so the same file gives the same table.
    assert called(*arguments, "--results", str(killed)).stdout == again.stdout
    assert killed.read_bytes() == whole.read_bytes()


def test_the_command_writes_its_table_its_page_and_its_runs(tmp_path):
    arguments = ["--problems", "bowl,rising", "--optimizers", "romul:guarded=0.0,random,truncation"]
    arguments += ["--seeds", "3", "--first-seed", "5", "--steps", "3", "--out", str(tmp_path)]
    done = called(*arguments, "--json")
    [line] = done.stdout.splitlines()
    output = json.loads(line)
    assert json.loads((tmp_path / "bench.json").read_text()) == output
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert (output["first"], output["seeds"]) == ("romul:guarded=0.0", [5, 7])
    assert [row["problem"] for row in output["problems"]] == ["bowl"] * 3 + ["rising"] * 3
    assert [row["optimizer"] for row in output["all"]] == [
        "romul:guarded=0.0",
        "random",
        "truncation",
    ]
    runs = [json.loads(run) for run in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert {run["seed"] for run in runs} == {5, 6, 7}
    assert {run["steps"] for run in runs} == {3}
    # "rising" belongs to the reporting half.
    assert "at most twice" in " ".join(done.stderr.split())
    shown = called(*arguments)
    assert "Over all problems" in shown.stdout
    assert "romul:guarded=0.0" in shown.stdout


def test_the_command_plays_a_part_only(tmp_path):
    file = tmp_path / "runs.jsonl"
    arguments = ["--half", "develop", "--seeds", "2", "--optimizers", "romul,random"]
    done = called(*arguments, "--results", str(file), "--shard", "2/3")
    assert "at most twice" not in " ".join(done.stderr.split())
    todo = jobs(["bowl", "gated"], ["romul", "random"], 8, range(2), 10, module=SUITE)
    kept = {json.loads(line)["key"] for line in file.read_text().splitlines()}
    assert kept == {key(job) for job in shard(todo, 2, 3)}
    assert "needs --results or --out" in " ".join(called("--shard", "1/2", code=2).stderr.split())
    assert "I/N" in called("--shard", "3/2", "--results", str(file), code=2).stderr


def test_a_curve_is_the_lowest_loss_so_far_of_the_median_run():
    lines = [{"curve": [3.0, 5.0, 1.0]}, {"curve": [None, 4.0, 6.0]}, {"curve": [2.0, 1.0, 0.5]}]
    assert curve(lines) == [3.0, 3.0, 1.0]
