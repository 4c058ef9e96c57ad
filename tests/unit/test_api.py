"""The public package `romul`, without a server."""

import ast
import builtins
import copy
import functools
import hashlib
import inspect
import json
import linecache
import math
import pickle
import random
import re
import subprocess
import sys
import threading
import traceback
import typing
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import romul
from romul import blocking
from romul.callbacks import call
from romul_actors.core.decide import decide
from romul_actors.core.history import TimePassed, TrialCreated, TrialReported
from romul_actors.core.optimizers import Optimizer
from romul_actors.core.optimizers.truncation import Truncation
from romul_actors.errors import CheckpointError, ExperimentError
from romul_actors.protocol.experiment import Experiment, parse
from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.simulation import simulate
from romul_sim.churn.trace import Change
from romul_workers import handed
from romul_workers.tasks.toys import TOYS
from tests.trials import reported

SPACE = {
    "lr": romul.Float(1e-4, 1, log=True),
    "layers": romul.Int(1, 8),
    "kind": romul.Choice("a", "b"),
    "nesterov": romul.Bool(),
}


def loss(trial):
    chosen = trial.hyperparameters
    return abs(math.log(chosen["lr"] / 0.01)) + chosen["layers"] + (chosen["kind"] == "b")


def to_the_end(population, moves=None):
    """Train all trials in turn; return (id, hyperparameters, parent, seed) of each."""
    moves = [] if moves is None else moves
    while (trial := population.ask()) is not None:
        moves.append((trial.id, dict(trial.hyperparameters), trial.parent, trial.seed))
        population.tell(trial, loss(trial), checkpoint=f"of {trial.id}", seconds=1.0)
    return moves


# -- the package ----------------------------------------------------------------------------------


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, romul\n"
        "heavy = {'numpy', 'pydantic', 'redis', 'torch', 'asyncio', 'romul_actors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_list_in_place_of_choices_is_an_error_that_says_what_to_write():
    with pytest.raises(ExperimentError, match=r"write Choice\('sgd', 'adam'\)"):
        romul.Choice(["sgd", "adam"])
    assert romul.Choice([1, 2], [3]).table["choices"] == [[1, 2], [3]]


