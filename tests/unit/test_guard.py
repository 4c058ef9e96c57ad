"""Which hyperparameters are guarded: by declaration, by name, or else by logarithmic scale."""

import pytest

import romul
from romul_actors.core.bounds import with_bounds
from romul_actors.core.guard import is_rate
from romul_actors.core.parameter import CategoricalParameter, FloatParameter, IntParameter
from romul_actors.protocol.advice import guarded
from romul_actors.protocol.experiment import Experiment


@pytest.mark.parametrize(
    "name",
    [
        *("lr", "LR", "lr0", "base_lr", "actor-lr", "optimizer.lr", "lr[3]", "eta", "eta0"),
        *("learning_rate", "learningRate", "learning rate 2", "log_learning_rate", "step_size"),
        *("rate", "rate_encoder", "rates.rate1", "critic_rate", "actorLr", "criticLR", "lrs[0]"),
        *("clip", "gradient_clip_val", "max_grad_norm", "clipnorm"),
    ],
)
def test_a_learning_rate_is_known_by_its_name(name):
    assert is_rate(FloatParameter(name, 1e-4, 1.0, "log"))


@pytest.mark.parametrize(
    "name",
    [
        *("decay", "lr_decay", "learning_rate_decay", "weight_decay_rate", "dropout_rate"),
        *("lrelu_slope", "theta", "batch_size", "alpha", "lr.momentum", "", "3", "generate"),
        *("drop_path_rate", "beta", "a_rate_b", "lr_gamma", "lr_warmup_share", "lr_factor"),
    ],
)
def test_other_names_say_no_learning_rate(name):
    assert not is_rate(FloatParameter(name, 1e-4, 1.0, "log"))


def test_a_mere_rate_is_a_learning_rate_on_a_logarithmic_scale_only():
    assert is_rate(FloatParameter("mutation_rate", 0.1, 1.0, "log"))
    assert not is_rate(FloatParameter("mutation_rate", 0.1, 1.0))
    assert is_rate(FloatParameter("learning_rate", 0.1, 1.0))


def test_a_learning_rate_is_a_real_number():
    assert not is_rate(IntParameter("lr", 1, 9, "log"))
    assert not is_rate(CategoricalParameter("lr", (0.1, 0.2)))


def log(**more):
    return romul.Float(1e-4, 1.0, log=True, **more).table


LINEAR = romul.Float(0.0, 1.0).table
BATCH = romul.Int(8, 64, log=True).table


@pytest.mark.parametrize(
    ("space", "held"),
    [
        ({"lr": log(), "decay": log(), "x": LINEAR}, ["lr"]),
        ({"temperature": log(), "decay": log(), "batch": BATCH, "x": LINEAR}, None),
        ({"temperature": log(guarded=True), "decay": log(), "batch": BATCH}, ["temperature"]),
        ({"lr": log(guarded=False), "decay": log(), "x": LINEAR}, []),
        ({"speed": log(guarded=False), "decay": log(), "x": LINEAR}, []),
        ({"lr": log(), "speed": log(guarded=True)}, ["lr", "speed"]),
        ({"lr": log(guarded=False), "x": LINEAR}, []),
        ({"lr": log(), "x": {**LINEAR, "guarded": True}}, ["lr", "x"]),
        ({"lr": LINEAR, "decay": log()}, ["lr"]),
        ({"lr": {"type": "categorical", "choices": [1, 2]}, "decay": log()}, ["decay"]),
        ({"alpha": log(), "decay": log(), "lr_warmup_steps": BATCH}, None),
        ({"alpha": log(), "decay": log(guarded=False)}, []),
        ({"kind": {"type": "categorical", "choices": ["lr", "eta"]}, "lr": log()}, ["lr"]),
        ({"x": LINEAR}, []),
        ({"lr": {**log(), "size": 3}, "decay": {**log(), "size": 2}}, ["lr[0]", "lr[1]", "lr[2]"]),
    ],
)
def test_what_is_guarded(space, held):
    if held is None:
        held = [name for name, table in space.items() if table.get("scale") == "log"]
    found = experiment(space).search_space()
    assert [axis.name for axis, on in zip(found, found.guarded, strict=True) if on] == held


def experiment(space, **more):
    fields = {"name": "e", "task": "t", "steps": 20, "space": space, **more}
    return Experiment.model_validate(fields)


def test_new_bounds_keep_what_is_declared():
    space = experiment({"x": log(guarded=True), "lr": log(guarded=False)}).search_space()
    assert with_bounds(with_bounds(space, "x", 1e-3, 1.0), "lr", 1e-3, 1.0).guarded == (True, False)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"lr": log(), "decay": log()}, "early in a run romul's moves do not lower lr"),
        ({"x": log(guarded=True)}, "early in a run romul's moves do not lower x"),
        ({"x": log(), "y": log()}, "early in a run romul's moves do not lower x, y"),
        ({"x": LINEAR}, "romul's moves may lower every hyperparameter"),
        ({"lr": log(guarded=False), "y": log()}, "romul's moves may lower every hyperparameter"),
    ],
)
def test_what_is_guarded_in_words(space, said):
    found = guarded(experiment(space))
    assert found
    assert found.startswith(said)
    assert ("logarithmic" in found) == (said.endswith("x, y"))
    assert guarded(experiment(space, optimizer="truncation")) is None
    for option in ("guarded", "guarded_generations"):
        never = {"name": "romul", option: 0}
        assert "may lower every" in str(guarded(experiment(space, optimizer=never)))


@pytest.mark.parametrize(
    ("space", "missed"),
    [
        ({"lr": {"actor": log(), "critic": log()}, "clip": log()}, "lr.actor, lr.critic"),
        ({"rate": {"actor": log()}, "eta": LINEAR}, "rate.actor"),
        ({"lr": {"list": {**log(), "size": 2}}, "eta": LINEAR}, "lr.list"),
        # A declaration disables the fallback, which would guard all logarithmic scales.
        ({"lr": {"actor": log()}, "x": {**LINEAR, "guarded": False}}, "lr.actor"),
        # Each one declares it, is guarded, or is no rate under any reading.
        ({"lr": {"actor": log(guarded=False), "critic": log(guarded=True)}, "eta": LINEAR}, None),
        ({"optimizer": {"lr": log(), "decay": log()}, "clip": {"decay": log()}}, None),
        ({"lr": {"momentum": LINEAR, "batch": BATCH}, "eta": LINEAR}, None),
        ({"lr": {"actor": log(), "critic": log()}}, None),
    ],
)
def test_rates_that_only_their_tables_name_are_said_not_to_be_held(space, missed):
    found = str(guarded(experiment(space)))
    begin, _, rest = found.partition("; they may lower ")
    assert begin
    if missed is None:
        assert not rest
    else:
        assert rest.startswith(f"{missed}, because only the last part of a nested name counts")


def test_a_declaration_that_says_nothing_is_stored_as_before():
    declared = experiment({"lr": log(), "batch": BATCH})
    assert "guarded" not in declared.model_dump_json()
    said = experiment({"lr": log(guarded=False)}).model_dump(mode="json")["space"]["lr"]
    assert said["guarded"] is False
