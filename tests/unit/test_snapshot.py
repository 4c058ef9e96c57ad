"""Snapshots: what programs read of an experiment."""

import json
from typing import Any

from romul_actors.core.history import TrialReported, to_json
from romul_actors.observe.snapshot import result_of
from romul_actors.store import Commit
from romul_actors.store.memory import MemoryStore


def test_a_snapshot_is_plain_values_and_frames(searched):
    assert (searched.status, len(searched.slots), searched.counts["reported"]) == (
        "finished",
        8,
        96,
    )
    best = min(line.value for line in searched.history if isinstance(line, TrialReported))
    assert searched.best["loss"] == best
    frame = searched.trials_frame()
    assert len(frame) == 96
    assert frame["value"].min() == best
    assert set(frame.columns) >= {"slot", "step", "parent", "h.x0", "m.true_loss", "seconds"}
    assert list(searched.slots_frame()["index"]) == list(range(8))
    assert len(searched.history_frame()) == len(searched.history)
    assert len(searched.workers_frame()) == len(searched.workers)


class CountedPages(MemoryStore):
    pages = 0

    async def history_before(self, name, before="", count=1000):
        self.pages += 1
        return await super().history_before(name, before, count)

    async def history(self, name, after="0", count=1000):
        raise AssertionError("history was read from its beginning")


async def test_a_trials_result_is_looked_for_from_the_end_of_history(monkeypatch):
    monkeypatch.setattr("romul_actors.observe.snapshot.PAGE", 2)
    store = CountedPages()
    await store.create("e", "{}", b"submitted")
    token: dict[str, Any] = {"attempt": 1, "worker": "w", "value": 0.5, "checkpoint": "c"}
    lines = [
        TrialReported(at_ms=n, slot=0, step=n, trial=f"0-{n}", seconds=float(n), **token)
        for n in range(9)
    ]
    texts = [json.dumps(to_json(line)) for line in lines]
    await store.commit("e", "a", Commit((await store.load("e")).version, [], history=texts))
    assert await result_of(store, "e", "0-6") == lines[6]
    assert store.pages == 2
    assert await result_of(store, "e", "0-0") == lines[0]
    assert await result_of(store, "e", "0-9") is None
