"""Random faults in virtual time break no invariant, and all planted bugs are found."""

import asyncio
import inspect
import json
import os
import re
from dataclasses import replace

import pytest

from romul_actors.actor import garbage as garbage_module
from romul_actors.actor import loop as actor_module
from romul_actors.core import decide as decide_module
from romul_actors.core import dispatch as dispatch_module
from romul_actors.core import membership as membership_module
from romul_actors.core import reports as reports_module
from romul_actors.store.memory import MemoryStore
from romul_sim.chaos.run import ChaosCluster, play
from romul_sim.chaos.schedule import KINDS, Chaos, draw, from_json, shrink, to_json
from romul_sim.cluster.invariants import Excuses
from romul_sim.cluster.network import WatchedStore
from romul_sim.cluster.virtual_time import run, virtual_loop
from romul_sim.faults import Fault
from romul_workers.worker.attempt import Attempt
from romul_workers.worker.overlap import Overlap
from romul_workers.worker.reporting import Reporter
from tests.conftest import romul, romul_anew

SEEDS = 100


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.long(30)
@pytest.mark.timeout(600)
def test_a_hundred_schedules_break_nothing(tmp_path):
    done = romul("chaos", f"--seeds={SEEDS}", "--json", f"--out={tmp_path}")
    output = json.loads(done.stdout)
    assert (done.returncode, output["broken"]) == (0, [])
    assert (output["seeds"], output["faults"]) == (SEEDS, 25 * SEEDS)
    assert output["trials"] >= 48 * SEEDS
    # The test would prove nothing if nothing had happened.
    assert {"lost", "preempted", "missing"} <= output["causes"].keys()


@pytest.mark.long(5)
def test_with_second_leases_nothing_breaks_either(monkeypatch):
    """Checkpoints take longer to store than a lease or the grace period."""
    serve, beside = Overlap.serve, []

    async def counted(self, attempt, serving):
        if self.busy:
            beside.append(attempt.trial.id)
        await serve(self, attempt, serving)

    monkeypatch.setattr(Overlap, "serve", counted)
    endured = [play(draw(seed), overlap=True) for seed in range(8)]
    assert [outcome.violation for outcome in endured] == [""] * 8
    assert sum(outcome.trials for outcome in endured) >= 48 * 8
    assert len(beside) > 80


def test_the_same_seed_is_the_same_history_in_any_process(tmp_path):
    file = tmp_path / "chaos.json"
    file.write_text(to_json(draw(11)))
    here = play(draw(11)).history_sha256
    for seed in ("0", "77"):
        done = romul_anew("chaos", f"--replay={file}", "--json", PYTHONHASHSEED=seed)
        assert json.loads(done.stdout) == {"violation": "", "sha256": here}
    assert play(draw(12)).history_sha256 != here


def test_a_schedule_holds_all_kinds_and_survives_its_file():
    kinds = {fault.kind for seed in range(10) for fault in draw(seed).faults}
    assert kinds == set(KINDS)
    assert from_json(to_json(draw(3))) == draw(3)


KILL = {"at_s": 1, "kind": "kill machine", "pick": 0.5, "for_s": 1.0}


@pytest.mark.parametrize(
    ("fault", "content", "message"),
    [
        ({"kind": "kill machin"}, {}, "faults.0.kind: 'kill machin' is no kind of fault: did you"),
        ({"kind": "kill worker"}, {}, "faults.0.kind: 'kill worker' is no kind of fault"),
        ({"at": 1}, {}, "faults.0.at: no such key: did you mean 'at_s'?"),
        ({"pick": 1}, {}, "faults.0.pick: 1 is not below 1.0"),
        ({"for_s": float("nan")}, {}, "faults.0.for_s: nan is"),
        ({"at_s": "1"}, {}, "faults.0.at_s: '1' is not a number"),
        ({"at_s": True}, {}, "faults.0.at_s: True is not a number"),
        ({}, {"machine": 3}, "machine: no such key: did you mean 'machines'?"),
        ({}, {"zones": 0}, "zones: 0 is below 1"),
        ({}, {"steps": 1.5}, "steps: 1.5 is not a whole number"),
        ({}, {"seed": -1}, "seed: -1 is below 0"),
    ],
)
def test_a_schedule_with_what_cannot_be_is_refused(tmp_path, fault, content, message):
    chaos = {"seed": 1, "faults": [{**KILL, **fault}], **content}
    with pytest.raises(ValueError, match=f"^not a simulation: {re.escape(message)}"):
        from_json(json.dumps(chaos))
    file = tmp_path / "chaos.json"
    file.write_text(json.dumps(chaos))
    done = romul("chaos", f"--replay={file}")
    assert (done.returncode, done.stdout) == (2, "")
    assert message.partition(":")[0] in done.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 30_000, '{"faults": [{"at": 1}]}'])
