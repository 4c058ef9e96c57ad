"""The population as text: round trips of every field, older stores, and invalid data."""

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romul_actors.core.population import Best, Counts, Population
from romul_actors.core.slot import Outcome, Slot, failed
from romul_actors.errors import StoredDataError
from romul_actors.protocol.experiment import from_json
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from tests.unit.harness import Run, bowl, population, reread

STORED = Path(__file__).parents[1] / "stored" / "ca05a5f"
FIRST = Slot(index=0, vector=(0.5, 0.5))
SLOT = Slot(
    index=1,
    tier="greedy",
    status="waiting",
    step=4,
    attempt=3,
    live_attempts=(2, 3),
    failures=1,
    lost_attempts=2,
    vector=(0.1, 1 / 3),
    seed=2**31 - 1,
    parent="7-3",
    checkpoint="7-3-1-abc",
    partial="1-4-1-abc-p",
    position=4.1,
    joined=2,
    parking=True,
    pinned=True,
    memory={"base": [0.1, 0.2], "rho": 0.75, "rungs": {"1": [0.5]}},
    outcomes={3: Outcome(-0.1, (0.3, 0.7), "1-3-1-abc"), 4: failed((0.1, 1 / 3))},
    since_ms=1_795_828_107_678,
    seconds=2.5130579749999242,
    hyperparameters={"x": 7.5, "y": -1.0},
)
POPULATION = replace(
    population(),
    status="paused",
    reason="paused by me",
    slots=(FIRST, SLOT),
    best=Best("1-3", -0.1, {"x": 0.3, "y": 0.7}, "1-3-1-abc", {"accuracy": 0.9}, (0.3, 0.7)),
    counts=Counts(created=9, reported=5, failed=1, discarded=1, retried=3),
    causes={"lost": 2, "exception": 1},
    idle_since_ms=1_795_828_000_000,
    crowded_since_ms=1_795_828_000_001,
    horizon=5,
    started_ms=3,
)


FIRST_ROW = write_slot(FIRST, POPULATION.settings, "loss")


def defaults(kind):
    """The fields of a dataclass that have defaults, with these."""
    found = {}
    for field in fields(kind):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


@pytest.mark.parametrize(
    "sample", [SLOT, POPULATION, POPULATION.best, POPULATION.counts], ids=lambda x: type(x).__name__
)
def test_the_samples_leave_no_field_at_its_default(sample):
    # A new field that is not written would be read back at its default, unnoticed.
    derived = {"oldest", "progress"}
    for name, default in defaults(type(sample)).items():
        assert name in derived or getattr(sample, name) != default, name


@pytest.mark.parametrize("maximize", [False, True])
def test_every_field_is_written_and_read_back(maximize):
    kept = replace(POPULATION, settings=replace(POPULATION.settings, maximize=maximize))
    assert reread(kept) == kept
    empty = population()
    assert reread(empty) == empty


def test_a_population_in_training_is_read_back():
    run = Run(population(steps=4)).start().to_the_end(bowl)
    assert reread(run.population) == run.population


def test_changed_fields_over_the_stored_ones_are_the_whole_slot():
    core, before = POPULATION.settings, Run(population(steps=4)).start().population.slots[0]
    whole = write_slot(SLOT, core, "loss")
    assert {**write_slot(before, core, "loss"), **write_slot(SLOT, core, "loss", before)} == whole
    assert write_slot(SLOT, core, "loss", SLOT) == {}
    for field in fields(SLOT):
        if field.name != "index":
            changed = replace(SLOT, **{field.name: getattr(before, field.name)})
            written = write_slot(changed, core, "loss", SLOT)
            assert written
            # An empty field means the same as a missing one.
            stored = {**whole, **written, "begun": written.get("begun", whole["begun"])}
            expected = {"begun": "", **write_slot(changed, core, "loss")}
            assert stored == expected, field.name


def test_changed_fields_over_the_stored_ones_are_the_whole_hash_of_an_experiment():
    before = replace(Run(population(steps=4)).start().population, started_ms=3)
    whole = write_meta(POPULATION, "loss")
    assert {**write_meta(before, "loss"), **write_meta(POPULATION, "loss", before)} == whole
    assert write_meta(POPULATION, "loss", POPULATION) == {}
    others: list[dict[str, Any]] = [
        {name: getattr(before, name)}
        for name in ("status", "reason", "slots", "best", "causes", "horizon")
    ]
    others += [{"idle_since_ms": None}, {"crowded_since_ms": None}]
    others += [
        {"counts": replace(POPULATION.counts, **{count.name: 99})} for count in fields(Counts)
    ]
    for other in others:
        changed = replace(POPULATION, **other)
        written = write_meta(changed, "loss", POPULATION)
        assert len(written) == 1
        assert {**whole, **written} == write_meta(changed, "loss"), other