def test_every_public_name_is_there():
    for name in romul.__all__:
        assert getattr(romul, name) is not None
    assert dir(romul) == sorted(romul.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'Flaot'"):
        romul.Flaot  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_that_the_public_names_document_can_be_caught_by_its_public_name():
    documented = set()
    for name in romul.__all__:
        found = getattr(romul, name)
        for part in (found, *vars(found).values()) if isinstance(found, type) else (found,):
            raised = (inspect.getdoc(part) or "").partition("Raises:\n")[2]
            documented |= set(re.findall(r"\b[A-Z]\w+Error\b", raised))
    assert {"CheckpointError", "SpaceError", "UnknownSlotError"} < documented
    assert documented - set(dir(builtins)) <= set(romul.__all__)


def test_a_type_checker_sees_the_public_names_and_no_others():
    body = ast.parse(Path(romul.__file__).read_text()).body
    # A visible `__getattr__` would make every name valid for the type checker.
    assert "__getattr__" not in {node.name for node in body if isinstance(node, ast.FunctionDef)}
    seen = {
        (node.module, alias.name, alias.asname)
        for block in body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    table = romul._MODULES
    assert seen == {(module, name, None) for module, names in table.items() for name in names}
    assert sorted(name for _, name, _ in seen) == romul.__all__


def classes_in(annotation):
    """The classes that an annotation names, also inside of others."""
    inner = [found for part in typing.get_args(annotation) for found in classes_in(part)]
    return [annotation, *inner] if isinstance(annotation, type) else inner


def test_the_types_that_public_objects_give_are_public():
    annotations = [
        typing.get_type_hints(part.fget)["return"]
        for owner in (romul.Result, romul.Population)
        for part in vars(owner).values()
        if isinstance(part, property)
    ]
    annotations += [
        typing.get_type_hints(part.func)["return"]
        for part in vars(romul.Result).values()
        if isinstance(part, functools.cached_property)
    ]
    annotations += typing.get_type_hints(romul.Schedule).values()
    annotations += typing.get_type_hints(romul.Population.__init__).values()
    given = {found for part in annotations for found in classes_in(part)}
    ours = {found for found in given if found.__module__.startswith("romul")}
    assert {found.__name__ for found in ours} >= {"TrialRecord", "SlotSnapshot", "Stretch", "Line"}
    assert ours <= {getattr(romul, name) for name in romul.__all__}


def test_an_error_comes_alone():
    async def fails():
        raise romul.TaskError("wrong")

    with pytest.raises(romul.TaskError) as caught:
        blocking.to_the_end(fails())
    assert caught.value.__context__ is None


def test_a_traceback_shows_the_line_of_a_cell(tmp_path):
    cell, lines = "/nowhere/cell-3.py", ["def train(trial):\n", "    return 1 / trial\n"]
    made: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("".join(lines), cell, "exec"), made)
    linecache.cache[cell] = (1, None, lines, cell)
    handed.write(tmp_path / "task", made["train"], None)
    # As in a worker's process, which has no cells of the notebook.
    del linecache.cache[cell]
    body = (tmp_path / "task" / handed.PICKLE).read_bytes()
    train, _ = handed.read(tmp_path / "task" / handed.PICKLE, hashlib.sha256(body).hexdigest())
    with pytest.raises(ZeroDivisionError) as caught:
        train(0)
    text = "".join(traceback.format_tb(caught.value.__traceback__))
    assert f'"{cell}", line 2, in train\n    return 1 / trial' in text


def test_what_an_older_version_handed_over_is_still_found_by_its_names(tmp_path):
    stored = b"(cromul_workers.handed\nHanded\ncromul_workers.handed\n_in_file\nt."
    assert pickle.loads(stored) == (handed.Handed, handed._in_file)
    handed.write(tmp_path / "task", math.sqrt, None)
    source = (tmp_path / "task" / f"{handed.MODULE}.py").read_text()
    assert "from romul_workers.handed import read" in source


def test_the_best_model_is_loaded(tmp_path):
    one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    trial = romul.Trial(
        "0-0", {}, None, tmp_path, 0, 1, seed=1, step=0, context=romul.Context("mine", "cpu", {})
    )
    trial.attach(model=one)
    trial.save()
    best = romul.Best("0-0", 0.0, {}, trial.checkpoint)
    best.load_model(other)
    assert torch.equal(one.weight, other.weight)
    with pytest.raises(CheckpointError, match="--copy-to"):
        romul.Best("0-0", 0.0, {}, "s3://far/0-0").load_model(other)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("report", "return the metric at the end of the step"),
        ("should_prune", "train on and return the metric: the population decides what goes on"),
        ("config", "hyperparameters are declared in the search's space, and lie in trial.hyperpar"),
        ("suggest_float", "hyperparameters are declared in the search's space, and lie in trial."),
        ("hyperparameter", "did you mean 'hyperparameters'?"),
        ("zzz", "it has attach, budget, checkpoint, constants"),
    ],
)
def test_what_a_trial_has_not_is_answered_with_what_it_has(tmp_path, name, hint):
    context = romul.Context("mine", "cpu", {})
    trial = romul.Trial("0-0", {}, None, tmp_path, 0, 1, seed=1, step=0, context=context)
    with pytest.raises(AttributeError) as raised:
        getattr(trial, name)
    assert str(raised.value).startswith(f"a Trial has no {name!r}: {hint}")
    assert not hasattr(trial, name)
    with pytest.raises(TypeError, match=r"lie in trial\.hyperparameters"):
        typing.cast("Any", trial)[name]


def test_places_are_given_as_range_takes_them():
    trial = romul.Population(SPACE, steps=4, budget=3).ask()
    places: Any = (trial.start, trial.stop)
    assert list(range(*places)) == [0, 1, 2]
    assert romul.Population(SPACE, steps=4, budget=0.5).ask().stop == 0.5


# -- declarations ---------------------------------------------------------------------------------