def test_a_file_that_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="not a simulation"):
        from_json(text)


def test_a_schedule_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "chaos.json"
    file.write_bytes(b"\xff")
    done = romul("chaos", f"--replay={file}")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


@pytest.mark.parametrize("option", ["--seeds=7", "--first=1", "--faults=50"])
def test_what_is_drawn_cannot_be_asked_for_with_a_schedule(tmp_path, option):
    file = tmp_path / "chaos.json"
    file.write_text(json.dumps({"seed": 1, "faults": []}))
    done = romul("chaos", f"--replay={file}", option)
    assert (done.returncode, done.stdout) == (2, "")
    said = " ".join(done.stderr.replace("\u2502", "").split())
    assert "--replay runs the one in the file" in said


def test_faults_of_a_file_strike_in_order_of_time():
    faults = [{**KILL, "at_s": at_s} for at_s in (5, 1)]
    read = from_json(json.dumps({"seed": 1, "faults": faults}))
    assert read == Chaos(
        1, (Fault(1.0, "kill machine", 0.5, 1.0), Fault(5.0, "kill machine", 0.5, 1.0))
    )


# -- the known ways to build it wrong -------------------------------------------------------------


def no_fencing(patch):
    def counts(population, event):
        return 0 <= event.slot < len(population.slots) and (
            population.slots[event.slot].status == "queued"
        )

    patch.setattr(decide_module, "_counts", counts)


def acknowledged_before_the_commit(patch):
    read = MemoryStore.read

    async def forgetful(self, names, actor, count, block_ms):
        entries = await read(self, names, actor, count, block_ms)
        for entry in entries:
            self.memory.queue(entry.experiment, "inbox").pending.pop(int(entry.id), None)
        return entries

    async def trusting(self, name, actor, commit):
        return await commit_anything(self, name, actor, replace(commit, entries=[]))

    commit_anything = MemoryStore.commit
    patch.setattr(MemoryStore, "read", forgetful)
    patch.setattr(MemoryStore, "commit", trusting)


def forgotten_to_queue_again(patch):
    def retry(transition, slot):
        transition.count(retried=1)
        attempt = slot.attempt + 1
        transition.change_slot(slot, status="queued", attempt=attempt, live_attempts=(attempt,))

    patch.setattr(reports_module, "retry", retry)


def never_acknowledged(patch):
    commit_whole = MemoryStore.commit

    async def keeps(self, name, actor, commit):
        return await commit_whole(self, name, actor, replace(commit, entries=[]))

    patch.setattr(MemoryStore, "commit", keeps)


def needed_checkpoints_removed(patch):
    patch.setattr(garbage_module, "needed", lambda slot: {slot.checkpoint} - {None})


def best_checkpoint_removed(patch):
    patch.setattr(garbage_module, "_best", lambda population: set())


def no_heartbeat(patch):
    async def beat(self):
        return None

    patch.setattr(Attempt, "_beat", beat)


def commits_on_any_version(patch):
    commit_checked = MemoryStore.commit

    async def careless(self, name, actor, commit):
        if name not in self.memory.experiments:
            return None
        return await commit_checked(
            self, name, actor, replace(commit, version=self.memory.experiments[name].token)
        )

    patch.setattr(MemoryStore, "commit", careless)


def versions_that_come_again(patch):
    commit_named = MemoryStore.commit

    async def nameless(self, name, actor, commit):
        return await commit_named(self, name, actor, replace(commit, nonce=""))

    patch.setattr(MemoryStore, "commit", nameless)


def leases_never_swept(patch):
    async def sweep(self, name, actor, idle_ms, count, worker=None, version=""):
        return []

    patch.setattr(MemoryStore, "sweep", sweep)


