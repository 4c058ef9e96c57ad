"""What `romul top` and `romul history` print."""

from romul_actors.cli.history import line_in_words
from romul_actors.cli.top import Screen, sparkline
from romul_actors.core.history import ControlIgnored, from_json
from romul_actors.observe.snapshot import SLOT_FIELDS, read_glance
from romul_actors.store.memory import MemoryStore
from romul_sim.virtual_time import run
from tests.trials import created, declare


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
    trial = created("0-1", hyperparameters={"x": 1.0}, why={"rule": "keep"})
    assert line_in_words(trial).endswith("hyperparameters={x: 1}  rule=keep")
    ignored = ControlIgnored(at_ms=0, action="bounds", status="running", why="no number", by="me")
    assert line_in_words(ignored).endswith("by=me  why=no number")


def test_top_keeps_what_it_saw_and_raises_alarms():
    async def main():
        store = MemoryStore()
        spec = declare(steps=9, checkpoints="memory://x")
        await store.create("e", spec.model_dump_json(), b"x")
        screen = Screen("e")
        new = screen.alarms(await screen.refresh(store))
        assert new == ["no actor has begun with it: `romul actor` starts one"]
        store.memory.experiments["e"].meta["status"] = "running"
        first = await screen.refresh(store)
        alarms = screen.alarms(first)
        await store.present(["e"], "w", {"state": "no room", "trial": "", "host": "h", "pid": 1})
        second = await screen.refresh(store)
        found = screen.alarms(second)
        await store.present(["e"], "w", {"state": "failing", "trial": "", "host": "h", "pid": 1})
        found += screen.alarms(await screen.refresh(store))
        return alarms, found, read_glance(await store.glance("e", SLOT_FIELDS))

    none, full, last = run(main())
    assert none == ["no worker is alive"]
    assert full == [
        "a worker has no room for checkpoints",
        "trials fail on these workers only: w",
    ]
    assert [w.name for w in last.alive] == ["w"]
