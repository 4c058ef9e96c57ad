import math
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from romul_actors.core.events import (
    Control,
    Expired,
    Failed,
    Released,
    Result,
    Submitted,
    Tick,
    TrialMessage,
)
from romul_actors.errors import MessageError, MessageVersionError
from romul_actors.protocol.messages import MAX_BYTES, VERSION, decode_event, decode_trial, encode

TOKEN: dict[str, Any] = {"trial": "3-7", "slot": 3, "attempt": 2, "worker": "w"}
RESULT = Result(**TOKEN, value=0.25, checkpoint="3-7-2", seconds=1.5, metrics={"accuracy": 0.9})
RELEASED = Released(**TOKEN, reason="drained")
EVENTS = [
    RESULT,
    Failed(**TOKEN, reason="exception", message="Überlauf", seconds=0.1),
    RELEASED,
    Expired(**TOKEN),
    Submitted(),
    Control(action="pause", by="me"),
    Tick(workers=3),
]
TRIAL = TrialMessage(
    id="3-7",
    slot=3,
    step=7,
    attempt=1,
    hyperparameters={"lr": 0.1, "n": 2, "kind": "a", "flag": True},
    parent=None,
    start=7.0,
    stop=8.0,
    seed=5,
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_arrives_as_it_was_sent(event):
    assert decode_event(encode(event)) == event


def test_a_request_for_more_steps_than_can_be_read_back_is_refused():
    with pytest.raises(MessageError, match=r"control\.steps: 1000000001 is above 1000000000"):
        decode_event(encode(Control(action="extend", steps=10**9 + 1)))


def test_a_trial_arrives_as_it_was_sent_types_included():
    arrived = decode_trial(encode(TRIAL))
    assert arrived == TRIAL
    assert [type(v) for v in arrived.hyperparameters.values()] == [float, int, str, bool]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("event", "field"),
    [
        (RESULT, "seconds"),
        (EVENTS[1], "seconds"),
        (RELEASED, "seconds"),
        (RELEASED, "at"),
        (EVENTS[5], "low"),
    ],
)
def test_a_time_that_is_no_number_is_refused(event, field, number):
    changed: dict[str, Any] = {field: number}
    # Stored among a population's times, it could not be read back.
    with pytest.raises(MessageError, match=f"{event.type}.{field}: "):
        decode_event(encode(replace(event, **changed)))


@pytest.mark.parametrize("field", ["start", "stop"])
def test_a_trial_of_no_length_is_refused(field):
    changed: dict[str, Any] = {field: math.nan}
    with pytest.raises(MessageError, match=f"trial.{field}: "):
        decode_trial(encode(replace(TRIAL, **changed)))


@pytest.mark.parametrize("name", ["", "3-8", "3", "../3-7", "3-7\0", "3-7/.."])
def test_a_trial_whose_name_is_not_its_slot_and_step_is_refused(name):
    # Folders are made of it.
    with pytest.raises(MessageError, match=r"trial.id: .* is not '3-7'"):
        decode_trial(encode(replace(TRIAL, id=name)))


NO_NAMES = [
    "",
    "../../tmp/loot",
    "/tmp/loot",
    "e/3-7-2",
    "3-7-2/..",
    "3-7-2\n",
    "3-7",
    "3-7-2-" + "a" * 17,
    "s3://far/3-7-2",
]


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("event", [RESULT, RELEASED], ids=lambda event: event.type)
def test_a_report_whose_checkpoint_may_lie_elsewhere_is_refused(event, name):
    with pytest.raises(MessageError, match=f"{event.type}.checkpoint: .* not a name of the form"):
        decode_event(encode(replace(event, checkpoint=name)))


@pytest.mark.parametrize("name", ["3-7-2", "3-7-2-0badcafe", "3-7-2-a", "12-0-10-abcdef"])
def test_every_name_that_a_worker_ever_gave_a_checkpoint_is_taken(name):
    for event in (RESULT, replace(RELEASED, checkpoint=name, at=7.5)):
        named = replace(event, checkpoint=name)
        assert decode_event(encode(named)) == named


def test_a_metric_that_is_no_number_arrives_for_the_core_to_judge():
    event = decode_event(encode(Result(**TOKEN, value=math.nan, checkpoint="3-7-2", seconds=1.0)))
    assert isinstance(event, Result)
    assert math.isnan(event.value)


