"""The real actor and workers in virtual time, on machines that come and go."""

import asyncio
import contextvars
import json
from dataclasses import replace
from typing import Any

import pytest
from numpy.random import default_rng

from romul_actors.core import history
from romul_actors.core.history import ReportStale, TrialFailed, TrialReleased, TrialReported
from romul_actors.store.memory import MemoryStore
from romul_sim.churn.scenario import Policy, Scenario, slots
from romul_sim.churn.simulation import Simulation, simulate
from romul_sim.churn.sweep import (
    SweepError,
    SweepJob,
    SweepResult,
    choices,
    chosen,
    common_target,
    compare,
    policy,
)
from romul_sim.churn.trace import Change, Pool, from_counts, generate
from romul_sim.cluster.invariants import InvariantWatch
from romul_sim.cluster.training import Durations, Pace
from romul_sim.cluster.virtual_time import Clock, DeadlockError, VirtualLoop, machine_clock, run
from tests.conftest import romul, romul_anew

pytestmark = pytest.mark.usefixtures("quiet")


# -- time -----------------------------------------------------------------------------------------


def test_virtual_time_jumps_from_timer_to_timer():
    found = []

    async def sleeper(name, seconds):
        await asyncio.sleep(seconds)
        found.append((name, asyncio.get_running_loop().time()))

    async def main():
        await asyncio.gather(sleeper("late", 10**6), sleeper("soon", 1.5), sleeper("also", 1.5))

    run(main())
    assert found == [("soon", 1.5), ("also", 1.5), ("late", 10.0**6)]


def test_a_callback_that_raises_is_reported_and_ends_nothing():
    reported: list[dict[str, Any]] = []
    called: list[int] = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        loop.call_later(1.0, [].pop)
        dropped = [loop.call_soon(called.append, 1), loop.call_later(2.0, called.append, 2)]
        for call in dropped:
            call.cancel()
        assert all(call.cancelled() for call in dropped)
        await asyncio.sleep(3.0)

    run(main())
    assert [type(context["exception"]) for context in reported] == [IndexError]
    assert "pop" in reported[0]["message"]
    assert called == []


def test_waiting_for_what_never_comes_is_an_error_not_a_hang():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run(main())


def test_a_machine_with_a_wrong_clock_lives_by_it():
    async def sleeper():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        began = loop.time()
        await asyncio.sleep(100.0)
        async with asyncio.timeout(50.0):
            await asyncio.sleep(20.0)
        return began, loop.time(), loop.now_s

    async def main():
        context = contextvars.copy_context()
        context.run(machine_clock.set, Clock(rate=2.0, ahead_s=1000.0))
        return await asyncio.create_task(sleeper(), context=context), await sleeper()

    fast, true = run(main())
    assert fast == pytest.approx((1000.0, 1120.0, 60.0))
    assert true == pytest.approx((60.0, 180.0, 180.0))


def test_work_takes_as_long_as_the_machine_is_slow():
    async def main():
        loop = asyncio.get_running_loop()
        pace = Pace(2.0)
        loop.call_later(10.0, pace.change, 0.0)
        loop.call_later(110.0, pace.change, 0.5)
        done = await pace.work(30.0)
        whole = (done, loop.time())
        loop.call_later(4.0, pace.stop)
        return whole, await pace.work(30.0), await pace.work(1.0)

    # 20 in ten seconds, a hundred seconds' rest, 10 in twenty; then 2 of 30, and no more.
    assert run(main()) == ((30.0, 130.0), 2.0, 0.0)


# -- machines -------------------------------------------------------------------------------------

CALM = Scenario(changes=[Change(0.0, f"m{i}", "arrives") for i in range(4)], steps=10, history=True)
FIVE = [Change(0.0, f"m{i}", "arrives", speed=1.0) for i in range(5)]


def poisson(machines, lifetime_s, span_s, seed):
    return generate("replaced", Pool(machines, lifetime_s, span_s), default_rng(seed)).changes