def test_the_first_decision_of_a_search_writes_all_fields():
    begun = Run(population(steps=4)).start().population
    assert write_meta(begun, "loss", population(steps=4)) == write_meta(begun, "loss")


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2), st.floats(allow_nan=False))
def test_floats_are_read_back_to_the_last_bit(vector, seconds):
    slot = replace(FIRST, vector=tuple(vector), seconds=seconds, position=seconds)
    [again] = reread(replace(POPULATION, slots=(slot,))).slots
    assert [repr(x) for x in (*again.vector, again.seconds, again.position)] == [
        repr(x) for x in (*slot.vector, seconds, seconds)
    ]


def test_people_find_the_metric_with_their_own_name_and_sign():
    kept = replace(POPULATION, settings=replace(POPULATION.settings, maximize=True))
    row = write_slot(SLOT, kept.settings, "accuracy")
    outcomes = json.loads(row["outcomes"])
    assert (outcomes["3"]["accuracy"], outcomes["4"]["accuracy"]) == (0.1, None)
    assert json.loads(row["latest"]) == {"step": 4, "accuracy": None}
    assert json.loads(row["hyperparameters"]) == SLOT.hyperparameters
    best = json.loads(write_meta(kept, "accuracy")["best"])
    assert (best["accuracy"], best["trial"]) == (0.1, "1-3")


def test_the_best_trial_is_written_only_when_it_is_another_one():
    before = replace(POPULATION, best=replace(POPULATION.best, loss=0.0))
    assert "best" not in write_meta(POPULATION, "loss", POPULATION)
    assert "best" in write_meta(POPULATION, "loss", before)
    assert write_meta(population(), "loss")["best"] == ""


# -- what older commits stored --------------------------------------------------------------------


def stored(name):
    """Settings, fields of the experiment's hash, and fields of each slot's hash."""
    keys = json.loads((STORED / f"{name}.json").read_text())["keys"]
    meta = keys[f"romul:{{{name}}}"]["value"]
    slots = [keys[f"romul:{{{name}}}:slot:{i}"]["value"] for i in range(int(meta["slots"]))]
    experiment = from_json(meta["spec"])
    return settings(experiment), experiment.metric, meta, slots


@pytest.mark.parametrize("name", ["finished", "paused", "killed"])
def test_an_older_store_is_read_and_written_as_it_was(name):
    core, metric, meta, slots = stored(name)
    found = read(core, metric, meta, slots)
    assert [write_slot(slot, core, metric) for slot in found.slots] == slots
    written = write_meta(found, metric)
    assert written == {key: meta[key] for key in written}
    # The hash's other fields belong to the store.
    assert meta.keys() - written.keys() <= {"spec", "version", "epoch", "nonce", "created_by"}


def test_an_older_store_tells_what_it_held():
    core, metric, meta, slots = stored("killed")
    found = read(core, metric, meta, slots)
    assert found.status == "running"
    queued = [slot for slot in found.slots if slot.status == "queued"]
    assert queued
    assert all(slot.live_attempts == (slot.attempt,) for slot in queued)
    assert found.best is not None
    assert all(
        found.best.loss <= outcome.loss
        for slot in found.slots
        for outcome in slot.outcomes.values()
    )


def test_fields_that_came_later_may_be_missing():
    core, metric, meta, slots = stored("finished")
    later = {"reason", "causes", "idle_since_ms", "crowded_since_ms", "horizon", "best", "retried"}
    old = {key: value for key, value in meta.items() if key not in later}
    rows = [{key: value for key, value in row.items() if key != "pinned"} for row in slots]
    found = read(core, metric, old, rows)
    assert (found.reason, found.causes, found.horizon, found.best) == ("", {}, 0, None)
    assert not any(slot.pinned for slot in found.slots)


