"""Stored lines of history are short, readable alone, and lose nothing."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romul_actors.core.history import (
    Line,
    ReportStale,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
    Unknown,
    from_json,
    to_json,
)
from romul_actors.core.stored_line import PackedError, pack, shorten, unpack
from romul_actors.protocol.slot_codec import text
from tests import trials

STORED = Path(__file__).parents[1] / "stored" / "ca05a5f" / "finished.history.jsonl"
numbers = st.floats(allow_nan=False)
names = st.text(min_size=1, max_size=5)
values = st.one_of(numbers, st.integers(-(2**53), 2**53), st.booleans(), st.text(max_size=5))
vectors = st.lists(st.floats(0, 1), max_size=5)
small = st.integers(0, 30)
trial_ids = st.builds("{}-{}".format, small, small) | st.just("of no slot")
checkpoints = st.builds("{}-{}-{}".format, trial_ids, small, names) | names | st.just("-1")
reasons = st.dictionaries(
    st.sampled_from(["rank", "known", "pool", "copied", "rule", "drawn", "outside", "base", "a"]),
    st.one_of(st.none(), small, numbers, vectors, st.lists(small, max_size=2), st.text(max_size=3)),
)


@st.composite
def created(draw: st.DrawFn) -> Line:
    slot, step = draw(small), draw(small)
    own = [f"{slot}-{step - 1}", f"{slot}-{step}", None]
    return TrialCreated(
        at_ms=draw(small),
        trial=draw(st.sampled_from([f"{slot}-{step}"]) | trial_ids),
        slot=slot,
        step=step,
        parent=draw(st.sampled_from(own) | trial_ids),
        hyperparameters=draw(st.dictionaries(names, values, max_size=3)),
        vector=draw(vectors),
        seed=draw(small),
        why=draw(reasons),
    )


@st.composite
def ended(draw: st.DrawFn) -> Line:
    slot, step = draw(small), draw(small)
    trial = draw(st.sampled_from([f"{slot}-{step}"]) | trial_ids)
    attempt = draw(st.integers(1, 3))
    at: dict[str, Any] = {"at_ms": 1, "trial": trial, "attempt": attempt, "worker": "w"}
    place: dict[str, Any] = {"slot": slot, "step": step}
    checkpoint = draw(checkpoints | st.builds((f"{trial}-{attempt}-" + "{}").format, names))
    in_effect = draw(
        st.dictionaries(names, values, max_size=3) | st.dictionaries(names, numbers, max_size=3)
    )
    lines = [
        TrialReported(
            **at, **place, value=1.0, checkpoint=checkpoint, seconds=2.0, in_effect=in_effect
        ),
        TrialFailed(**at, **place, reason="killed", message="-", again=True),
        TrialReleased(**at, reason="drained", checkpoint=draw(st.none() | st.just(checkpoint))),
        ReportStale(**at),
    ]
    return draw(st.sampled_from(lines))


def exactly(line: Line) -> str:
    """The content of a line; 1, 1.0 and true differ, and the order of names does not count."""
    return json.dumps(to_json(line), sort_keys=True)


@given(created() | ended())
def test_a_stored_line_says_all_that_was_written_and_needs_no_other_line(line: Line):
    stored = json.loads(text(shorten(to_json(line))))
    assert exactly(from_json(stored)) == exactly(line)


def test_lines_of_an_older_version_are_shortened_and_lose_nothing():
    texts = STORED.read_text(encoding="utf-8").splitlines()
    lines = [from_json(json.loads(text)) for text in texts]
    stored = [text(shorten(to_json(line))) for line in lines]
    assert [exactly(from_json(json.loads(short))) for short in stored] == list(map(exactly, lines))
    assert sum(map(len, stored)) < 0.8 * sum(map(len, texts))


def test_a_stored_trial_shows_people_its_hyperparameters_and_its_rule():
    why = {"rank": 0.75, "known": 8, "pool": 8, "copied": 8, "rule": "redrawn"}
    why |= {"base": [0.5], "drawn": [1], "outside": []}
    values = {"rate": 0.25}
    line = trials.created("3-5", at_ms=7, parent="8-4", hyperparameters=values, seed=11, why=why)
    assert text(shorten(to_json(line))) == (
        '{"event":"trial","at_ms":7,"trial":"3-5","parent":"8-4","hyperparameters":{"rate":0.25},'
        '"vector":"AAAAAAAA4D8","seed":11,"why":{"rank":0.75,"known":8,"rule":"redrawn",'
        '"base":"AAAAAAAA4D8","drawn":[1]}}'
    )


def test_a_stored_result_shows_people_its_value_and_its_metrics():
    line = trials.reported(
        "3-5",
        at_ms=7,
        worker="host-0",
        value=0.125,
        checkpoint="3-5-1-0badcafe",
        seconds=2.5,
        metrics={"accuracy": 0.75},
        in_effect={"rate": 0.25, "decay": 0.5},
    )
    assert text(shorten(to_json(line))) == (
        '{"event":"result","at_ms":7,"trial":"3-5","worker":"host-0","value":0.125,'
        '"checkpoint":"-0badcafe","seconds":2.5,"metrics":{"accuracy":0.75},'
        '"in_effect":["AAAAAAAA0D8AAAAAAADgPw","rate decay"]}'
    )


@given(st.lists(st.floats()))
def test_packed_numbers_come_back_to_the_last_bit(given: list[float]):
    back = unpack(pack(given))
    assert [(math.isnan(x), repr(x)) for x in back] == [(math.isnan(x), repr(x)) for x in given]


@pytest.mark.parametrize("packed", ["?", "AAAA", "AAAAAAAA4D8!", "é"])
def test_a_text_that_is_none_of_packed_numbers_is_refused(packed: str):
    with pytest.raises(PackedError, match=re.escape(repr(packed))):
        unpack(packed)


@pytest.mark.parametrize(
    "broken",
    [
        {"vector": "AAAA"},
        {"why": 3},
        {"vector": "AAAAAAAA4D8", "why": {"base": "AAAA"}},
        {"vector": "AAAAAAAA4D8", "why": "held"},
    ],
)
def test_a_stored_trial_that_is_damaged_stays_as_it_is(broken: dict[str, Any]):
    whole = {"event": "trial", "at_ms": 1, "trial": "3-5", "hyperparameters": {}, "seed": 1}
    values = {**whole, "vector": "AAAAAAAA4D8", "why": {}} | broken
    line = from_json(values)
    assert isinstance(line, Unknown)
    assert to_json(line) == values


@pytest.mark.parametrize("in_effect", [["AAAA", "x"], ["AAAAAAAA4D8", "x y"], ["AAAAAAAA4D8"], [1]])
def test_a_stored_result_that_is_damaged_stays_as_it_is(in_effect: list[Any]):
    values = {
        "event": "result",
        "at_ms": 1,
        "trial": "3-5",
        "worker": "w",
        "value": 1.0,
        "checkpoint": "-a",
        "seconds": 1.0,
        "in_effect": in_effect,
    }
    line = from_json(values)
    assert isinstance(line, Unknown)
    assert to_json(line) == values