def of_kind(simulated, kind):
    return [line for line in simulated.history["search-0"] if isinstance(line, kind)]


def test_without_churn_nothing_is_lost():
    figures = simulate(CALM).figures
    assert (figures["status"], figures["reported"], figures["retried"]) == ("finished", 80, 0)
    assert (figures["faults"], figures["invariants_broken"]) == ({}, 0)
    assert set(figures["waste"]) <= {"idle", "unfinished"}
    # 80 trials of about a minute on 4 machines.
    assert 15 / 60 < figures["hours"] < 60 / 60
    assert figures["dollars"] == pytest.approx(figures["machine_hours"], abs=0.01)


@pytest.mark.parametrize("notice_s", [0.0, 20.0, 600.0])
def test_churn_costs_time_and_nothing_else(notice_s):
    changes = poisson(6, 400.0, 10**5, 1)
    played = simulate(replace(CALM, changes=changes, notice_s=notice_s, steps=20))
    figures = played.figures
    assert (figures["status"], figures["created"], figures["reported"]) == ("finished", 160, 160)
    assert figures["invariants_broken"] == 0
    results = [line.trial for line in of_kind(played, TrialReported)]
    assert len(results) == len(set(results)) == 160
    # Without a warning leases end; with one, trials are given back, or are ended in time.
    assert (figures["faults"].get("lost", 0) > 3) == (notice_s == 0.0)
    assert (figures["waste"].get("preemption", 0.0) > 0.01) == (notice_s == 0.0)


@pytest.mark.parametrize(
    ("changes", "faults", "cause"),
    [
        ([Change(30.0, "m0", "leaves")], {"lost": 1}, "preemption"),
        ([Change(30.0, "m0", "freezes", seconds=500.0)], {"lost": 1}, "time-out"),
        ([Change(30.0, "m0", "slows", speed=0.01)], {}, "copies"),
        ([Change(5.0, "m0", "notice", seconds=20.0), Change(25.0, "m0", "leaves")], None, None),
    ],
)
def test_what_happens_to_a_machine_shows_in_the_accounts(changes, faults, cause):
    scenario = replace(
        CALM,
        changes=[*FIVE, *changes],
        durations=Durations(60.0, 0.0),
        policy=Policy(second_copy=2.0),
    )
    played = simulate(scenario)
    figures = played.figures
    assert (figures["status"], figures["invariants_broken"]) == ("finished", 0)
    if faults is None:
        # The trial pauses in time, and the next attempt continues: nothing is wasted.
        assert figures["faults"] == {"preempted": 1}
        assert "preemption" not in figures["waste"]
        assert any(line.checkpoint for line in of_kind(played, TrialReleased))
    else:
        assert {k: v for k, v in figures["faults"].items() if k == "lost"} == faults
        assert figures["waste"][cause] > 0
    assert figures["goodput"] + sum(figures["waste"].values()) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(
    ("policy", "soonest_s", "latest_s"),
    [
        # A heartbeat comes every third of a lease, a look for leases that ended every tenth.
        (Policy(lease_s=20.0), 20.0 * 2 / 3, 20.0 + 2.0),
        (Policy(lease_s=20.0, broker_s=2.0), 2.0, 2.0),
    ],
)
def test_a_lost_workers_trial_is_given_on_after_the_lease_and_a_look(policy, soonest_s, latest_s):
    scenario = replace(
        CALM,
        changes=[*FIVE, Change(30.0, "m0", "leaves")],
        durations=Durations(60.0, 0.0),
        policy=policy,
    )
    lost = of_kind(simulate(scenario), TrialFailed)
    assert [line.reason for line in lost] == ["lost"]
    assert soonest_s <= lost[0].at_ms / 1000 - 30.0 <= latest_s


