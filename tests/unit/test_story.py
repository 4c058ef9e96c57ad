"""What a history tells: descent, reasons, waste; and the snapshots that programs get."""

import json
from dataclasses import replace

import pytest

from romul_actors.cli.history import line_in_words
from romul_actors.cli.top import Screen, sparkline
from romul_actors.core.events import Control, Expired, Failed, Released
from romul_actors.core.history import ControlIgnored, TrialCreated, from_json
from romul_actors.observe.explain import StoryError, branches, explain, in_words, root_of, waste
from romul_actors.observe.snapshot import SLOT_FIELDS, full_snapshot, read_glance, trial_rows
from romul_actors.protocol.experiment import Experiment
from romul_actors.store.memory import MemoryStore
from romul_sim import cluster as world_module
from romul_sim.churn import Change
from romul_sim.cluster import Policy, Scenario
from romul_sim.fakes import Durations
from romul_sim.virtual_time import run
from tests.unit.harness import Run, bowl, population

EXPERIMENT = Experiment.model_validate(
    {
        "name": "e",
        "task": "t",
        "steps": 9,
        "space": {n: {"type": "float", "min": 0, "max": 1} for n in ("x0", "x1")},
    }
)


@pytest.fixture(scope="module")
def seen():
    """A simulated search that lost a machine, as a program sees it."""

    class Watched(world_module._World):
        async def tell(self, ended_s):
            found.append(await full_snapshot(self.store, "search-0"))
            return await super().tell(ended_s)

    found = []
    world_module.KEEP_LINES = 100_000
    changes = [Change(0.0, f"m{i}", "arrives", speed=1.0) for i in range(4)]
    changes.append(Change(90.0, "m3", "leaves"))
    scenario = Scenario(
        changes, steps=12, durations=Durations(60.0, 0.0), policy=Policy(second_copy=0.0)
    )
    run(Watched(scenario).play())
    world_module.KEEP_LINES = 1_000
    return found[0]


def test_a_snapshot_is_plain_values_and_frames(seen):
    assert (seen.status, len(seen.slots), seen.counts["reported"]) == ("finished", 8, 96)
    best = min(line["value"] for line in seen.history if line["event"] == "result")
    assert seen.best["loss"] == best
    frame = seen.trials_frame()
    assert len(frame) == 96
    assert frame["value"].min() == best
    assert set(frame.columns) >= {"slot", "step", "parent", "h.x0", "m.true_loss", "seconds"}
    assert list(seen.slots_frame()["index"]) == list(range(8))
    assert len(seen.history_frame()) == len(seen.history)
    assert len(seen.workers_frame()) == len(seen.workers)


def test_every_trial_can_be_explained(seen):
    rules, n_copies = set(), 0
    for line in seen.history:
        if line["event"] != "trial":
            continue
        told = explain(seen.experiment, seen.history, line["trial"])
        rules.add(told["rule"])
        words = " ".join(in_words(told))
        assert f"trial {line['trial']}" in words
        assert f"rule: {told['rule']}" in words
        json.dumps(told)
        if told["copied_from"] is not None:
            assert line["parent"] == f"{told['copied_from']}-{line['step'] - 1}"
            assert f"of slot {told['copied_from']}" in words
            assert told["rule"] in ("mutated", "redrawn")
            n_copies += 1
        if told["rule"] == "mutated":
            assert {"a", "b", "best", "F1", "F2", "rank", "known", "pool"} <= told["why"].keys()
            assert len(told["why"]["base"]) == 3
        for change in told["changes"].values():
            assert ("before" in change) == (line["parent"] is not None)
    assert rules == {"drawn", "mutated", "redrawn", "kept", "held"}
    assert n_copies
    with pytest.raises(StoryError, match="9-99"):
        explain(seen.experiment, seen.history, "9-99")


@pytest.mark.parametrize(
    ("vector_of", "taken"),
    [
        (None, "the weights and hyperparameters of slot 4"),
        (4, "the weights and hyperparameters of slot 4"),
        (0, "the weights of slot 4, to search on from its own hyperparameters"),
        (2, "the weights of slot 4 and the hyperparameters of slot 2"),
    ],
)
def test_what_was_copied_is_told(vector_of, taken):
    why = {"rule": "migrated", "copied": 4, "hyperparameters_of": vector_of}
    line = {"event": "trial", "trial": "0-1", "slot": 0, "step": 1, "parent": "4-0", "at_ms": 0}
    lines = [line | {"hyperparameters": {"x0": 0.1, "x1": 0.2}, "why": why}]
    words = in_words(explain(EXPERIMENT, lines, "0-1"))
    assert f"slot 0 took {taken}: it goes on from trial 4-0" in words