def dead_actors_entries_left(patch):
    async def take_over(self, name, actor, idle_ms, count):
        return []

    patch.setattr(MemoryStore, "take_over", take_over)


def no_second_attempts(patch):
    patch.setattr(membership_module, "overdue", lambda slots, at_ms, limit_ms: [])


def never_reconciled(patch):
    # A second attempt would take the place of the one that is missing.
    no_second_attempts(patch)
    patch.setattr(actor_module, "missing_attempts", lambda population, outstanding: [])


def partial_checkpoint_taken_for_the_start(patch):
    dispatch = dispatch_module.dispatch

    def forgets(transition, slot):
        start = slot.step * transition.settings.budget
        return dispatch(transition, replace(slot, position=start))

    patch.setattr(dispatch_module, "dispatch", forgets)


def drained_worker_says_nothing(patch):
    settle = Reporter._settle

    async def silent(self, attempt, report, hold):
        if report.type == "released":
            return True
        return await settle(self, attempt, report, hold)

    patch.setattr(Reporter, "_settle", silent)


def random_numbers_from_the_clock(patch):
    patch.setattr(dispatch_module, "training_seed", lambda *_: int.from_bytes(os.urandom(3)))


MUTANTS = [
    no_fencing,
    acknowledged_before_the_commit,
    forgotten_to_queue_again,
    never_acknowledged,
    needed_checkpoints_removed,
    best_checkpoint_removed,
    no_heartbeat,
    commits_on_any_version,
    versions_that_come_again,
    leases_never_swept,
    dead_actors_entries_left,
    never_reconciled,
    partial_checkpoint_taken_for_the_start,
    drained_worker_says_nothing,
]
# It is rarely harmful among other faults, so it is tested without them.
ALONE = {versions_that_come_again: "store loses writes"}


def schedule(seed, mutant):
    drawn = draw(seed)
    if mutant not in ALONE:
        return drawn
    return replace(drawn, faults=tuple(replace(f, kind=ALONE[mutant]) for f in drawn.faults))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_known_bug_is_found(mutant, monkeypatch):
    mutant(monkeypatch)
    schedules = (schedule(seed, mutant) for seed in range(SEEDS))
    assert any(play(chaos).violation for chaos in schedules)


@pytest.mark.parametrize("mutant", ALONE, ids=lambda mutant: mutant.__name__)
def test_one_kind_of_fault_alone_breaks_nothing_without_the_bug(mutant):
    assert [play(schedule(seed, mutant)).violation for seed in range(2)] == [""] * 2


def test_without_second_attempts_nothing_breaks_either(monkeypatch):
    """The patches of `never_reconciled` other than its bug are harmless."""
    no_second_attempts(monkeypatch)
    assert [play(draw(seed)).violation for seed in range(4)] == [""] * 4


def test_randomness_from_outside_is_found(monkeypatch):
    random_numbers_from_the_clock(monkeypatch)
    assert play(draw(0)).history_sha256 != play(draw(0)).history_sha256


def test_a_violation_is_shrunk_to_what_it_needs(monkeypatch):
    leases_never_swept(monkeypatch)
    found = next(draw(seed) for seed in range(20) if play(draw(seed)).violation)
    shortest = shrink(found, lambda smaller: bool(play(smaller).violation))
    assert len(shortest.faults) == 1
    assert set(shortest.faults) <= set(found.faults)


def test_one_fault_alone_does_what_it_says():
    killed = Chaos(0, (Fault(5.0, "kill machine", 0.0, 1.0),))
    outcome = play(killed)
    assert (outcome.violation, outcome.causes) == ("", {"lost": 1})
    noticed = Chaos(0, (Fault(5.0, "notice to machine", 0.0, 1.0),))
    outcome = play(noticed)
    assert (outcome.violation, outcome.causes) == ("", {"preempted": 1})
    calm = play(Chaos(0, ()))
    assert (calm.violation, calm.causes) == ("", {})


# -- what a fault excuses -------------------------------------------------------------------------


