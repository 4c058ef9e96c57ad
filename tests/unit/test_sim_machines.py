"""Simulated machines: their clocks, freezes and speeds, and how their time is used."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from romul_actors.core.history import SecondCopyStarted, TrialReleased, TrialReported
from romul_actors.core.rng import generator
from romul_actors.store.memory import MemoryStore
from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.simulation import simulate
from romul_sim.churn.trace import Change
from romul_sim.cluster.training import Durations, Pace, Streams
from romul_sim.cluster.virtual_time import run, virtual_loop
from romul_workers.worker.attempt import Attempt

pytestmark = pytest.mark.usefixtures("quiet")

PATIENT = Policy(lease_s=2000.0, second_copy=0.0)
"""No fault of a few minutes ends a lease."""
ONE = Scenario(
    changes=[Change(0.0, "m0", "arrives", speed=1.0)],
    population=4,
    steps=1,
    durations=Durations(60.0, 0.0),
    policy=PATIENT,
    history=True,
)
"""Four trials of a minute, one after the other, on one machine."""
FOUR = [Change(0.0, f"m{i}", "arrives", speed=1.0) for i in range(4)]


def struck(*changes, scenario=ONE):
    return simulate(replace(scenario, changes=[*scenario.changes, *changes]))


def lines(played, kind):
    return [line for line in played.history["search-0"] if isinstance(line, kind)]


def reported_s(played):
    return [round(line.at_ms / 1000, 2) for line in lines(played, TrialReported)]


# -- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_reckons_with_its_machines_end_by_its_own_clock(seed):
    """Clocks are up to a minute ahead, and 1 % too fast or too slow."""
    warned = replace(ONE, population=8, policy=replace(PATIENT, grace_s=60.0), seed=seed)
    # Without the last 60 s, 250 s are left: four trials fit, but a fifth does not.
    played = struck(
        Change(10.0, "m0", "notice", seconds=300.0), Change(310.0, "m0", "leaves"), scenario=warned
    )
    assert reported_s(played) == [60.0, 120.0, 180.0, 240.0]
    assert lines(played, TrialReleased) == []


def test_a_wrong_clock_makes_no_machine_faster():
    played = simulate(replace(ONE, changes=FOUR))
    assert reported_s(played) == [60.0] * 4
    # The worker uses its own clock.
    assert len({line.seconds for line in lines(played, TrialReported)}) == 4


# -- freezes and speeds ---------------------------------------------------------------------------


def freezes(at_s, seconds, machine="m0"):
    return Change(at_s, machine, "freezes", seconds=seconds)


def slows(at_s, speed):
    return Change(at_s, "m0", "slows", speed=speed)


@pytest.mark.parametrize(
    ("changes", "ends_s"),
    [
        ([], [60.0, 120.0, 180.0, 240.0]),
        ([freezes(30.0, 100.0)], [160.0, 220.0, 280.0, 340.0]),
        # The longer freeze counts, whichever came first.
        ([freezes(30.0, 100.0), freezes(40.0, 10.0)], [160.0, 220.0, 280.0, 340.0]),
        ([freezes(30.0, 100.0), freezes(40.0, 110.0)], [180.0, 240.0, 300.0, 360.0]),
        # Another speed counts when the machine thaws.
        ([freezes(30.0, 100.0), slows(40.0, 0.5)], [190.0, 310.0, 430.0, 550.0]),
        ([slows(30.0, 0.5), freezes(40.0, 100.0)], [190.0, 310.0, 430.0, 550.0]),
        # At speed 0 it stands still, and goes on from there.
        ([slows(30.0, 0.0), slows(130.0, 1.0)], [160.0, 220.0, 280.0, 340.0]),
        ([slows(30.0, 0.0), freezes(40.0, 10.0), slows(130.0, 2.0)], [145.0, 175.0, 205.0, 235.0]),
    ],
)
def test_a_machine_that_stands_still_goes_on_where_it_stood(changes, ends_s):
    played = struck(*changes)
    assert played.figures["status"] == "finished"
    assert reported_s(played) == ends_s


def test_a_frozen_machine_that_leaves_takes_its_freeze_with_it():
    """A new machine of the same name is not frozen, neither then nor when the freeze would end."""
    back = [Change(50.0, "m0", "leaves"), Change(50.0, "m0", "arrives", speed=1.0)]
    quick = replace(ONE, policy=Policy(lease_s=10.0, second_copy=0.0))
    undisturbed = reported_s(struck(*back, scenario=quick))
    assert undisturbed[0] == 110.0
    frozen = struck(freezes(30.0, 50.0), *back, scenario=quick)
    # The other trials are first in the queue.
    assert reported_s(frozen) == undisturbed
    assert frozen.figures["faults"] == {"lost": 1}
    assert frozen.figures["waste"]["frozen"] == pytest.approx(20.0 / 290.0, abs=1e-3)


def test_saving_beside_the_next_trial_stands_still_as_well():
    async def main():
        loop, pace = virtual_loop(), Pace(0.0)
        loop.call_later(10.0, pace.freeze, 100.0)
        loop.call_later(20.0, pace.stop)
        await pace.store(30.0)
        return loop.now_s

    # 10 s, frozen to the hundredth, 20 s; neither the speed nor the end of the training matters.
    assert run(main()) == 120.0


# -- where the time goes --------------------------------------------------------------------------


def test_frozen_time_is_not_useful():
    figures = struck(freezes(30.0, 120.0)).figures
    assert figures["goodput"] == pytest.approx(240 / 360, abs=1e-4)
    assert figures["waste"] == {"frozen": pytest.approx(120 / 360, abs=1e-4), "idle": 0.0}
    figures = struck(slows(30.0, 0.0), slows(150.0, 1.0)).figures
    assert figures["waste"]["frozen"] == pytest.approx(120 / 360, abs=1e-4)


def test_time_in_which_a_worker_stores_and_trains_is_counted_once():
    """Storing takes half a trial; from the fourth trial on it overlaps with the next trial."""
    scenario = replace(
        ONE, population=8, steps=4, durations=Durations(60.0, 0.0, save_s=30.0, beside=True)
    )
    played = simulate(scenario)
    assert played.figures["status"] == "finished"
    # The first three are stored alone, and the last one of each step: no other trial is there.
    assert played.ledger.paid_s == pytest.approx(32 * 60.0 + 7 * 30.0, abs=1.0)
    assert played.figures["goodput"] == pytest.approx(1.0, abs=1e-3)
    assert 0.0 <= played.figures["losing_branches"] <= 1.0


MACHINES = st.sampled_from(["m0", "m1", "m2"])
CHANGES = st.lists(
    st.one_of(
        st.builds(
            Change,
            st.floats(0.0, 900.0),
            MACHINES,
            st.just("arrives"),
            speed=st.sampled_from([None, 0.25, 1.0]),
        ),
        st.builds(Change, st.floats(0.0, 900.0), MACHINES, st.just("leaves")),
        st.builds(
            Change,
            st.floats(0.0, 900.0),
            MACHINES,
            st.sampled_from(["freezes", "notice"]),
            seconds=st.floats(0.0, 200.0),
        ),
        st.builds(
            Change,
            st.floats(0.0, 900.0),
            MACHINES,
            st.just("slows"),
            speed=st.sampled_from([0.0, 0.1, 3.0]),
        ),
    ),
    max_size=12,
)
SCENARIOS = st.builds(
    Scenario,
    changes=CHANGES.map(
        lambda changes: [
            Change(0.0, "m0", "arrives"),
            Change(0.0, "m1", "arrives"),
            *sorted(changes, key=lambda change: change.at_s),
        ]
    ),
    population=st.integers(4, 6),
    steps=st.integers(1, 4),
    durations=st.builds(
        Durations,
        st.just(60.0),
        st.sampled_from([0.0, 0.8]),
        load_s=st.sampled_from([0.0, 5.0]),
        save_s=st.sampled_from([0.0, 50.0]),
        beside=st.booleans(),
    ),
    policy=st.builds(
        Policy,
        lease_s=st.sampled_from([20.0, 300.0]),
        second_copy=st.sampled_from([0.0, 1.2]),
        broker_s=st.sampled_from([None, 2.0]),
    ),
    latency_s=st.sampled_from([0.0, 0.1]),
    until_s=st.just(1500.0),
    seed=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(SCENARIOS)
def test_every_second_that_is_paid_for_is_counted_once(scenario):
    played = simulate(scenario)
    ledger = played.ledger
    assert (played.figures["broken"], played.figures["invariants_broken"]) == ("", 0)
    assert min(ledger.useful_s, *ledger.waste_s.values()) >= 0.0
    counted_s = ledger.useful_s + sum(ledger.waste_s.values())
    assert counted_s == pytest.approx(ledger.paid_s, abs=1e-6)


# -- how long a trial takes -----------------------------------------------------------------------


def test_a_trial_takes_as_long_wherever_and_however_often_it_is_done():
    varied = replace(
        ONE, changes=FOUR, population=8, steps=4, durations=Durations(60.0, 0.8), policy=Policy()
    )
    first = {line.trial: line.seconds for line in lines(simulate(varied), TrialReported)}
    # One machine is lost: its trial is repeated, and later trials run on other machines.
    again = struck(Change(20.0, "m2", "leaves"), scenario=replace(varied, steps=4))
    second = {line.trial: line.seconds for line in lines(again, TrialReported)}
    assert again.figures["retried"] >= 1
    assert max(first.values()) > 4 * min(first.values())
    # Workers' clocks are up to 1 % wrong.
    assert second == {trial: pytest.approx(seconds, rel=0.021) for trial, seconds in first.items()}


def test_a_second_copy_is_faster_only_where_its_machine_is():
    """If all machines have the same speed, second copies of long trials come too late."""
    varied = replace(
        ONE,
        changes=[Change(0.0, f"m{i}", "arrives", speed=1.0) for i in range(8)],
        steps=8,
        durations=Durations(60.0, 0.8),
        policy=Policy(second_copy=1.2),
    )
    played = simulate(varied)
    second = {(line.trial, line.attempt) for line in lines(played, SecondCopyStarted)}
    assert len(second) >= 3
    accepted = {(line.trial, line.attempt) for line in lines(played, TrialReported)}
    assert not second & accepted


# -- what is checked ------------------------------------------------------------------------------


def test_a_lease_that_a_simulation_leaves_behind_is_found(monkeypatch):
    async def sweep(self, name, actor, idle_ms, count, worker=None, version=""):
        return []

    # A second copy takes the place of the trial that went with its machine.
    scenario = replace(ONE, changes=FOUR, policy=Policy(second_copy=1.5), steps=4)
    monkeypatch.setattr(MemoryStore, "sweep", sweep)
    played = struck(Change(70.0, "m0", "leaves"), scenario=scenario)
    assert played.figures["reported"] == 16
    assert (played.figures["status"], played.figures["broken"]) == (
        "broken",
        "1 entries are left in trials",
    )


def test_a_worker_that_loses_a_trial_without_a_fault_is_found(monkeypatch):
    async def beat(self):
        return None

    scenario = replace(ONE, changes=FOUR, policy=Policy(lease_s=20.0), until_s=300.0)
    monkeypatch.setattr(Attempt, "_beat", beat)
    figures = simulate(scenario).figures
    assert figures["status"] == "broken"
    assert "and nothing had been done to it" in figures["broken"]


def test_messages_that_take_as_long_as_leases_excuse_what_they_do():
    slow = replace(ONE, changes=FOUR, policy=Policy(lease_s=5.0), latency_s=2.0, until_s=300.0)
    figures = simulate(slow).figures
    assert figures["faults"]["lost"] > 0
    assert figures["broken"] == ""


@pytest.mark.parametrize("broker_s", [0.0, 0.0004])
def test_a_connection_that_is_noticed_at_once_excuses_what_left(broker_s):
    policy = Policy(lease_s=100.0, broker_s=broker_s)
    scenario = replace(ONE, changes=FOUR, steps=3, policy=policy)
    played = struck(Change(90.0003, "m1", "leaves"), scenario=scenario)
    assert (played.figures["broken"], played.figures["faults"]) == ("", {"lost": 1})


@pytest.mark.parametrize("seed", range(3))
def test_the_last_report_of_a_warned_machine_may_come_too_late(seed):
    changes = [*FOUR, *(Change(100.0, f"m{i}", "notice", seconds=120.0) for i in range(3))]
    scenario = replace(ONE, changes=changes, steps=4, latency_s=5.0, seed=seed)
    played = simulate(replace(scenario, policy=replace(PATIENT, lease_s=900.0)))
    assert played.figures["broken"] == ""


def test_an_attempt_that_another_one_outran_is_a_copy_though_it_was_frozen_when_its_lease_ended():
    policy = Policy(lease_s=100.0, second_copy=1.5)
    slow = [slows(61.0, 0.05), freezes(190.0, 600.0)]
    scenario = replace(ONE, changes=[*FOUR, *slow], steps=3, policy=policy)
    waste = simulate(scenario).figures["waste"]
    assert waste.get("copies", 0.0) > 0.0
    assert "stale" not in waste


def test_a_first_trial_loads_no_checkpoint():
    loading = replace(ONE, durations=Durations(60.0, 0.0, load_s=30.0))
    assert reported_s(simulate(loading)) == [60.0, 120.0, 180.0, 240.0]


def test_a_stream_is_the_cores_own_whatever_was_drawn_before():
    streams = Streams()
    for seed in (0, 7, 2**31 - 1, 7, 2**64 + 3, 2**100):
        for purpose in (0, 1):
            drawn, expected = streams.begin(seed, purpose), generator(seed, 0, 0, purpose)
            assert drawn.lognormal(0.0, 0.3) == expected.lognormal(0.0, 0.3)
            assert list(drawn.random(3)) == list(expected.random(3))
            # Half of a 64-bit word is kept for the next time.
            assert drawn.integers(9, dtype="uint32") == expected.integers(9, dtype="uint32")
