"""Alarms for the operator are the same in `top`, `doctor`, `show` and the dashboard."""

import json
from dataclasses import replace

import pytest

from romul_actors.core.events import Control, Expired
from romul_actors.dashboard.page import alarm
from romul_actors.observe.alarms import BACKLOG, FEW_LOST, FEW_SLOTS, UNDECIDED_S, Finding, alarms
from romul_actors.observe.snapshot import read_glance
from romul_actors.protocol.messages import encode
from romul_actors.protocol.statuses import ENDED
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster.virtual_time import run
from tests.trials import declare

LEASE_S = 30.0


def seen(workers=(), depths=(), task="toys", undecided_s=0.0, waiting=(b"x",), **meta):
    """An experiment with these workers, as (state, age in leases)."""

    async def main():
        store = MemoryStore()
        await store.create(
            "e", declare(task=task, checkpoints="memory://x").model_dump_json(), b"x"
        )
        store.memory.experiments["e"].meta.update({"status": "running", **meta})
        glance = await store.glance("e")
        now_ms = 10**12
        glance = replace(
            glance,
            now_ms=now_ms,
            depths={**glance.depths, "inbox": 0, **dict(depths)},
            undecided=[(now_ms - int(1000 * undecided_s), body) for body in waiting],
            workers={
                f"w{i}": {"state": state, "why": "why not", "age_ms": int(1000 * LEASE_S * leases)}
                for i, (state, leases) in enumerate(workers)
            },
        )
        return read_glance(glance)

    return run(main())


def found(*args, holders=(), **more):
    return [(one.level, one.what) for one in alarms(seen(*args, **more), holders)]


def test_a_search_with_workers_has_none():
    assert found([("idle", 0.1), ("training", 0.1)]) == []
    assert found([("idle", 0.1)], status="finished") == []


@pytest.mark.parametrize("status", ["running", "paused"])
def test_a_search_that_is_paused_lacks_workers_too(status):
    assert found(status=status) == [("warning", "no worker is alive")]


def test_workers_without_room_and_failing_ones_are_named():
    states = [("no room", 0.1), *[("failing", 0.1)] * 5, ("no storage", 0.1)]
    assert found(states) == [
        ("warning", "no room for checkpoints on workers: w0"),
        ("warning", "the storage for checkpoints refuses or does not answer: w6"),
        ("warning", "trials fail on these workers only: w1, w2, w3 and 2 more"),
    ]


def test_workers_that_refuse_are_a_fault_only_where_no_other_serves():
    words = "workers that do not serve it: w0: why not"
    assert found([("refuses", 0.1)])[1:] == [("warning", words)]
    assert found([("refuses", 0.1), ("idle", 0.1)]) == [("ok", words)]
    assert found([("refuses", 0.1)], status="stopped") == []


def test_a_worker_that_refuses_sends_no_heartbeats_and_is_not_silent():
    refusing = ("ok", "workers that do not serve it: w0: why not")
    assert found([("refuses", 0.7), ("idle", 0.1)]) == [refusing]
    silent = ("warning", "no heartbeat for half a lease: w1")
    assert found([("refuses", 0.7), ("idle", 0.7)]) == [refusing, silent]


def test_leases_that_have_ended_are_those_that_workers_still_have():
    workers = [("idle", 0.1), ("training", 3), ("training", 3), ("training", 0.7)]
    silent = ("warning", "no heartbeat for half a lease: w3")
    assert found(workers) == [silent]
    ended = ("warning", "leases that are overdue, but that no actor has ended: w1")
    assert found(workers, holders={"w1", "w0"}) == [silent, ended]


def test_a_full_inbox_and_dead_letters():
    most = BACKLOG * FEW_SLOTS
    idle = [("idle", 0.1)]
    assert found(idle, {"inbox": most}) == []
    waiting = f"{most + 1} events wait for a decision"
    assert found(idle, {"inbox": most + 1, "dead": 2}) == [
        ("warning", waiting),
        ("warning", "dead letters: 2"),
    ]


@pytest.mark.parametrize(("n_slots", "most"), [(1, 20), (8, 20), (24, 48)])
def test_trials_that_are_queued_again_without_end_are_seen(n_slots, most):
    def said(times, status="running"):
        causes = json.dumps({"missing": times, "lost": 500})
        return found([("idle", 0.1)], slots=str(n_slots), causes=causes, status=status)

    words = f"trials were missing from the queues {most + 1} times, and were queued again"
    assert said(most) == []
    assert said(most + 1) == said(most + 1, "paused") == [("warning", words)]
    assert said(most + 1, "finished") == []