def test_python_and_toml_declare_the_same():
    toml = parse(
        """
name = "population"
task = "population"
steps = 3
direction = "maximize"
metric = "accuracy"
[space]
lr = { type = "float", min = 1e-4, max = 1, scale = "log" }
layers = { type = "int", min = 1, max = 8 }
kind = { type = "categorical", choices = ["a", "b"] }
nesterov = { type = "boolean", mutable = false }
"""
    )
    space = {**SPACE, "nesterov": romul.Bool(mutable=False)}
    population = romul.Population(space, steps=3, mode="max", metric="accuracy")
    assert population.state["experiment"] == toml.model_dump(mode="json", exclude_defaults=True)


def test_every_kind_of_hyperparameter_goes_by_its_toml_keys():
    toml = parse(
        """
name = "population"
task = "population"
steps = 3
[space]
rate = { type = "float", min = 0, max = 1, step = 0.1 }
widths = { type = "int", min = 16, max = 64, size = 3, mutable = false }
level = { type = "categorical", choices = ["low", "high"], ordinal = true }
[space.optimizer]
kind = { type = "categorical", choices = ["sgd", "adam"] }
momentum = { type = "float", min = 0, max = 0.99, when = { "optimizer.kind" = "sgd" } }
"""
    )
    space = {
        "rate": romul.Float(0, 1, step=0.1),
        "widths": romul.Int(16, 64, size=3, mutable=False),
        "level": romul.Choice("low", "high", ordinal=True),
        "optimizer": {
            "kind": romul.Choice("sgd", "adam"),
            "momentum": romul.Float(0, 0.99, when={"optimizer.kind": "sgd"}),
        },
    }
    population = romul.Population(space, steps=3)
    assert population.state["experiment"] == toml.model_dump(mode="json", exclude_defaults=True)
    trial = population.ask()
    assert set(trial.hyperparameters) - {"optimizer.momentum"} == {
        "rate",
        "widths",
        "level",
        "optimizer.kind",
    }
    # Values that TOML cannot express: null, and a list as one choice.
    odd = romul.Population({"x": romul.Choice(None, [1, 2], "1", 1)}, steps=2)
    seen = [odd.ask().hyperparameters["x"] for _ in range(8)]
    assert {repr(value) for value in seen} <= {"None", "[1, 2]", "'1'", "1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"popluation": 9},
            "Population() has no argument 'popluation': did you mean 'population'?",
        ),
        (
            {"direction": "minimize"},
            "Population() has no argument 'direction': did you mean 'mode'?",
        ),
        ({"n_jobs": 2}, "Population() has no argument 'n_jobs': only romul.run takes 'workers'"),
        (
            {"zzz": 1},
            "initial, max_attempts, max_hours, max_trials, metric, mode, optimizer, population",
        ),
        ({"from_run": "x"}, "Population() has no 'from_run': it has an effect only with a"),
        ({"name": "x"}, "Population() has no 'name': it has an effect only with a server"),
        (
            {"max_hours": 1, "clock": None},
            "'max_hours': it has no effect with clock=None",
        ),
        ({"mode": "minimum"}, "mode: 'minimum' is not 'min' or 'max'"),
        ({"population": 2}, "Population(): population: 2 is below 4"),
        ({"steps": "5"}, "Population(): steps: '5' is not a whole number"),
        ({"budget": "1"}, "Population(): budget: '1' is not a number"),
        ({"space": {"lr": romul.Float(cast("Any", "0"), 1)}}, "space.lr.min: '0' is not a number"),
        (
            {"space": {"a": {"lr": (0, 1)}}},
            "space.a.lr: (0, 1) is not a hyperparameter: write romul.",
        ),
        ({"space": {"n": romul.Bool}}, "is not a hyperparameter: write romul.Float(0, 1)"),
        ({"space": [1]}, "space: [1] is not a mapping: give hyperparameters by name"),
        ({"space": {"lr": romul.Float(1, 0.1)}}, "lr: min 1.0 is not below max 0.1"),
        ({"optimizer": "romull"}, "optimizer 'romull' is not one of"),
        ({"optimizer": "PBT"}, "did you mean 'truncation'?"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(changes, message):
    with pytest.raises(ExperimentError) as raised:
        romul.Population(**{"space": SPACE, "steps": 3, **changes})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "5"}, "run(): steps: '5' is not a whole number"),
        ({"workers": "2"}, "run(): workers: '2' is not a whole number above 0"),
        ({"workers": 0}, "run(): workers: 0 is not a whole number above 0"),
        ({"name": 3}, "run(): name: 3 is not text"),
        ({"name": ""}, "run(): name: '' is not allowed"),
        ({"name": None, "resume": True}, "resume=True needs the name of the search"),
        ({"resume": "AUTO"}, "run(): resume: 'AUTO' is not True or False"),
        ({"fresh": "no"}, "run(): fresh: 'no' is not True or False"),
        ({"runs": 3}, "run(): runs: 3 is not the path of a folder"),
        ({"setup": "load"}, "run(): setup: 'load' is not a function"),
        ({"callbacks": [romul.Callback]}, "is not a list of romul.Callback objects"),
        ({"callbacks": romul.Callback()}, "is not a list of romul.Callback objects"),
    ],
)
def test_a_wrong_argument_of_a_run_is_named_before_anything_begins(tmp_path, changes, message):
    given: dict[str, Any] = {"runs": tmp_path, "name": "mine", "steps": 5, **changes}
    with pytest.raises(ExperimentError) as raised:
        romul.run(loss, SPACE, **given)
    assert message in str(raised.value)
    # The traceback is that of the call, not of the loop below it.
    assert len(raised.traceback) <= 4
    assert list(tmp_path.iterdir()) == []


