"""Explanations of trials."""

import json
from typing import Any

import pytest

from romul_actors.core.history import SecondCopyStarted, TrialCreated, TrialFailed, TrialReported
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import UnknownTrialError
from romul_actors.observe.explain import explain, in_words
from tests.trials import created, declare
from tests.unit.harness import Run, population

EXPERIMENT = declare("x0", "x1", steps=9)


def trial(parent="4-0", **why):
    """The decision of trial 0-1."""
    values = {"x0": 0.1, "x1": 0.2}
    return created("0-1", parent=parent, hyperparameters=values, vector=(0.1, 0.2), why=why)


def test_every_trial_can_be_explained(searched):
    rules, n_copies = set(), 0
    for line in searched.history:
        if not isinstance(line, TrialCreated):
            continue
        found = explain(searched.experiment, searched.history, line.trial)
        values = found.as_json()
        rules.add(values["rule"])
        words = " ".join(in_words(found))
        assert f"trial {line.trial}" in words
        assert f"rule: {values['rule']}" in words
        json.dumps(values)
        if values["copied_from"] is not None:
            assert line.parent == f"{values['copied_from']}-{line.step - 1}"
            assert f"of slot {values['copied_from']}" in words
            assert values["rule"] == "mutated"
            n_copies += 1
        if values["rule"] == "mutated":
            assert {"a", "b", "best", "F1", "F2", "rank", "known", "pool"} <= values["why"].keys()
            assert len(values["why"]["base"]) == 3
        for change in values["changes"].values():
            assert ("before" in change) == (line.parent is not None)
    assert rules == {"drawn", "mutated", "kept", "held"}
    assert n_copies
    with pytest.raises(UnknownTrialError, match="9-99"):
        explain(searched.experiment, searched.history, "9-99")


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_each_rule_of_each_optimizer_has_words(optimizer):
    run = Run(population(optimizer, n_slots=16, steps=6)).start()
    while run.population.status == "running":
        for slot in run.queued():
            trial = run.trials[slot]
            failed = trial.step == 1 and slot in (3, 7)
            loss = abs(trial.hyperparameters["x"] - 0.3) + slot / 100
            run.tell(run.failed(slot, "not_finite") if failed else run.result(slot, loss))
    assert run.population.status == "finished"
    experiment = declare("x", "y", steps=6, optimizer=optimizer)
    for line in run.of(TrialCreated):
        words = in_words(explain(experiment, run.history, line.trial))
        assert any(text.startswith(f"rule: {line.why['rule']}: ") for text in words), words


def test_within_a_generation_a_trial_was_compared_with_none():
    run = Run(population(steps=120)).start()
    run.tell(run.result(3, 1.0))
    words = in_words(explain(declare("x", "y", steps=120), run.history, "3-1"))
    assert "rule: held: no generation ended with that step, so there was no comparison" in words
    assert not any("known results" in text for text in words)


@pytest.mark.parametrize(
    ("vector_of", "taken"),
    [
        (None, "the weights and hyperparameters of slot 4"),
        (4, "the weights and hyperparameters of slot 4"),
        (0, "the weights of slot 4, but not its hyperparameters"),
        (2, "the weights of slot 4 and the hyperparameters of slot 2"),
    ],
)
def test_it_says_what_was_copied(vector_of, taken):
    line = trial(rule="migrated", copied=4, hyperparameters_of=vector_of)
    words = in_words(explain(EXPERIMENT, [line], "0-1"))
    assert f"slot 0 took {taken}, and continues from trial 4-0" in words


def test_it_says_which_coordinate_was_brought_back():
    line = trial(parent=None, rule="explored", crossover=[1, 0], outside=[0])
    found = explain(EXPERIMENT, [line], "0-1")
    changes = found.as_json()["changes"]
    assert changes["x0"] == {"after": 0.1, "from": "donor", "outside": True}
    assert changes["x1"] == {"after": 0.2, "from": "base", "outside": False}
    assert any("brought back" in words for words in in_words(found))


def test_it_says_what_was_drawn_anew_or_guarded():
    line = trial(rule="redrawn", copied=4, drawn=[1, 0], outside=[], guarded=[1])
    found = explain(EXPERIMENT, [line], "0-1")
    changes = found.as_json()["changes"]
    assert changes["x0"] == {"after": 0.1, "from": "drawn anew", "outside": False}
    assert changes["x1"] == {
        "after": 0.2,
        "from": "moved",
        "outside": False,
        "guarded": True,
    }
    words = in_words(found)
    assert "  x0 = 0.1; drawn anew, or more than halfway there" in words
    assert any(text.startswith("  x1 = 0.2; guarded") for text in words)


def test_what_goes_with_the_checkpoint_was_neither_drawn_nor_guarded():
    space = {**EXPERIMENT.space}
    space["x1"] = space["x1"].model_copy(update={"mutable": False})
    fixed = EXPERIMENT.model_copy(update={"space": space})
    line = trial(rule="mutated", copied=4, drawn=[0, 1], outside=[], guarded=[1])
    assert explain(fixed, [line], "0-1").as_json()["changes"]["x1"] == {"after": 0.2}


def test_it_says_how_each_attempt_ended():
    token: dict[str, Any] = {"trial": "0-1", "worker": "w", "slot": 0, "step": 1}
    lines = [
        trial(rule="kept"),
        SecondCopyStarted(at_ms=4, trial="0-1", attempt=2, slot=0),
        TrialFailed(
            **token, at_ms=5, attempt=1, reason="exception", message="Traceback\nOops\n", again=True
        ),
        TrialReported(**token, at_ms=6, attempt=2, value=0.25, checkpoint="0-1-2", seconds=2.0),
    ]
    found = explain(EXPERIMENT, lines, "0-1")
    assert in_words(found)[-3:] == [
        "attempt 2: second copy",
        "attempt 1 on w: exception: Oops",
        "attempt 2 on w: result = 0.25",
    ]
    assert found.as_json()["attempts"] == [
        {"event": "second copy", "attempt": 2, "at_ms": 4},
        {
            "event": "failed",
            "attempt": 1,
            "worker": "w",
            "reason": "exception",
            "message": "Traceback\nOops\n",
            "at_ms": 5,
        },
        {
            "event": "result",
            "attempt": 2,
            "worker": "w",
            "value": 0.25,
            "seconds": 2.0,
            "at_ms": 6,
        },
    ]
