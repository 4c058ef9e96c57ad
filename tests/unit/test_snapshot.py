"""Snapshots: what programs read of an experiment."""

from dataclasses import replace
from typing import Any

import pytest

from romul.result import Result
from romul_actors.core.history import TrialReported, to_json
from romul_actors.errors import StoredDataError
from romul_actors.observe.explain import explain, in_words
from romul_actors.observe.lineage import lineage
from romul_actors.observe.stored_history import origin_of, read_descent, read_history
from romul_actors.observe.trial_records import trials
from romul_actors.protocol.slot_codec import text
from romul_actors.store import Commit
from romul_actors.store.memory import MemoryStore
from tests.trials import created, failed, reported


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


async def stored(texts, kind=MemoryStore):
    store = kind()
    await store.create("e", "{}", b"submitted")
    await store.commit("e", "a", Commit((await store.load("e")).version, [], history=texts))
    return store


async def test_the_lines_about_a_trial_say_what_the_whole_history_says_of_it(searched):
    store = await stored([text(to_json(line)) for line in searched.history])
    found = trials(searched.history)
    assert any(record.copied_from is not None for record in found.values())
    for trial in found:
        lines = await read_descent(store, "e", trial)
        ancestors = lineage(trials(lines), trial)
        assert ancestors == lineage(found, trial)
        assert set(trials(lines)) == set(ancestors)
        whole = explain(searched.experiment, searched.history, trial)
        assert in_words(explain(searched.experiment, lines, trial)) == in_words(whole)
        lines = await read_descent(store, "e", trial, generations=1)
        short = explain(searched.experiment, lines, trial)
        assert (short.as_json(), in_words(short)) == (whole.as_json(), in_words(whole))


async def test_a_trials_lines_are_looked_for_from_the_end_and_no_others_are_decoded(monkeypatch):
    monkeypatch.setattr("romul_actors.observe.stored_history.PAGE", 2)
    steps = [
        [
            created(f"{slot}-{step}", parent=f"{slot}-{step - 1}" if step else None),
            reported(f"{slot}-{step}"),
        ]
        for step in range(4)
        for slot in (0, 1)
    ]
    texts = [text(to_json(line)) for lines in steps for line in lines]
    # What others reported while trial 0-3 was under way, among it what is no line.
    texts += ["[]", text(to_json(failed("0-3", at_ms=7)))]
    store = await stored(texts, CountedPages)
    lines: list[Any] = await read_descent(store, "e", "0-3", generations=1)
    assert [(type(line).__name__, line.trial) for line in lines] == [
        ("TrialCreated", "0-2"),
        ("TrialReported", "0-2"),
        ("TrialCreated", "0-3"),
        ("TrialReported", "0-3"),
        ("TrialFailed", "0-3"),
    ]
    # Five of nine: the rest is older than the decision of 0-2.
    assert store.pages == 5
    whole: list[Any] = await read_descent(store, "e", "0-3")
    assert [line.trial for line in whole][::2] == [
        "0-0",
        "0-1",
        "0-2",
        "0-3",
        "0-3",
    ]
    assert await read_descent(store, "e", "0-9") == []
    with pytest.raises(StoredDataError, match=r"experiment 'e', history entry .* holds '\[\]'"):
        await read_history(await stored(texts), "e")