def test_a_fault_excuses_what_is_lost_while_it_strikes_and_nothing_later():
    excuses = Excuses()
    excuses.strike(10.0, 20.0, "a")
    excuses.strike(50.0, 50.0)
    assert excuses.cover("a", 5.0, 12.0)
    assert excuses.cover("a", 12.0, 30.0)
    assert not excuses.cover("a", 21.0, 40.0)
    assert not excuses.cover("b", 5.0, 30.0)
    # All of them.
    assert excuses.cover("b", 45.0, 55.0)
    assert Excuses(everything=True).cover("a", 0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "pick"),
    [
        ("store away", 0.0),
        ("store loses writes", 0.0),
        ("lossy network", 0.0),
        ("freeze machine", 0.5),
        ("crash actor", 0.5),
    ],
)
def test_a_worker_that_loses_a_trial_long_after_a_fault_is_found(kind, pick, monkeypatch):
    """Heartbeats stop after the first minute, whichever fault occurred before."""
    beat = Attempt._beat

    async def ends(self):
        return await beat(self) if virtual_loop().now_s < 60.0 else None

    calm = Chaos(0, (Fault(5.0, kind, pick, 1.0),))
    assert play(calm).violation == ""
    monkeypatch.setattr(Attempt, "_beat", ends)
    assert "and nothing had been done to it" in play(calm).violation


def test_a_trial_that_is_missing_though_it_began_after_the_loss_is_found(monkeypatch):
    """A commit after the first minute forgets a trial."""
    commit_whole = MemoryStore.commit
    forgotten: list[str] = []

    async def forgets(self, name, actor, commit):
        if not commit.trials or forgotten or virtual_loop().now_s < 60.0:
            return await commit_whole(self, name, actor, commit)
        careless = replace(commit, trials=[], parents=[])
        committed = await commit_whole(self, name, actor, careless)
        if committed is not None:
            forgotten.append(name)
        return committed

    lost = Chaos(0, (Fault(5.0, "store loses trial", 0.0, 0.0),))
    assert (play(lost).violation, play(lost).causes) == ("", {"missing": 1})
    monkeypatch.setattr(MemoryStore, "commit", forgets)
    assert "was in no queue" in play(lost).violation


# -- faults that overlap --------------------------------------------------------------------------


class Timed(ChaosCluster):
    """Records the times of all lines of history."""

    def __init__(self, *faults):
        super().__init__(Chaos(0, faults))
        self.at_s = []

    def on_line(self, name, line):
        super().on_line(name, line)
        self.at_s.append(virtual_loop().now_s)

    def silent(self, begin_s, end_s):
        """Whether nothing was decided between two times, but something soon after."""
        between = [at_s for at_s in self.at_s if begin_s < at_s < end_s]
        return not between and any(end_s <= at_s < end_s + 25.0 for at_s in self.at_s)


def test_of_two_faults_at_a_time_the_longer_one_lasts():
    for first, second in ((25.0, 1.0), (2.0, 23.0)):
        cluster = Timed(Fault(5.0, "store away", 0.0, first), Fault(6.0, "store away", 0.0, second))
        assert run(cluster.play()).violation == ""
        assert cluster.silent(5.1, 29.0)


@pytest.mark.parametrize("second", ["freeze machine", "slow machine"])
def test_a_frozen_machine_trains_nothing_until_its_freeze_ends(second):
    """This holds for any second fault meanwhile."""

    class Frozen(Timed):
        def inflict(self, fault):
            super().inflict(fault)
            working = asyncio.create_task(self.workers[0].pace.work(1.0))
            working.add_done_callback(lambda _: ends_s.append(virtual_loop().now_s))

    ends_s: list[float] = []
    # A machine is frozen for three times as long.
    frozen = Frozen(Fault(5.0, "freeze machine", 0.0, 9.0), Fault(6.0, second, 0.0, 1.0))
    assert run(frozen.play()).violation == ""
    assert len(ends_s) == 2
    assert min(ends_s) > 32.0


def test_the_modules_are_what_the_mutants_think():
    # A mutant with a different signature would be found for the wrong reason.
    assert inspect.iscoroutinefunction(MemoryStore.sweep)
    assert inspect.iscoroutinefunction(Attempt._beat)


def test_a_store_that_went_back_does_not_come_to_what_it_has_lost():
    async def main():
        store = WatchedStore({}, lambda _name, _line: None)
        for second in range(11):
            store.memory.experiments = {}
            store.keep()
            await asyncio.sleep(1.0 if second < 10 else 0.0)
        store.lose(5.0)
        return [kept[0] for kept in store._kept]

    assert run(main()) == [1000 * second for second in range(6)]
