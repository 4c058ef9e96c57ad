"""The drill's own judgement: an audit that cannot fail would prove nothing."""

import json
from dataclasses import replace

import pytest

from romul_actors.core.history import TrialCreated, TrialReported
from romul_actors.errors import ExperimentExistsError, RomulError, StoreUnavailableError
from romul_sim.drill import injector as drill_injector
from romul_sim.drill import run as drill_run
from romul_sim.drill.audit import audit
from romul_sim.drill.injector import FaultInjector
from romul_sim.drill.processes import Processes, Services
from romul_sim.drill.schedule import FAULTS, draw, read_schedule, write_schedule
from romul_sim.faults import Fault
from romul_workers.checkpoints.storage import Checkpoints
from tests.trials import declare
from tests.unit.harness import Run, population

EMPTY = {"trials": 0, "inbox": 0, "history": 0, "dead": 0}


@pytest.fixture
def ended(tmp_path):
    """The data of a successful search for `audit`."""
    run = Run(population(n_slots=4, steps=3, seed=1)).start()
    run.to_the_end(lambda trial: float(trial.slot + trial.step))
    best = run.population.best.checkpoint
    place = Checkpoints(str(tmp_path / "checkpoints"), tmp_path)
    folder = place.begin("0-0-1-abc")
    (folder / "state.json").write_text(json.dumps([0.0, 0.0, 20]))
    place.publish(folder, best)
    return {
        "experiment": declare(population=4, steps=3, budget=20),
        "population": run.population,
        "history": list(run.history),
        "depths": EMPTY,
        "checkpoints": place,
    }


def test_a_run_that_went_well_passes(ended):
    verdict = audit(**ended)
    assert (verdict.trials, verdict.lost, verdict.doubled, verdict.broken) == (12, 0, 0, [])
    assert verdict.completed


def without(lines, kind, trial):
    return [line for line in lines if not (isinstance(line, kind) and line.trial == trial)]


def test_a_lost_result_is_seen(ended):
    ended["history"] = without(ended["history"], TrialReported, "2-1")
    verdict = audit(**ended)
    assert verdict.lost == 1
    assert any("count of results" in text for text in verdict.broken)


@pytest.mark.parametrize("kind", [TrialCreated, TrialReported])
def test_what_was_done_twice_is_seen(ended, kind):
    twice = [line for line in ended["history"] if isinstance(line, kind)][:1]
    assert twice
    ended["history"] = ended["history"] + twice
    assert audit(**ended).doubled == 1


def test_a_parent_that_never_ended_well_is_seen(ended):
    child = next(x for x in ended["history"] if isinstance(x, TrialCreated) and x.parent)
    ended["history"] = without(ended["history"], TrialReported, child.parent)
    found = audit(**ended).broken
    assert f"e: {child.trial}: its parent never ended well" in found


def test_a_queue_that_is_not_empty_is_seen(ended):
    assert "queues" in audit(**{**ended, "depths": {**EMPTY, "trials": 1}}).broken[0]


def test_a_search_that_did_not_end_is_seen(ended):
    run = Run(population(n_slots=4, steps=3)).start()
    verdict = audit(**{**ended, "population": run.population})
    assert not verdict.completed
    assert verdict.broken


def test_a_best_checkpoint_that_is_gone_damaged_or_wrong_is_seen(ended, tmp_path):
    folder = tmp_path / "checkpoints" / ended["population"].best.checkpoint
    state = folder / "state.json"
    good = state.read_text()
    state.write_text(good.replace("20", "21"))
    assert "damaged" in audit(**ended).broken[0]
    state.unlink()
    assert "gone" in audit(**ended).broken[0]
    place = ended["checkpoints"]
    place.delete(folder.name)
    folder = place.begin("0-0-1-abc")
    (folder / "state.json").write_text(json.dumps([0.0, 0.0, 19]))
    place.publish(folder, ended["population"].best.checkpoint)
    assert "holds 19 updates" in audit(**ended).broken[0]


