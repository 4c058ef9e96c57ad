"""Snapshots: what programs read of an experiment."""

from dataclasses import replace

from romul.result import Result
from romul_actors.core.history import TrialReported, to_json
from romul_actors.observe.stored_history import origin_of
from romul_actors.protocol.slot_codec import text
from romul_actors.store import Commit
from romul_actors.store.memory import MemoryStore
from tests.trials import reported


def test_a_snapshot_is_plain_values_and_frames(searched):
    assert (searched.status, len(searched.slots), searched.counts["reported"]) == (
        "finished",
        8,
        96,
    )
    best = min(line.value for line in searched.history if isinstance(line, TrialReported))
    assert searched.best["loss"] == best
    result = Result(searched)
    frame = result.trials_frame()
    assert len(frame) == 96
    assert frame["value"].min() == best
    assert set(frame.columns) >= {"slot", "step", "parent", "h.x0", "m.true_loss", "seconds"}
    assert list(result.population_frame()["index"]) == list(range(8))
    assert len(result.history_frame()) == len(searched.history)


def test_what_is_finished_has_as_many_trials_as_there_were(searched):
    # Slots that came late have fewer than one for each step.
    wider = searched.experiment.model_copy(update={"population": 12})
    late = replace(searched, experiment=wider)
    assert (late.total, replace(late, status="running").total) == (96, 144)


class CountedPages(MemoryStore):
    pages = 0

    async def history_before(self, name, before="", count=1000):
        self.pages += 1
        return await super().history_before(name, before, count)

    async def history(self, name, after="0", count=1000):
        raise AssertionError("history was read from its beginning")


async def test_where_a_result_comes_from_is_looked_for_from_the_end_of_history(monkeypatch):
    monkeypatch.setattr("romul_actors.observe.stored_history.PAGE", 2)
    store = CountedPages()
    await store.create("e", "{}", b"submitted")
    # Two workers; each says where it is with its first result, and "a" again when it changes.
    said = {0: {"host": "first"}, 1: {"host": "other"}, 4: {"host": "second"}}
    lines = [
        reported(f"0-{n}", at_ms=n, worker="ab"[n % 2], provenance=said.get(n, {}))
        for n in range(9)
    ]
    texts = [text(to_json(line)) for line in lines]
    await store.commit("e", "a", Commit((await store.load("e")).version, [], history=texts))
    for trial, host, pages in (("0-6", "second", 3), ("0-2", "first", 5), ("0-7", "other", 4)):
        store.pages = 0
        assert (await origin_of(store, "e", trial), store.pages) == ({"host": host}, pages)
    assert await origin_of(store, "e", "0-9") == {}