# -- what is no population ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("step", "one"),
        ("step", ""),
        ("attempt", "1.5"),
        ("live", "[1"),
        ("live", "1"),
        ("failures", "many"),
        ("losses", "many"),
        ("vector", "0.5,0.5"),
        ("vector", "null"),
        ("seed", "0x10"),
        ("vector", "[0.5]"),
        ("vector", "[0.5,NaN]"),
        ("vector", "[0.5,true]"),
        ("status", "asleep"),
        ("step", "-1"),
        ("step", "9" * 20),
        ("parking", "yes"),
        ("position", "here"),
        ("joined", ""),
        ("memory", "{'base': []}"),
        ("memory", "[]"),
        ("outcomes", "{"),
        ("outcomes", '{"first":{"loss":1.0,"vector":[],"checkpoint":null}}'),
        ("outcomes", '{"1":{"loss":1.0,"vector":[]}}'),
        ("since_ms", "yesterday"),
        ("seconds", "fast"),
    ],
)
def test_garbage_in_a_slot_is_an_error_that_names_where_it_stands(field, text):
    row = {**write_slot(SLOT, POPULATION.settings, "loss"), field: text}
    with pytest.raises(StoredDataError) as refused:
        read(POPULATION.settings, "loss", write_meta(POPULATION, "loss"), [FIRST_ROW, row], "mine")
    words = f"experiment 'mine', slot 1: field '{field}' holds {text!r}, which is not "
    assert str(refused.value).startswith(words)
    assert refused.value.remedy in str(refused.value)


@pytest.mark.parametrize("field", sorted({*write_slot(SLOT, POPULATION.settings, "loss")}))
def test_a_slot_without_a_field_that_decisions_need_is_refused(field):
    # These are written for people; decisions read their data elsewhere.
    shown = {"trial", "latest", "hyperparameters", "pinned", "begun"}
    row = write_slot(SLOT, POPULATION.settings, "loss")
    del row[field]
    meta = write_meta(POPULATION, "loss")
    if field in shown:
        [slot] = read(POPULATION.settings, "loss", meta, [row]).slots
        kept = {"pinned": field != "pinned"}
        if field in ("begun", "trial"):
            kept["hyperparameters"] = None
        assert slot == replace(SLOT, index=0, **kept)
    else:
        with pytest.raises(StoredDataError, match=f"slot 0: field '{field}' "):
            read(POPULATION.settings, "loss", meta, [row])


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("best", "{"),
        ("best", '{"trial":"1-3"}'),
        ("causes", "none"),
        ("created", "many"),
        ("horizon", "far"),
        ("idle_since_ms", "yesterday"),
        ("best", '{"loss":1,"trial":"1-3","checkpoint":"c","metrics":[],"hyperparameters":{}}'),
        ("best", '{"loss":"low","trial":"1-3","checkpoint":"c","metrics":{},"hyperparameters":{}}'),
        ("causes", '{"lost":"often"}'),
        ("status", "asleep"),
    ],
)
def test_garbage_in_the_experiments_hash_is_refused(field, text):
    meta = {**write_meta(POPULATION, "loss"), field: text}
    rows = [write_slot(slot, POPULATION.settings, "loss") for slot in POPULATION.slots]
    with pytest.raises(StoredDataError, match=f"^experiment 'mine': field '{field}' holds "):
        read(POPULATION.settings, "loss", meta, rows, "mine")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
OUTCOME = st.dictionaries(st.sampled_from(["loss", "vector", "checkpoint", "metrics"]), JSON)
GARBAGE = st.one_of(
    st.text(max_size=8),
    st.one_of(JSON, OUTCOME, st.dictionaries(st.sampled_from("3x"), OUTCOME)).map(json.dumps),
    st.just("[" * 10_000),
)


@given(st.data())
def test_whatever_a_hash_holds_it_is_read_or_refused_by_name(data):
    core = POPULATION.settings
    hashes = [write_meta(POPULATION, "loss"), write_slot(SLOT, core, "loss")]
    damaged = data.draw(st.sampled_from(hashes))
    field = data.draw(st.sampled_from(sorted(damaged)))
    damaged[field] = data.draw(GARBAGE)
    try:
        again = read(core, "loss", hashes[0], [hashes[1]], "mine")
    except StoredDataError as error:
        words = str(error)
    else:
        # Anything that was accepted as a population can be written again.
        rows = [write_slot(slot, core, "loss") for slot in again.slots]
        assert read(core, "loss", write_meta(again, "loss"), rows) == again
        return
    assert f"field {field!r} holds" in words


def test_an_unchanged_population_is_the_same_after_any_number_of_ways():
    once = reread(POPULATION)
    assert isinstance(once, Population)
    assert reread(once) == once


def test_what_an_earlier_trial_began_with_does_not_count():
    # An actor of an older version does not know the field `begun`, and leaves it as it was.
    meta, row = write_meta(POPULATION, "loss"), write_slot(SLOT, POPULATION.settings, "loss")
    later = {**row, "step": "5", "trial": "1-5"}
    _, slot = read(POPULATION.settings, "loss", meta, [FIRST_ROW, later]).slots
    assert (slot.step, slot.hyperparameters) == (5, None)