def test_a_best_that_is_not_the_best_is_seen(ended):
    ended["history"] = [
        replace(line, value=-1.0)
        if isinstance(line, TrialReported) and line.trial == "3-2"
        else line
        for line in ended["history"]
    ]
    assert any("not the lowest" in text for text in audit(**ended).broken)


def test_a_schedule_is_fixed_by_its_seed_and_holds_every_kind(tmp_path):
    faults = draw(40, 0.5, 3)
    assert faults == draw(40, 0.5, 3) != draw(40, 0.5, 4)
    assert {fault.kind for fault in faults} == set(FAULTS)
    assert len(faults) == 40
    write_schedule(tmp_path / "s.jsonl", faults)
    assert read_schedule(tmp_path / "s.jsonl") == faults
    assert len(draw(3, 0.5, 0)) == 3


def fault_line(**wrong):
    return json.dumps({"at_s": 1, "kind": "kill worker", "pick": 0, "for_s": 1, **wrong})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "s.jsonl:1: not a fault"),
        pytest.param("[" * 20_000, "s.jsonl:1: not a fault", id="deep"),
        ('{"at_s": 1}', "not a fault: kind: required, but not given"),
        (fault_line(kind="hug worker"), "kind: 'hug worker' is no kind of fault: did you mean"),
        (fault_line(at_s="soon"), "at_s: 'soon' is not a number"),
        (fault_line(for_s=-1), "for_s: -1"),
        (fault_line(pick=1), "pick: 1"),
    ],
)
def test_a_schedule_that_is_none_is_refused(tmp_path, line, message):
    (tmp_path / "s.jsonl").write_text(line)
    with pytest.raises(RomulError, match=message):
        read_schedule(tmp_path / "s.jsonl")


def test_faults_are_values():
    assert Fault(1.0, "kill worker", 0.5, 1.0) == Fault(1.0, "kill worker", 0.5, 1.0)


class Scripted(FaultInjector):
    """Its faults find a victim after a number of tries; records what was tried."""

    def __init__(self, folder, tries):
        nothing = Processes(folder, {}, {})
        super().__init__(folder, Services(folder), nothing, can_fill=False)
        self._tries = iter(tries)
        self.struck = []

    async def inflict(self, fault):
        self.struck.append(fault.kind)
        return next(self._tries)


async def test_a_fault_waits_for_its_victim_and_is_given_up_only_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(drill_injector, "RESTART_S", 0.001)
    faults = [Fault(0.0, "damage checkpoint", 0.5, 1.0), Fault(0.01, "kill actor", 0.5, 1.0)]
    patient = Scripted(tmp_path, [False] * 40 + [True, True])
    await patient.play(faults)
    assert (sum(patient.played.values()), patient.skipped) == (2, {})
    assert patient.struck == ["damage checkpoint"] * 41 + ["kill actor"]
    monkeypatch.setattr(drill_injector, "PATIENCE_S", 0.0)
    given_up = Scripted(tmp_path, [False, True])
    await given_up.play(faults)
    assert (given_up.played, given_up.skipped) == ({"kill actor": 1}, {"damage checkpoint": 1})


async def test_a_fault_that_this_machine_cannot_have_is_skipped_at_once(tmp_path):
    faults = [Fault(0.0, kind, 0.5, 1.0) for kind in ("fill disk", "kill broker", "kill server")]
    injector = Scripted(tmp_path, [True])
    await injector.play(faults)
    assert injector.struck == ["kill server"]
    assert injector.skipped == {"fill disk": 1, "kill broker": 1}


async def test_a_submission_is_repeated_until_the_server_has_it(monkeypatch):
    async def at_once(_):
        pass

    class Server:
        """Fails first, then accepts a submission but loses its answer, and refuses a second one."""

        calls = 0

        async def submit(self):
            self.calls += 1
            if self.calls < 3:
                raise StoreUnavailableError("'tiny exists already' is no reason")
            raise ExperimentExistsError("there is one")

    monkeypatch.setattr("romul_sim.drill.run.asyncio.sleep", at_once)
    server = Server()
    await drill_run._patiently(server.submit)
    assert server.calls == 3