def test_a_broker_spares_the_wait_for_the_lease():
    there = [Change(0.0, f"m{i}", "arrives") for i in range(4)]
    changes = [*there, *(Change(100.0 * i, f"m{i}", "leaves") for i in range(1, 4))]
    slow = replace(CALM, changes=changes, policy=Policy(lease_s=600.0))
    quick = replace(slow, policy=Policy(lease_s=600.0, broker_s=2.0))
    assert simulate(quick).figures["hours"] < simulate(slow).figures["hours"]


def test_a_long_first_hyperparameter_takes_longer():
    fixed = replace(CALM, durations=Durations(60.0, 0.0))
    skewed = replace(CALM, durations=Durations(60.0, 0.0, by_hyperparameter=16.0))

    def longest(scenario):
        results = [line.seconds for line in of_kind(simulate(scenario), TrialReported)]
        return max(results) / min(results)

    # Machines alone differ by 2.
    assert longest(fixed) <= 2.05
    assert longest(skewed) > 4


def test_saving_and_loading_checkpoints_take_time():
    free = simulate(replace(CALM, durations=Durations(60.0, 0.0))).figures["hours"]
    saved = simulate(replace(CALM, durations=Durations(60.0, 0.0, 1.0, 0.0, 30.0))).figures["hours"]
    both = simulate(replace(CALM, durations=Durations(60.0, 0.0, 1.0, 30.0, 30.0))).figures["hours"]
    assert saved == pytest.approx(1.5 * free, rel=0.05)
    # A trial on the machine that trained its parent last loads nothing.
    assert 1.6 * free < both < 2.0 * free


def test_a_checkpoint_may_be_saved_while_the_next_trial_trains():
    def hours(save_s, *, beside):
        durations = Durations(60.0, 0.0, save_s=save_s, beside=beside)
        # More slots than machines: there always is a next trial.
        figures = simulate(replace(CALM, population=12, durations=durations)).figures
        assert (figures["status"], figures["reported"]) == ("finished", 120)
        return figures["hours"]

    free, held_up = hours(0.0, beside=False), hours(30.0, beside=False)
    beside = hours(30.0, beside=True)
    # A worker's first three checkpoints show how long saving takes.
    assert free < beside < free + 0.5 * (held_up - free)
    assert held_up == pytest.approx(1.5 * free, rel=0.05)


def test_searches_share_the_machines():
    figures = simulate(replace(CALM, searches=3)).figures
    assert (figures["status"], figures["reported"]) == ("finished", 240)


def test_the_same_seed_is_the_same_history_byte_for_byte():
    churny = replace(CALM, changes=poisson(5, 300.0, 10**5, 2), latency_s=0.01)
    first, second = simulate(churny), simulate(churny)
    assert first.history == second.history
    assert first.figures == second.figures
    other = simulate(replace(churny, seed=1))
    assert first.figures["history_sha256"] != other.figures["history_sha256"]


def test_the_same_seed_is_the_same_history_in_any_process():
    output = [
        json.loads(
            romul_anew("sim", "--json", "--days=0.3", "--churn=zones", PYTHONHASHSEED=n).stdout
        )
        for n in ("0", "1")
    ]
    assert output[0]["history_sha256"] == output[1]["history_sha256"]
    assert output[0]["trials"] > 50


def test_no_machines_any_more_is_the_end():
    figures = simulate(replace(CALM, changes=from_counts(60.0, [2, 2, 0]))).figures
    assert figures["status"] == "running"
    assert figures["machines"] == {"arrived": 2, "left": 2}


def test_machines_that_come_back_after_a_drought_go_on():
    figures = simulate(replace(CALM, changes=from_counts(600.0, [4, 0, 0, 0, 0, 0, 4]))).figures
    assert figures["status"] == "finished"
    assert figures["hours"] > 1


