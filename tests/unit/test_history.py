"""History: every kind of line, and the one codec that reads and writes them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from romul_actors.core.history import (
    KINDS,
    ControlIgnored,
    Line,
    SearchFinished,
    TrialCreated,
    TrialReleased,
    Unknown,
    from_json,
    to_json,
)
from tests.trials import created

STORED = Path(__file__).parents[1] / "stored" / "ca05a5f" / "finished.history.jsonl"


def lines() -> list[dict[str, Any]]:
    return [json.loads(text) for text in STORED.read_text(encoding="utf-8").splitlines()]


def test_a_stored_history_is_read_and_written_as_it_was():
    stored = lines()
    read = [from_json(line) for line in stored]
    assert not [line for line in read if isinstance(line, Unknown)]
    assert [json.dumps(to_json(line)) for line in read] == [json.dumps(line) for line in stored]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_read_back(kind: type[Line]):
    values: dict[str, Any] = {field.name: 1 for field in fields(kind)}
    line = kind(**values)
    assert to_json(line)["event"] == kind.event
    assert from_json(json.loads(json.dumps(to_json(line)))) == line


def test_fields_at_their_defaults_are_not_written():
    assert to_json(SearchFinished(at_ms=1)) == {"event": "finished", "at_ms": 1}
    released = TrialReleased(at_ms=1, trial="0-0", attempt=1, worker="w", reason="drained", at=0.0)
    assert list(to_json(released)) == [
        "event",
        "at_ms",
        "trial",
        "attempt",
        "worker",
        "reason",
        "at",
    ]


def test_fields_that_only_older_lines_lack_are_always_written():
    assert list(to_json(created()))[-3:] == ["vector", "seed", "why"]


def test_an_ignored_control_names_the_parameter_it_gave():
    line = ControlIgnored(at_ms=1, action="bounds", status="running", parameter="", low=0.0, by="")
    assert to_json(line) == {
        "event": "ignored",
        "at_ms": 1,
        "action": "bounds",
        "status": "running",
        "parameter": "",
        "low": 0.0,
        "by": "",
    }


@pytest.mark.parametrize(
    "values",
    [
        {"event": "from a later version", "at_ms": 3, "new": [1]},
        {"event": "trial", "at_ms": 3, "trial": "0-0"},
        {"event": "result"},
        {},
    ],
    ids=["kind", "fields", "time", "nothing"],
)
def test_a_line_that_cannot_be_read_stays_as_it_is(values: dict[str, Any]):
    line = from_json(values)
    assert isinstance(line, Unknown)
    assert line.name == values.get("event", "")
    assert to_json(line) == values


def test_a_line_without_reasons_is_read():
    old = {k: v for k, v in lines()[1].items() if k != "why"}
    line = from_json(old)
    assert isinstance(line, TrialCreated)
    assert line.why == {}
