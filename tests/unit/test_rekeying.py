"""Stored results get today's keys only if a sample of them is reproduced bit for bit."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from romul_sim.bench.rekeying import NOTE, RekeyError, differences, rekey, sample
from romul_sim.bench.results import Results, read_lines
from romul_sim.bench.runs import BenchJob, job_of, jobs, key, play
from tests.conftest import romul
from tests.unit import bench_problems

SUITE = "tests.unit.bench_problems"
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rekey.py"
TODO = jobs(["bowl", "rising"], ["romul", "random"], 8, range(3), 3, module=SUITE)


def key_of(line):
    return key(job_of(line, SUITE))


def play_again(lines):
    for line in lines:
        yield play(job_of(line, SUITE), key_of(line))


@pytest.fixture
def played():
    """Twelve runs with keys of code that no longer exists."""
    return [play(job, f"old-{place}") for place, job in enumerate(TODO)]


@pytest.fixture
def file(tmp_path):
    def write(lines):
        path = tmp_path / "runs.jsonl"
        path.unlink(missing_ok=True)
        with Results(path) as results:
            for line in lines:
                results.append(line)
        return path

    return write


def of(lines):
    """Lines by run."""
    return {job_of(line, SUITE): line for line in lines}


def renewed(path, **options):
    return rekey(path, key_of, play_again, commit="0123abc", **options)


def test_the_run_of_a_line_is_known(played):
    assert [job_of(line, SUITE) for line in played] == TODO
    unequal = replace(TODO[0], asynchronous=True)
    assert job_of(play(unequal, "k"), SUITE) == unequal


def test_lines_that_come_out_the_same_get_todays_keys_and_a_note(played, file):
    path = file(played)
    done = renewed(path)
    assert (done.lines, done.sample, done.current) == (12, 10, 0)
    after = of(read_lines(path))
    for line in played:
        job = job_of(line, SUITE)
        assert after[job] == {**line, "key": key(job), NOTE: "0123abc"}
    text = path.read_bytes()
    again = renewed(path)
    assert (again.lines, again.sample, again.current) == (0, 0, 12)
    assert path.read_bytes() == text


def test_the_bench_goes_on_from_them(played, file):
    path = file(played)
    renewed(path)
    text = path.read_bytes()
    arguments = ["--suite", SUITE, "--problems=bowl,rising", "--optimizers=romul,random"]
    arguments += ["--seeds=3", f"--results={path}", "--json"]
    done = romul("bench", *arguments)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == text


@pytest.mark.parametrize("name", ["test", "loss", "makespan"])
def test_one_bit_is_enough_to_refuse(played, file, name):
    changed = {**played[3], name: played[3][name] * (1 + 2**-52)}
    assert changed[name] != played[3][name]
    path = file([*played[:3], changed, *played[4:]])
    text = path.read_bytes()
    with pytest.raises(RekeyError) as refused:
        renewed(path, share=1.0)
    run = f"{changed['problem']}, {changed['optimizer']}, seed {changed['seed']}"
    said = str(refused.value)
    assert "1 of 12 lines came out differently; no line has a new key" in said
    assert f"  {run}: {name} is {played[3][name]}, not {changed[name]}" in said
    assert path.read_bytes() == text


def test_code_that_leads_elsewhere_is_found_by_any_sample(played, file, monkeypatch):
    def other(state, values, number, rng):
        state, loss = bench_problems.descend(state, values, number, rng)
        return state, loss + 1e-9

    bowl = replace(bench_problems.SUITE["bowl"], step=other)
    monkeypatch.setitem(bench_problems.SUITE, "bowl", bowl)
    path = file(played)
    text = path.read_bytes()
    for seed in range(5):
        with pytest.raises(RekeyError, match="bowl") as refused:
            renewed(path, share=0.0, least=0, seed=seed)
        assert "rising" not in str(refused.value)
    assert path.read_bytes() == text


def test_a_sample_has_every_problem_and_optimizer_and_is_drawn_from_a_seed(played):
    for seed in range(10):
        few = sample(played, 0.05, 2, seed)
        assert {(line["problem"], line["optimizer"]) for line in few} == {
            (job.problem, job.optimizer) for job in TODO
        }
        assert len(few) == 4
        assert sample(played[::-1], 0.05, 2, seed) == few
    assert len({str(sample(played, 0.05, 2, seed)) for seed in range(10)}) > 5
    assert len(sample(played, 0.05, 10, 0)) == 10
    assert len(sample(played, 0.9, 10, 0)) == 11
    assert len(sample(played, 0.05, 100, 0)) == 12
    assert sample([], 0.05, 10, 0) == []


def test_conditions_are_sampled_apart(played):
    unequal = play(replace(TODO[0], asynchronous=True), "old-12")
    larger = play(replace(TODO[0], population=9), "old-13")
    few = sample([*played, unequal, larger], 0.0, 0, 0)
    assert {unequal["key"], larger["key"]} < {line["key"] for line in few}
    assert len(few) == 6


def test_lines_of_today_stay_and_an_earlier_note_too(played, file):
    current = {**played[0], "key": key_of(played[0])}
    noted = {**played[1], NOTE: "before"}
    path = file([current, noted, *played[2:]])
    done = renewed(path)
    assert (done.lines, done.current) == (11, 1)
    after = of(read_lines(path))
    assert after[TODO[0]] == current
    assert after[TODO[1]][NOTE] == "before"
    assert after[TODO[2]][NOTE] == "0123abc"


def test_two_lines_of_one_run_must_agree(played, file):
    twin = {**played[0], "key": "older"}
    path = file([*played, twin])
    assert renewed(path).lines == 12
    assert len(read_lines(path)) == 12
    path = file([*played, {**twin, "test": 0.5}])
    text = path.read_bytes()
    with pytest.raises(RekeyError, match="two lines of one run came out differently"):
        renewed(path)
    assert path.read_bytes() == text


@pytest.mark.parametrize(
    "change",
    [{"problem": "gone"}, {"optimizer": "gone"}, {"optimizer": "romul:gone=1"}],
    ids=["problem", "optimizer", "option"],
)
def test_a_run_that_cannot_be_played_any_more_is_refused(played, file, change):
    path = file([*played, {**played[0], "key": "older", **change}])
    text = path.read_bytes()
    with pytest.raises(RekeyError, match="gone"):
        renewed(path, share=1.0)
    assert path.read_bytes() == text


def test_a_run_that_was_not_played_is_no_proof(played, file):
    path = file(played)
    with pytest.raises(RekeyError, match="it was not played"):
        rekey(path, key_of, lambda lines: play_again(lines[1:]), commit="0123abc")


def test_a_field_that_is_gone_or_new_is_a_difference(played):
    line = played[0]
    assert differences(line, {**line, "key": "other", NOTE: "x"}) == []
    assert differences(line, {**line, "more": 1}) == ["more is 1, not null"]
    without = {name: value for name, value in line.items() if name != "test_last"}
    assert differences(line, without) == [f"test_last is null, not {line['test_last']}"]


def test_the_command_notes_the_commit_that_holds_the_file(played, file):
    path = file(played)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example"]

    def git(*arguments):
        called = ["git", "-C", str(path.parent), *identity, *arguments]
        return subprocess.run(called, check=True, capture_output=True, text=True).stdout.strip()

    def called(*options):
        return subprocess.run(
            [sys.executable, str(SCRIPT), str(path), "--suite", SUITE, *options],
            capture_output=True,
            text=True,
            check=False,
        )

    git("init", "-q")
    git("commit", "-q", "-m", "nothing yet", "--allow-empty")
    text = path.read_bytes()
    done = called("--least=0")
    assert (done.returncode, path.read_bytes()) == (1, text)
    assert "commit it first, or give --commit" in done.stderr
    git("add", "-A")
    git("commit", "-q", "-m", "runs")
    done = called("--least=0")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert (output["lines"], output["sample"], output["current"]) == (12, 4, 0)
    commit = git("log", "-1", "--format=%h")
    assert {line[NOTE] for line in read_lines(path)} == {commit}
    assert {line["key"] for line in read_lines(path)} == {key(job) for job in TODO}
    path.write_text("{}\n")
    done = called()
    assert (done.returncode, path.read_text()) == (1, "{}\n")
    assert "line 1 is not a run" in done.stderr
    path.unlink()
    done = called()
    assert (done.returncode, path.exists()) == (1, False)
    assert "No such file" in done.stderr


def test_a_job_is_all_that_a_line_says():
    assert job_of(play(TODO[-1], "k")) == replace(TODO[-1], suite="romul_sim.suite")
    assert isinstance(TODO[-1], BenchJob)