def test_memory_is_flat_while_trials_go_by():
    found = []

    class Looked(Simulation):
        results = 0

        def on_line(self, name, line):
            super().on_line(name, line)
            self.results += isinstance(line, TrialReported)
            if isinstance(line, TrialReported) and self.results % 250 == 0:
                ledger = self.ledger
                found.append(len(self.checkpoints) + len(ledger._open) + len(ledger.spans))

    run(Looked(replace(CALM, steps=200, history=False)).play())
    assert len(found) >= 6
    assert max(found[3:]) <= 1.5 * max(found[:3])


def test_what_a_simulation_watches_is_what_its_store_holds():
    class Looked(Simulation):
        async def play(self):
            played = await super().play()
            stored = await self.store.history("search-0", count=10_000)
            return played, [history.from_json(json.loads(text)) for _, text in stored]

    played, stored = run(Looked(replace(CALM, steps=4)).play())
    watched = [history.to_json(line) for line in played.history["search-0"]]
    assert len(watched) > 64
    # As texts: a vector is a tuple before it is stored, and a list after.
    read, later = stored[: len(watched)], stored[len(watched) :]
    texts = [json.dumps(history.to_json(line), sort_keys=True) for line in read]
    assert texts == [json.dumps(line, sort_keys=True) for line in watched]
    # Work that was useless when the search ended.
    assert all(isinstance(line, ReportStale) for line in later)


def test_a_violation_ends_the_simulation_and_is_reported(monkeypatch):
    commit = MemoryStore.commit

    async def twice(self, name, actor, commit_):
        if len(commit_.history) > 1:
            commit_ = replace(commit_, history=[*commit_.history, commit_.history[-1]])
        return await commit(self, name, actor, commit_)

    monkeypatch.setattr(MemoryStore, "commit", twice)
    # The watch reads what was asked for; the double stands for a core that decides twice.
    monkeypatch.setattr(
        InvariantWatch,
        "_counts",
        lambda self, meta: self.must(int(meta["reported"]) < 20, "twenty"),
    )
    figures = simulate(CALM).figures
    assert (figures["status"], figures["invariants_broken"], figures["broken"]) == (
        "broken",
        1,
        "twenty",
    )


# -- sweeps ---------------------------------------------------------------------------------------


def test_policies_are_read_and_refused():
    assert policy("default", 100.0) == Policy(lease_s=50.0)
    assert policy("broker:lease_s=7:min=5", 100.0) == Policy(lease_s=7.0, min=5, broker_s=2.0)
    assert policy("default:max=9:second_copy=0:grace_s=0", 100.0).max == 9
    for wrong, found in (
        ("fast", "not one of"),
        ("default:x=1", "'x'"),
        ("default:min=a", "'a'"),
        ("default:min=nan", "min: nan is not finite, or below 0"),
        ("default:grace_s=-3", "grace_s: -3 is not finite, or below 0"),
        ("default:broker_s=inf", "broker_s: inf is not finite"),
        ("default:max=2.5", "max: 2.5 is not a whole number"),
        ("default:min=3", "min: 3 is below 4"),
        ("default:per_worker=0", "per_worker: 0.0 is not above 0"),
        ("default:per_machine=0", "per_machine: 0 is not above 0"),
        ("default:lease_s=0.5", "lease_s: 0.5 is below 1"),
    ):
        with pytest.raises(SweepError, match=found):
            policy(wrong, 1.0)


def ended(*curve, goodput=0.5):
    found = {
        "goodput": goodput,
        "best": curve[-1][2],
        "dollars": 1.0,
        "trials": 3,
        "status": "finished",
        "waste": {"idle": 0.5},
        "invariants_broken": 0,
    }
    return SweepResult(found, curve)