OF_OTHER_LIBRARIES = {
    "n_trials": "'population' and 'steps'",
    "num_samples": "'population'",
    "max_t": "'steps'",
    "max_concurrent_trials": "'workers'",
    "n_jobs": "'workers'",
    "resources_per_trial": "'gpus'",
    "time_budget_s": "'max_hours'",
    "timeout": "'max_hours'",
    "max_failures": "'max_attempts'",
    "do_minimize": "'mode'",
    "storage": "'name'",
    "points_to_evaluate": "'initial'",
    "scheduler": "'optimizer'",
    "sampler": "'optimizer'",
    "verbose": "'progress'",
}


@pytest.mark.parametrize("argument", OF_OTHER_LIBRARIES)
def test_an_argument_of_another_library_is_answered_with_its_counterpart(tmp_path, argument):
    keys: dict[str, Any] = {argument: 1}
    with pytest.raises(ExperimentError) as raised:
        romul.run(loss, SPACE, steps=5, runs=tmp_path, **keys)
    here = OF_OTHER_LIBRARIES[argument]
    assert str(raised.value) == f"run() has no argument {argument!r}: did you mean {here}?"
    assert set(re.findall(r"'(\w+)'", here)) <= {
        *inspect.signature(romul.run).parameters,
        *Experiment.model_fields,
    }


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("constraints", "returns NaN"),
        ("patience", "raise romul.StopSearch"),
    ],
)
def test_an_argument_without_a_counterpart_is_answered_with_another_way(tmp_path, argument, hint):
    keys: dict[str, Any] = {argument: 1}
    with pytest.raises(ExperimentError) as raised:
        romul.run(loss, SPACE, steps=5, runs=tmp_path, **keys)
    assert hint in str(raised.value)
    assert "did you mean" not in str(raised.value)


@pytest.mark.parametrize("call", [romul.run, romul.run_async, romul.submit, romul.submit_async])
def test_what_is_trained_has_one_name_in_all_calls(call):
    first, *_ = inspect.signature(call).parameters.values()
    assert (first.name, first.kind) == ("task", inspect.Parameter.POSITIONAL_OR_KEYWORD)


def test_wrong_arguments_of_other_calls_are_named(tmp_path):
    with pytest.raises(ExperimentError, match=r"extend\(\): steps: '60' is not a whole number"):
        romul.extend("mine", steps=cast("Any", "60"), runs=tmp_path)
    with pytest.raises(ExperimentError, match=r"extend\(\): workers: 0 is not a whole number"):
        romul.extend("mine", steps=60, workers=0, runs=tmp_path)
    with pytest.raises(ExperimentError, match=r"wait\(\): name: 3 is not text"):
        romul.wait(cast("Any", 3), redis="redis://127.0.0.1:1/0")
    with pytest.raises(TypeError, match=r"^run\(\) missing 1 required .*'steps'"):
        romul.run(loss, SPACE)  # type: ignore[call-arg]
    population = romul.Population(SPACE, steps=3)
    with pytest.raises(ExperimentError, match=r"extend\(\): steps: '9' is not a whole number"):
        population.extend(cast("Any", "9"))