def changed(**fields):
    return msgpack.packb({**msgpack.unpackb(encode(RESULT)), **fields})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not MessagePack"),
        (b"\xc1", "not MessagePack"),
        (encode(RESULT)[:-4], "not MessagePack"),
        (encode(RESULT) + b"\x00", "not MessagePack"),
        (b"\x91" * 100_000, "not MessagePack"),
        (b"\x81\x90\x01", "not MessagePack"),
        (msgpack.packb([1, 2]), "a list in place of a map"),
        (b"\x00" * (MAX_BYTES + 1), f"oversized: {MAX_BYTES + 1} bytes"),
        (changed(v=VERSION + 1), f"version {VERSION + 1}: this program speaks {VERSION}"),
        (changed(type="surprise"), "unknown type 'surprise'"),
        (changed(type=["result"]), "unknown type"),
        (encode(TRIAL), "unknown type 'trial'"),
        (changed(slot="3"), "result.slot: '3' is not a whole number"),
        (changed(slot=True), "result.slot: True is not a whole number"),
        (changed(value=None), "result.value: None is not a number"),
        (changed(metrics={"a": "b"}), "result.metrics.a: 'b' is not a number"),
        (changed(metrics=[0.5]), "result.metrics: \\[0.5\\] is not a table"),
        (changed(in_effect={"lr": b"1"}), "result.in_effect.lr: b'1' is not a JSON value"),
        (changed(worker=b"\xff"), r"result.worker: b'\\xff' is not text"),
        (
            msgpack.packb({"v": VERSION, "type": "tick"}),
            "tick.workers: required, but not given",
        ),
        (
            msgpack.packb({**msgpack.unpackb(encode(Control(action="pin"))), "slto": 3}),
            "control.slto: no such key: did you mean 'slot'",
        ),
        (
            msgpack.packb({**msgpack.unpackb(encode(Control(action="stop"))), "action": "halt"}),
            "control.action: 'halt' is not 'pause', 'resume', 'stop'",
        ),
    ],
)
def test_an_unusable_message_is_refused_with_its_reason(body, message):
    with pytest.raises(MessageError, match=message):
        decode_event(body)


@pytest.mark.parametrize("message", [*EVENTS[:5], EVENTS[6], TRIAL], ids=lambda m: m.type)
def test_a_field_that_a_later_program_adds_within_this_version_is_ignored(message):
    body = msgpack.packb({**msgpack.unpackb(encode(message)), "zone": "a", "more": {"n": [1]}})
    assert (decode_trial if message is TRIAL else decode_event)(body) == message


def test_a_message_of_another_version_is_told_from_garbage():
    with pytest.raises(MessageVersionError):
        decode_event(changed(v=VERSION + 1))
    with pytest.raises(MessageError) as garbage:
        decode_event(b"\xc1")
    assert not isinstance(garbage.value, MessageVersionError)


@given(st.binary(max_size=200))
def test_garbage_never_does_more_than_be_refused(body):
    with pytest.raises(MessageError):
        decode_event(body)


def test_a_message_that_would_be_refused_is_not_sent():
    with pytest.raises(MessageError, match="at most"):
        encode(Failed(**TOKEN, reason="exception", message="x" * MAX_BYTES, seconds=0.0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": "a\ud800"}, "surrogates not allowed"),
        ({"worker": "\udcff"}, "surrogates not allowed"),
        ({"constants": {"power": 10**30}}, "Integer value out of range"),
        ({"constants": {"\ud800": 1}}, "surrogates not allowed"),
    ],
)
def test_what_no_message_can_hold_is_refused_in_words(given, said):
    with pytest.raises(MessageError, match=f"a control message cannot be sent: .*{said}"):
        encode(Control(action="change", **given))


def test_bounds_that_are_too_far_apart_are_no_message():
    wide = Control(action="bounds", parameter="x", low=-1e308, high=1e308)
    with pytest.raises(MessageError, match="is too far from"):
        decode_event(encode(wide))


def test_a_message_that_cannot_be_sent_leaves_nothing_in_the_next_one():
    trial = replace(TRIAL, hyperparameters={"x": 1.0})
    body = encode(trial)
    for unsendable in ("\ud800", 2**64, "x" * MAX_BYTES):
        with pytest.raises(MessageError):
            encode(replace(trial, hyperparameters={"x": 1.0, "y": unsendable}))
        assert encode(trial) == body