def test_a_comparison_ranks_by_the_time_to_a_target_that_half_of_all_reach():
    quick = ended((3600.0, 2.0, 1.0), (7200.0, 4.0, 0.1))
    slow = ended((3600.0, 2.0, 1.0), (36000.0, 9.0, 0.05))
    never = ended((3600.0, 2.0, 5.0))
    assert common_target([quick, slow, never]) == 0.1
    jobs = [
        (SweepJob("o", name, 0, CALM), e)
        for name, e in zip("nsq", (never, slow, quick), strict=True)
    ]
    rows = compare(jobs, None)
    assert [row["policy"] for row in rows] == ["q", "s", "n"]
    assert [row["hours_to_target"] for row in rows] == [2.0, 10.0, None]
    assert [row["dollars_to_target"] for row in rows] == [4.0, 9.0, None]
    assert compare(jobs, 1.0)[0]["hours_to_target"] == 1.0


def test_the_command_compares_policies_on_the_same_machines(tmp_path):
    page = tmp_path / "report.html"
    done = romul(
        "sim",
        "--json",
        "--churn=weibull",
        "--days=0.5",
        "--machines=8",
        "--policy=default,broker",
        "--seeds=2",
        f"--report={page}",
        f"--save-trace={tmp_path / 'trace.jsonl'}",
    )
    rows = json.loads(done.stdout)["rows"]
    assert {(row["policy"], row["seeds"]) for row in rows} == {("default", 2), ("broker", 2)}
    assert all(row["invariants_broken"] == 0 for row in rows)
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 4
    assert "http" not in text.replace("http-equiv", "")
    again = romul("sim", "--json", f"--trace={tmp_path / 'trace.jsonl'}", "--steps=2")
    assert json.loads(again.stdout)["trials"] == 24


def test_the_command_recommends_a_set_up(tmp_path):
    page = tmp_path / "report.html"
    recommend = ("sim", "--json", "--recommend", "--churn=zones", "--days=0.4", "--seeds=1")
    output = json.loads(romul(*recommend, "--save-s=20", f"--report={page}").stdout)
    assert len(output["rows"]) == 9
    recommended = output["recommended"]
    assert recommended["population"] in (16, 24, 32)
    assert recommended["checkpoint_interval_s"] == pytest.approx(
        (2 * 20 * recommended["mean_life_s"]) ** 0.5, abs=0.1
    )
    text = page.read_text()
    assert all(row["policy"] in text for row in output["rows"])
    assert text.count("data:image/png;base64,") == 4
    # With overlap, saving a checkpoint delays nothing; another policy is another search.
    other = romul(*recommend, "--save-s=20", "--overlap", "--policy=broker:second_copy=0")
    others = json.loads(other.stdout)
    assert others["recommended"]["checkpoint_interval_s"] is None
    assert [row["golden_sha256"] for row in others["rows"]] != [
        row["golden_sha256"] for row in output["rows"]
    ]


def test_a_recommendation_is_of_the_slots_of_each_search():
    few = Scenario([Change(0.0, f"m{i}", "arrives") for i in range(9)], searches=2)
    setups = [chosen(few, choice, 36_000.0) for choice in choices(60.0)]
    assert {(slots(scenario), scenario.steps) for scenario in setups} == {
        # Half of the machines are 4.5; 9 x 36,000 s, 0.8 of it, for two searches' slots.
        (5, 432),
        (7, 308),
        (9, 240),
    }