def test_a_search_that_may_not_pay_is_warned_of_where_it_was_called(tmp_path):
    # Refused after the declaration was checked.
    url = "http://127.0.0.1"
    for steps, n in ((9, 1), (10, 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(romul.RomulError):
                romul.submit("m:train", SPACE, redis=url, name="e", checkpoints="/c", steps=steps)
            with pytest.raises(romul.RomulError):
                romul.run(loss, SPACE, steps=steps, name="e", runs=tmp_path, resume=True)
        assert [warning.category for warning in caught] == [romul.AdviceWarning] * 2 * n
        assert all(str(warning.message).startswith("steps = 9: ") for warning in caught)
        assert {warning.filename for warning in caught} <= {__file__}


# -- ask and tell ---------------------------------------------------------------------------------


def test_a_population_is_trained_without_a_server():
    population = romul.Population(SPACE, population=8, steps=5, seed=1)
    moves = to_the_end(population)
    assert (population.status, population.done, len(moves)) == ("finished", True, 40)
    best = population.best
    assert best.checkpoint == f"of {best.trial}"
    assert best.value == min(
        abs(math.log(h["lr"] / 0.01)) + h["layers"] + (h["kind"] == "b") for _, h, _, _ in moves
    )
    assert best.checkpoint in population.checkpoints
    parents = {parent for trial, _, parent, _ in moves if not trial.endswith("-0")}
    assert parents <= {f"of {trial}" for trial, *_ in moves}


@pytest.mark.parametrize("optimizer", ["romul", "truncation"])
@pytest.mark.parametrize("machines", [1, 3, 8])
def test_its_moves_are_those_of_a_run_whose_results_come_in_the_same_order(optimizer, machines):
    """A run with the real actor and workers over the memory store, in virtual time."""
    simulated = simulate(
        Scenario(
            changes=[Change(0.0, f"m{i}", "arrives") for i in range(machines)],
            optimizer=optimizer,
            steps=8,
            seed=5,
            policy=Policy(second_copy=0.0),
            history=True,
        )
    )
    [history] = simulated.history.values()
    now_s = history[0].at_ms / 1000
    population = romul.Population(
        TOYS["misspecified"].space,
        population=8,
        steps=8,
        seed=5,
        optimizer=optimizer,
        clock=lambda: now_s,
    )
    ours = {}

    def take():
        while population.ready:
            trial = population.ask()
            ours[trial.id] = (dict(trial.hyperparameters), trial.parent, trial.seed)

    take()
    checkpoints, ticks = {}, 0
    for line in history:
        now_s = line.at_ms / 1000
        match line:
            case TrialReported():
                checkpoints[line.trial] = line.checkpoint
                named, seconds = line.checkpoint, line.seconds
                population.tell(line.trial, line.value, checkpoint=named, seconds=seconds)
            case TimePassed():
                # An idle worker asks, when the run's actor noticed that it was idle.
                ticks += 1
                if (trial := population.ask()) is not None:
                    ours[trial.id] = (dict(trial.hyperparameters), trial.parent, trial.seed)
        take()
    theirs = {
        line.trial: (line.hyperparameters, line.parent and checkpoints[line.parent], line.seed)
        for line in history
        if isinstance(line, TrialCreated)
    }
    assert ours == theirs
    assert len(theirs) == 64
    # With workers that wait, steps were decided without their last results.
    assert machines == 1 or optimizer == "truncation" or ticks > 0
    assert population.done


def test_without_a_clock_the_order_of_results_alone_decides():
    def moves(seed):
        population = romul.Population(SPACE, steps=4, seed=3, clock=None)
        rng, found = random.Random(seed), []
        while not population.done:
            while (trial := population.ask()) is not None:
                found.append((trial.id, dict(trial.hyperparameters)))
            trial = rng.choice(population.out)
            population.tell(trial, loss(trial))
        return sorted(found, key=repr)

    assert moves(1) == moves(1)
    # Every step waits for all slots, so even the order does not matter.
    assert moves(1) == moves(2)


def test_nothing_is_given_while_a_step_waits_for_its_quorum():
    now_s = 0.0
    population = romul.Population(SPACE, population=8, steps=2, clock=lambda: now_s)
    trials = [population.ask() for _ in range(8)]
    assert population.ask() is None
    for trial in trials[:5]:
        population.tell(trial, loss(trial), seconds=10.0)
    now_s = 100.0
    assert population.ask() is None
    population.tell(trials[5], loss(trials[5]), seconds=10.0)
    # Six of eight are known, which is the quorum; a worker waits a twentieth of a trial more.
    assert population.ask() is None
    now_s = 101.0
    assert population.ask().step == 1
    assert [trial.id for trial in population.out[:2]] == ["6-0", "7-0"]


@pytest.mark.parametrize("at", [0, 3, 11, 20])
def test_its_state_goes_on_as_if_nothing_had_been(at):
    whole = to_the_end(romul.Population(SPACE, steps=4, seed=2, clock=None))
    population = romul.Population(SPACE, steps=4, seed=2, clock=None)
    moves = []
    for _ in range(at):
        trial = population.ask()
        moves.append((trial.id, dict(trial.hyperparameters), trial.parent, trial.seed))
        population.tell(trial, loss(trial), checkpoint=f"of {trial.id}", seconds=1.0)
    saved = json.loads(json.dumps(population.state))
    again = romul.Population.load(saved, clock=None)
    assert again.state == population.state
    assert to_the_end(again, moves) == whole


def test_its_state_goes_on_without_options_that_are_no_more():
    population = romul.Population(SPACE, steps=4, optimizer={"name": "romul", "power": 0.1})
    saved = json.loads(json.dumps(population.state))
    saved["experiment"]["optimizer"]["options"]["replaced_first"] = 0.5
    with pytest.warns(romul.AdviceWarning, match="replaced_first = 0.5 no longer counts") as caught:
        again = romul.Population.load(saved)
    assert [warning.filename for warning in caught] == [__file__]
    assert again.state == saved
    with pytest.raises(ExperimentError, match="no option 'replaced_first' any more"):
        romul.Population(SPACE, steps=4, optimizer={"name": "romul", "replaced_first": 0.5})


def test_a_trial_that_is_out_when_the_state_is_saved_can_still_be_told():
    population = romul.Population(SPACE, steps=4)
    trial = population.ask()
    again = romul.Population.load(json.dumps(population.state))
    assert again.out == population.out == [trial]
    again.tell(trial.id, 0.5)
    assert again.best.value == 0.5
    with pytest.raises(ExperimentError, match="version 0 is not 1"):
        romul.Population.load({"version": 0})
    with pytest.raises(ExperimentError, match="it is not JSON"):
        romul.Population.load("{")


class Noticed:
    """A lock that signals when a thread reaches it."""

    def __init__(self, lock, arrived):
        self._lock = lock
        self._arrived = arrived

    def __enter__(self):
        self._arrived.set()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


@pytest.mark.parametrize("how", ["tell", "failed"])
def test_what_another_thread_says_meanwhile_is_not_lost(monkeypatch, how):
    population = romul.Population(SPACE, population=8, steps=4)
    first, second = population.ask(), population.ask()
    arrived, others = threading.Event(), list[threading.Thread]()
    monkeypatch.setattr(population, "_lock", Noticed(population._lock, arrived))

    def say():
        if how == "tell":
            population.tell(second, 2.0)
        else:
            population.failed(second, again=False)
        arrived.set()

    def decided(before, event):
        if not others:
            # Another thread calls during one thread's call: it waits, or it is served.
            arrived.clear()
            others.append(threading.Thread(target=say))
            others[0].start()
            arrived.wait()
        return decide(before, event)

    monkeypatch.setattr("romul_actors.actor.standalone.decide", decided)
    population.tell(first, 1.0)
    others[0].join()
    assert "2 of 32 trials, best loss 1>" in repr(population)


def test_a_population_is_copied_and_pickled_in_the_midst_of_its_search():
    population = romul.Population(SPACE, steps=4, seed=2, clock=None)
    population.tell(trial := population.ask(), loss(trial))
    out = population.ask()
    for made in (pickle.loads(pickle.dumps(population)), copy.copy(population)):
        assert made.state == population.state
        made.tell(out, loss(out))
        assert made.out == []
    assert population.out == [out]


def test_what_is_no_state_is_refused():
    population = romul.Population(SPACE, steps=4)
    population.ask()
    for key, damage in (
        ("slots", [{"vector": "[1"}]),
        ("slots", None),
        ("ready", [{"odd": 1}]),
        ("population", {"status": "asleep"}),
        ("out", [{}]),
        ("optimizer", "other"),
    ):
        with pytest.raises(ExperimentError, match=r"^state: "):
            romul.Population.load({**population.state, key: damage})
    with pytest.raises(
        ExperimentError, match=r"^state: .*: it must be a value of Population.state"
    ):
        romul.Population.load({k: v for k, v in population.state.items() if k != "slots"})
    with pytest.raises(ExperimentError, match="version None is not 1"):
        romul.Population.load(cast("Any", None))


def test_figures_beside_the_metric_are_kept_with_the_best_trial():
    population = romul.Population(SPACE, steps=4, metric="accuracy", mode="max")
    population.tell(population.ask(), {"accuracy": np.float32(0.5), "loss": 2.0})
    assert (population.best.value, population.best.metrics) == (0.5, {"loss": 2.0})
    population.tell(population.ask(), 0.75, metrics={"loss": 1.0, "note": "text"})
    assert (population.best.value, population.best.metrics) == (0.75, {"loss": 1.0})
    assert "best accuracy 0.75" in repr(population)


def test_a_trial_that_failed_is_given_again_and_then_given_up():
    population = romul.Population(SPACE, population=4, steps=2, max_attempts=2)
    trials = [population.ask() for _ in range(4)]
    population.failed(trials[0], "the machine broke")
    again = population.ask()
    assert (again.id, again.attempt, again.seed) == (trials[0].id, 2, trials[0].seed)
    population.failed(again)
    population.failed(trials[1], again=False)
    for trial in trials[2:]:
        population.tell(trial, loss(trial), checkpoint=trial.id)
    following = [population.ask() for _ in range(4)]
    assert all(trial.parent in ("2-0", "3-0") for trial in following)


def test_when_every_trial_fails_the_population_says_so():
    population = romul.Population(SPACE, population=4, steps=2)
    while (trial := population.ask()) is not None:
        population.failed(trial, "no data", again=False)
    assert (population.status, population.done, population.best) == ("failed", True, None)
    assert "every trial of step 0 failed" in population.reason
    assert "no data" in population.reason


def test_what_cannot_be_told_says_why():
    population = romul.Population(SPACE, steps=4, metric="val_loss")
    trial = population.ask()
    for value in (math.nan, math.inf):
        with pytest.raises(
            romul.TellError, match=r"val_loss is (nan|inf): a result must be finite"
        ):
            population.tell(trial, value)
    with pytest.raises(
        romul.TellError, match=r"the result has val_loss = .*, which is not a number"
    ):
        population.tell(trial, cast("float", "0.3"))
    with pytest.raises(romul.TellError, match="trial 0-0: the result has no 'val_loss', which"):
        population.tell(trial, {"loss": 0.3})
    with pytest.raises(romul.TellError, match=r"\{\} is not a trial: give the trial from ask"):
        population.tell(cast("Any", {}), 0.5)
    with pytest.raises(romul.TellError, match="trial 1-0 has not been asked for yet"):
        population.tell("1-0", 0.3)
    with pytest.raises(romul.TellError, match="'x' is unknown; trials that wait for a result: 0-0"):
        population.failed("x")
    population.tell(trial, 0.3)
    with pytest.raises(
        romul.TellError, match="trial 0-0 has already ended: report each trial only once"
    ):
        population.tell(trial, 0.3)
    second = population.ask()
    population.failed(second)
    while (other := population.ask()).id != second.id:
        pass
    with pytest.raises(romul.TellError, match="attempt 1 has failed; attempt 2 is running"):
        population.tell(second, 0.3)
    population.tell(other, 0.3)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("checkpoint", 7, "checkpoint: 7 is not a name: give a text that is not empty, or a path"),
        ("checkpoint", b"x", "checkpoint: b'x' is not a name"),
        ("checkpoint", "", "checkpoint: '' is not a name"),
        ("checkpoint", "\udcff", r"checkpoint: '\\udcff' is not valid Unicode"),
        ("metrics", {"\udcff": 1.0}, r"metrics: '\\udcff' is not valid Unicode"),
        ("seconds", math.nan, "seconds: nan is not finite and at least 0"),
        ("seconds", math.inf, "seconds: inf is not finite and at least 0"),
        ("seconds", -1, "seconds: -1.0 is not finite and at least 0"),
        ("seconds", "5", "the result has seconds = '5', which is not a number"),
        ("seconds", True, "the result has seconds = True, which is not a number"),
    ],
)
def test_what_a_saved_state_cannot_hold_is_not_taken(argument, value, message):
    population = romul.Population(SPACE, steps=4)
    trial = population.ask()
    before = population.state
    with pytest.raises(romul.TellError, match=f"^trial 0-0: {message}"):
        population.tell(trial, 0.5, **{argument: value})
    assert population.state == before
    population.tell(trial, 0.5)
    assert population.best.value == 0.5