def test_a_coordinate_that_was_brought_back_is_told():
    lines = [
        {
            "event": "trial",
            "trial": "0-1",
            "slot": 0,
            "step": 1,
            "parent": None,
            "at_ms": 0,
            "hyperparameters": {"x0": 0.1, "x1": 0.2},
            "why": {"rule": "explored", "crossover": [1, 0], "outside": [0]},
        }
    ]
    told = explain(EXPERIMENT, lines, "0-1")
    assert told["changes"]["x0"] == {"after": 0.1, "from": "donor", "outside": True}
    assert told["changes"]["x1"] == {"after": 0.2, "from": "base", "outside": False}
    assert any("brought back" in words for words in in_words(told))


def test_what_was_drawn_anew_or_guarded_is_told():
    why = {"rule": "redrawn", "copied": 4, "drawn": [1, 0], "outside": [], "guarded": [1]}
    line = {"event": "trial", "trial": "0-1", "slot": 0, "step": 1, "parent": "4-0", "at_ms": 0}
    lines = [line | {"hyperparameters": {"x0": 0.1, "x1": 0.2}, "why": why}]
    told = explain(EXPERIMENT, lines, "0-1")
    assert told["changes"]["x0"] == {"after": 0.1, "from": "drawn anew", "outside": False}
    assert told["changes"]["x1"] == {
        "after": 0.2,
        "from": "moved",
        "outside": False,
        "guarded": True,
    }
    words = in_words(told)
    assert "  x0 = 0.1; drawn anew" in words
    assert any(text.startswith("  x1 = 0.2; not lowered") for text in words)


def test_the_tree_of_descent_holds_every_trial_once(seen):
    roots, of = branches(seen.history)
    trials = [line for line in seen.history if line["event"] == "trial"]
    assert len(of) == len(trials)
    steps, stack = 0, list(roots)
    while stack:
        branch = stack.pop()
        steps += branch.last - branch.first + 1
        for child in branch.children:
            assert branch.first < child.first
        stack += branch.children
    assert steps == len(trials)
    for slot in range(8):
        root, own = root_of(seen.history, slot)
        assert own.slot == slot
        assert root.first == 0
        json.dumps(root.as_json())
    with pytest.raises(StoryError, match="slot 99"):
        root_of(seen.history, 99)


def test_waste_is_told_by_cause_and_worker(seen):
    told = waste(seen.history).as_json()
    assert told["attempts"] == {"lost": 1}
    # Lost at 90 s in its second trial; missed when its lease ended.
    assert 30 <= told["by_cause"]["lost"] <= 70
    assert [name.partition("-")[0] for name in told["by_worker"]] == ["m3"]
    seconds = sum(line["seconds"] for line in seen.history if line["event"] == "result")
    assert told["useful_s"] == pytest.approx(seconds, abs=0.01)


def test_waste_takes_what_workers_say_of_their_time():
    run_ = Run(population(n_slots=4, steps=3))
    run_.start()
    token = {"slot": 0, "trial": "0-0", "worker": "w"}
    run_.tell(Failed(**token, attempt=1, reason="exception", message="x", seconds=7.0))
    run_.tell(Released(**token, attempt=2, reason="preempted", seconds=3.0))
    run_.tell(Expired(**token, attempt=3))
    told = waste(run_.history)
    assert told.by_cause["exception"] == 7.0
    assert told.by_cause["preempted"] == 3.0
    assert told.attempts["lost"] == 1


def test_a_pinned_slot_goes_on_as_it_is():
    run_ = Run(population(n_slots=4, steps=6))
    run_.start()
    run_.tell(Control(action="pin", by="somebody", slot=2))
    run_.tell(Control(action="pin", by="somebody", slot=9))
    run_.to_the_end(bowl)
    lines = [x for x in run_.history if x["event"] == "trial" and x["slot"] == 2]
    assert len({tuple(line["vector"]) for line in lines}) == 1
    assert [line["parent"] for line in lines[1:]] == [f"2-{step}" for step in range(5)]
    assert [x["event"] for x in run_.history if x.get("by")] == ["pin", "ignored"]


