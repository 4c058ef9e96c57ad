"""What `romul top` and `romul history` print."""

from romul_actors.cli.watch import Screen, said, sparkline
from romul_actors.observe.snapshot import SLOT_FIELDS, read_glance
from romul_actors.protocol.experiment import Experiment
from romul_actors.store.memory import MemoryStore
from romul_sim.virtual_time import run

EXPERIMENT = Experiment.model_validate(
    {
        "name": "e",
        "task": "t",
        "steps": 9,
        "space": {n: {"type": "float", "min": 0, "max": 1} for n in ("x0", "x1")},
    }
)


def test_lines_and_sparks_are_short():
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([1e-6, 1e-3, 1.0]) in ("▁▄█", "▁▅█")
    line = {"event": "failed", "at_ms": 0, "trial": "0-0", "message": "x" * 1000, "vector": [1]}
    assert len(said(line)) < 300
    assert "vector" not in said(line)


def test_top_keeps_what_it_saw_and_raises_alarms():
    async def main():
        store = MemoryStore()
        spec = EXPERIMENT.model_copy(update={"checkpoints": "memory://x"})
        await store.create("e", spec.model_dump_json(), b"x")
        store.memory.experiments["e"].meta["status"] = "running"
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