def test_a_recommendation_compares_trials_of_one_length(short):
    """On a toy problem, a short step learns as much as a long one."""
    scenario = replace(CALM, durations=Durations(100.0))
    setups = [chosen(scenario, choice, 10_000.0) for choice in choices(100.0)]
    assert {setup.durations for setup in setups} == {Durations(100.0)}
    output = json.loads(romul("sim", "--recommend", "--json", short, "--trial-s=1").stdout)
    assert "step_s" not in output["recommended"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--population=8"], "leave out --population"),
        (["--steps=8"], "leave out --steps"),
        (["--optimizer=romul,random"], "--recommend takes only one optimizer"),
        (["--policy=default,broker"], "--recommend takes only one policy"),
        (["--policy=default:lease_s=7"], "--policy default:lease_s=7 sets one of them"),
        (["--policy=default:per_machine=2"], "--policy default:per_machine=2 sets one of them"),
    ],
)
def test_a_recommendation_refuses_what_it_compares_itself(short, options, message):
    done = romul("sim", "--recommend", "--json", short, "--trial-s=1", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in unwrapped(done.stderr)


def unwrapped(text):
    """The words of a message, without its frame."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def short(tmp_path):
    """A trace of two machines that is shorter than any trial."""
    file = tmp_path / "short.json"
    file.write_text(json.dumps({"metadata": {"gap_seconds": 5.5}, "data": [2, 2]}))
    return f"--trace={file}"


def test_a_trace_shorter_than_a_trial_is_warned_of_and_said_to_have_ended_first(short):
    done = romul("sim", short)
    assert done.returncode == 0
    said = "warning: the trace lasts 11 s, but a trial 1800 s: give a shorter --trial-s"
    assert said in " ".join(done.stderr.split())
    rows = rows_of(done.stdout)
    assert rows["status"] == "the trace ended first"
    assert rows["machines"] == "arrived 2, left 0"
    assert rows["waste"].startswith("idle ")
    assert not {"best", "broken", "faults", "losing branches"} & set(rows)
    assert not romul("sim", short, "--trial-s=1").stderr
    figures = json.loads(romul("sim", short, "--json").stdout)
    assert (figures["status"], figures["best"], figures["broken"]) == ("running", None, "")


def rows_of(printed):
    """The table of figures, by name."""
    lines = [line.strip().split("  ", 1) for line in printed.splitlines()[3:]]
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def test_the_first_line_says_what_is_simulated(short):
    first = romul("sim", short, "--trial-s=1").stdout.splitlines()[0]
    assert first.startswith(short.removeprefix("--trace="), len("trace "))
    assert first.endswith(
        ": up to 2 machines, 11 s; 4 slots, 4 steps, trials of 1 s; misspecified, optimizer romul, "
        "policy default"
    )
    first = romul(
        "sim",
        "--churn=zones",
        "--days=0.1",
        "--policy=default,default:per_machine=2",
        "--seeds=2",
        "--searches=2",
    ).stdout.splitlines()[0]
    assert first.startswith("churn zones: up to 16 machines, 2 h; 2 searches of 16 to 24 slots, ")
    assert first.endswith("policy default,default:per_machine=2, 2 seeds")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "no trial ended in any simulation"),
        (["--trial-s=16", "--seeds=9"], "no trial ended in most simulations"),
        (
            ["--trial-s=1", "--target=-9"],
            "no combination reaches the target -9 in most of its simulations",
        ),
    ],
)
def test_where_the_target_is_not_reached_nothing_is_recommended(short, options, why):
    done = romul("sim", "--recommend", "--seeds=1", "--json", short, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"nothing can be recommended: {why}" in " ".join(done.stderr.split())


def test_set_ups_that_are_the_same_are_compared_once():
    assert len(choices(1800.0)) == 9
    assert len(choices(1.0)) == len({choice.name for choice in choices(1.0)}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problem=none"], "'none'"),
        (["--trace=/nowhere.json"], "cannot be read"),
        (["--save-trace=/nowhere/x", "--days=0.01"], "/nowhere/x: No such file or directory"),
        (["--churn=locusts"], "locusts"),
        (["--policy=fast"], "fast"),
        (["--optimizer=romul:q"], "'q'"),
        (["--optimizer=romul:nothing=1"], "nothing"),
        (["--trace=x.json", "--churn=zones"], "not both"),
        (["--population=100001"], "100000"),
        (["--churn=day", "--machines=200001"], "200000"),
        (["--churn=day", "--machines=200000", "--lifetime-h=0.5"], "200000 machines for 2 days"),
    ],
)
def test_a_wrong_option_is_an_error_in_words(arguments, message):
    done = romul("sim", *arguments)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