@pytest.mark.parametrize("optimizer", ["romul", "truncation", "de", "mf_pbt", "tpe"])
def test_bounds_are_changed_in_the_middle_of_a_search(optimizer):
    run_ = Run(population(optimizer, n_slots=8, steps=12))
    run_.start()
    for _ in range(4):
        for slot in run_.queued():
            run_.tell(run_.result(slot, bowl(run_.trials[slot])))
    best = run_.population.best
    wrong = Control(action="bounds", by="me", parameter="z", low=0.0, high=1.0)
    run_.tell(wrong)
    run_.tell(replace(wrong, parameter="x", low=0.5, high=0.5))
    run_.tell(replace(wrong, parameter="x", low=0.25, high=0.5))
    first = len(run_.history)
    run_.to_the_end(bowl)
    lines = [x for x in run_.history[first:] if x["event"] == "trial"]
    assert all(0.25 <= x["hyperparameters"]["x"] <= 0.5 for x in lines)
    told = [(x["event"], x.get("why", "")) for x in run_.history if x.get("by")]
    assert [event for event, _ in told] == ["ignored", "ignored", "bounds"]
    assert "z: not in the space" in told[0][1]
    assert "not below" in told[1][1]
    assert run_.population.best.loss <= best.loss


def test_rows_of_trials_hold_failures_too():
    rows = trial_rows(
        [
            {
                "event": "trial",
                "trial": "0-0",
                "slot": 0,
                "step": 0,
                "parent": None,
                "at_ms": 5,
                "why": {},
                "hyperparameters": {"x": 1},
            },
            {"event": "failed", "trial": "0-0", "again": True, "reason": "lost", "at_ms": 6},
            {"event": "failed", "trial": "0-0", "again": False, "reason": "exception", "at_ms": 7},
        ]
    )
    assert [(r["failed"], r["ended_ms"], r["value"], r["h.x"]) for r in rows] == [
        ("exception", 7, None, 1)
    ]


def test_lines_and_sparks_are_short():
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([1e-6, 1e-3, 1.0]) in ("▁▄█", "▁▅█")
    line = from_json(
        {"event": "failed", "at_ms": 0, "trial": "0-0", "message": "x" * 1000, "vector": [1]}
    )
    assert len(line_in_words(line)) < 300
    assert "vector" not in line_in_words(line)


def test_a_line_says_why_a_trial_was_made_and_why_an_action_was_ignored():
    trial = TrialCreated(
        at_ms=0,
        trial="0-1",
        slot=0,
        step=1,
        parent="0-0",
        hyperparameters={"x": 1.0},
        vector=(0.5,),
        why={"rule": "keep"},
    )
    assert line_in_words(trial).endswith("hyperparameters={x: 1}  rule=keep")
    ignored = ControlIgnored(at_ms=0, action="bounds", status="running", why="no number", by="me")
    assert line_in_words(ignored).endswith("by=me  why=no number")


def test_top_keeps_what_it_saw_and_raises_alarms():
    async def main():
        store = MemoryStore()
        spec = EXPERIMENT.model_copy(update={"checkpoints": "memory://x"})
        await store.create("e", spec.model_dump_json(), b"x")
        store._all["e"].meta["status"] = "running"
        screen = Screen("e")
        first = await screen.refresh(store)
        alarms = screen.alarms(first)
        await store.present(["e"], "w", {"state": "no room", "trial": "", "host": "h", "pid": 1})
        second = await screen.refresh(store)
        told = screen.alarms(second)
        await store.present(["e"], "w", {"state": "failing", "trial": "", "host": "h", "pid": 1})
        told += screen.alarms(await screen.refresh(store))
        return alarms, told, read_glance(await store.glance("e", SLOT_FIELDS))

    none, full, last = run(main())
    assert none == ["no worker is alive"]
    assert full == [
        "a worker has no room for checkpoints",
        "trials fail on these workers only: w",
    ]
    assert [w.name for w in last.alive] == ["w"]