def test_a_state_with_paths_and_scalars_is_loaded(tmp_path):
    # A clock may return scalars of NumPy, too, and may be set back.
    times: Any = iter(np.arange(100, 0, -1, dtype=np.float32))
    population = romul.Population(SPACE, population=4, steps=2, clock=lambda: next(times))
    population.tell(population.ask(), 0.1, checkpoint=tmp_path / "7")
    given: tuple[Any, ...] = (np.float32(3), np.int64(3), 2)
    for seconds in given:
        population.tell(population.ask(), 0.5, seconds=seconds)
    population.ask()
    saved = json.loads(json.dumps(population.state))
    assert [slot["seconds"] for slot in saved["slots"]] == ["0.0", "3.0", "3.0", "2.0"]
    again = romul.Population.load(saved)
    assert again.state == saved
    assert again.best.checkpoint == str(tmp_path / "7")


def test_a_search_is_not_extended_to_more_steps_than_a_state_may_have():
    population = romul.Population(SPACE, steps=4)
    before = population.state
    with pytest.raises(ExperimentError, match=r"^steps: 1000000001 is above 1000000000$"):
        population.extend(10**9 + 1)
    assert population.state == before


class Mine(Truncation):
    """A user's own optimizer."""

    name = "mine"


def test_an_optimizer_of_ones_own_decides():
    assert isinstance(Mine(), Optimizer)
    population = romul.Population(SPACE, steps=3, optimizer=Mine(), clock=None)
    moves = to_the_end(population)
    assert moves == to_the_end(romul.Population(SPACE, steps=3, optimizer="truncation", clock=None))
    with pytest.raises(
        ExperimentError,
        match=r"pass that optimizer again, as in Population.load\(state, optimizer=",
    ):
        romul.Population.load(population.state)
    romul.Population.load(population.state, optimizer=Mine())