def test_workers_that_do_not_see_each_others_checkpoints_are_asked_about():
    def said(lost, reported, status="running"):
        causes = json.dumps({"lost_parent": lost, "exception": 500})
        counts = {"causes": causes, "reported": str(reported), "status": status}
        return alarms(seen([("idle", 0.1)], **counts))

    assert said(FEW_LOST - 1, 0) == said(FEW_LOST, 10 * FEW_LOST) == []
    (finding,) = said(FEW_LOST, 10 * FEW_LOST - 1)
    assert str(finding) == (
        f"{FEW_LOST} attempts could not read the checkpoint of their parent "
        "(do all workers see the same folder at memory://x? If the server's data were restored, "
        "its checkpoints must be restored from the same time)"
    )
    # A failed search may be resumed.
    assert len(said(30, 40, "paused")) == 1
    assert "same folder" in said(30, 40, "failed")[1].remedy
    assert said(30, 40, "finished") == []


def test_a_search_without_an_actor_is_seen_by_the_age_of_its_oldest_event():
    idle, few = [("idle", 0.1)] * 8, {"inbox": 8}
    assert found(idle, few, undecided_s=UNDECIDED_S) == []
    words = "no actor has decided the oldest event for 66 s; 8 events wait"
    for status in ("running", "paused"):
        assert found(idle, few, undecided_s=66, status=status) == [("warning", words)]
    assert alarm(seen(idle, few, undecided_s=66)) == words
    # It is shown once, and not if an actor reads the inbox or nothing is undecided.
    many = found(idle, {"inbox": 1 + BACKLOG * FEW_SLOTS}, undecided_s=66)
    assert many == [("warning", words.replace("8", "101"))]
    assert found(idle, few, undecided_s=66, fault="f") == [("fault", "f")]
    assert found(idle, few, undecided_s=66, status="submitted") == [
        ("warning", "no actor has started it")
    ]
    for status in ("finished", "stopped"):
        assert found(idle, few, undecided_s=66, status=status) == []


@pytest.mark.parametrize("status", ENDED)
def test_a_request_to_a_search_that_has_ended_waits_for_an_actor_and_late_reports_do_not(status):
    extension = encode(Control(action="extend", steps=6, by="me"))
    report = encode(Expired(trial="0-0", slot=0, attempt=1, worker="w"))
    words = "no actor has decided the oldest event for 66 s; 2 events wait"

    def said(*waiting, undecided_s=66.0):
        of_all = found(
            [("idle", 0.1)], {"inbox": 2}, undecided_s=undecided_s, waiting=waiting, status=status
        )
        return [what for level, what in of_all if level == "warning"]

    assert said(report, report) == []
    assert said(extension, report) == said(report, extension) == [words]
    assert said(extension, undecided_s=UNDECIDED_S) == []


def test_faults_come_first_and_the_page_shows_the_first():
    fault = seen(fault="actor a cannot serve it")
    assert alarms(fault)[0].level == "fault"
    assert alarm(fault) == "actor a cannot serve it"
    assert alarm(seen(status="failed", reason="too many failures")) == "too many failures"
    assert alarm(seen(status="submitted")) == "no actor has started it"
    assert alarm(seen([("idle", 0.1), ("refuses", 0.1)])) == ""
    assert alarm(seen(depths={"dead": 1})) == "no worker is alive"


@pytest.mark.parametrize("status", ["paused", "stopped", "finished"])
def test_the_page_shows_first_why_a_search_does_not_run(status):
    assert alarm(seen(depths={"dead": 1}, status=status, reason="for a reason")) == "for a reason"


def test_a_remedy_names_the_folder_of_tasks_that_are_not_installed():
    (own,) = alarms(seen(task="mine"))
    assert "--allow mine --path FOLDER" in own.remedy
    (shipped,) = alarms(seen(task="romul_workers.tasks.toys"))
    assert "--path" not in shipped.remedy


def test_a_finding_is_said_with_its_remedy():
    assert str(Finding("ok", "all is well")) == "all is well"
    assert str(Finding("fault", "no server", "start it")) == "no server (start it)"