def test_a_population_is_not_changed_by_its_state():
    population = romul.Population(SPACE, steps=3)
    saved = population.state
    trial = population.ask()
    assert saved["ready"][0]["id"] == trial.id
    assert saved["out"] == []
    assert replace(trial) == trial


def test_a_misspelt_hook_is_refused():
    with pytest.raises(TypeError, match=r"Wrong\.on_resul is not a hook: did you mean 'on_result'"):

        class Wrong(romul.Callback):
            def on_resul(self, line):
                pass

    class Right(romul.Callback):
        def on_epoch_end(self):
            """A method of the program itself."""

        def on_results(self):
            """Another method, with a name similar to a hook."""

        def on_result(self, line):
            pass

        def _on_end(self):
            pass

    assert isinstance(Right(), romul.Callback)


def test_all_callbacks_receive_the_line_that_stops_the_search():
    received = []

    class Keep(romul.Callback):
        def on_result(self, line):
            received.append(line)

    class Stop(Keep):
        def on_result(self, line):
            super().on_result(line)
            raise romul.StopSearch

    with pytest.raises(romul.StopSearch):
        call([Stop(), Keep(), Stop(), Keep()], reported())
    assert received == [reported()] * 4

    class Wrong(romul.Callback):
        def on_result(self, line):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call([Stop(), Wrong()], reported())
