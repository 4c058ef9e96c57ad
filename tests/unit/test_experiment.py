import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from romul_actors.core.decide import decide
from romul_actors.core.events import Stamped, Submitted
from romul_actors.core.optimizers import OPTIMIZERS, make
from romul_actors.core.optimizers.random_search import RandomSearch
from romul_actors.core.population import Population
from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import (
    ElasticitySpec,
    Experiment,
    FloatSpec,
    OptimizerSpec,
    Resources,
    Timeouts,
    from_json,
    from_values,
    load,
    parse,
)
from romul_actors.protocol.plan import check, left_out, settings
from romul_actors.protocol.plan import load as load_all

GOOD = """\
name = "e"
task = "package.module:fit"
metric = "accuracy"
direction = "maximize"
steps = 3
optimizer = { name = "romul", factor = 0.5 }

[space]
lr = { type = "float", min = 1e-4, max = 1.0, scale = "log" }
kind = { type = "categorical", choices = ["a", 1, true] }

[space.n]
type = "int"
min = 1
max = 9
mutable = false

[initial]
lr = 0.1
n = 2
kind = true
"""


def test_a_declaration_says_it_all():
    experiment = parse(GOOD)
    assert (experiment.module, experiment.function) == ("package.module", "fit")
    core = settings(experiment)
    assert (core.n_slots, core.steps, core.maximize) == (8, 3, True)
    assert core.optimizer == make("romul", {"factor": 0.5})
    assert core.space.mutable == (True, True, False)
    assert core.space.decode(core.initial[0]) == {"lr": pytest.approx(0.1), "kind": True, "n": 2}


def test_what_initial_leaves_out_is_drawn():
    space = """
[space]
kind = { type = "categorical", choices = ["sgd", "adam"] }
lr = { type = "float", min = 0.0, max = 1.0 }
widths = { type = "int", min = 1, max = 64, size = 3 }
beta = { type = "float", min = 0.0, max = 1.0, when = { kind = "adam" } }
momentum = { type = "float", min = 0.0, max = 1.0, when = { kind = "sgd" } }
"""
    head = 'name = "e"\ntask = "t"\nsteps = 3\n'

    def begun(initial):
        start = Population(settings=settings(parse(f"{head}{initial}{space}")))
        return decide(start, Stamped(Submitted(), 1)).trials

    drawn = begun("")
    trials = begun('initial = [{ lr = 0.5 }, { kind = "adam", lr = 0.5 }, {}]')
    assert trials[0].hyperparameters == {**drawn[0].hyperparameters, "lr": 0.5}
    assert set(trials[1].hyperparameters) == {"kind", "lr", "widths", "beta"}
    assert trials[1].hyperparameters["widths"] == drawn[1].hyperparameters["widths"]
    assert trials[2:] == drawn[2:]


def test_the_store_gives_back_what_was_declared():
    experiment = parse(GOOD)
    assert from_json(experiment.model_dump_json()) == experiment


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 3", "steps = 0", "e.toml:5: steps: 0 is not above 0"),
        ("min = 1e-4", "min = 2.0", "e.toml:9: lr: min 2.0 is not below max 1.0"),
        ("min = 1e-4", "min = 0.0", "e.toml:9: lr: min 0.0 on a log scale"),
        ("max = 9", 'max = "many"', "e.toml:15: space.n.max"),
        ('type = "int"', 'type = "integer"', "e.toml:13: space.n.type|e.toml:12: space.n"),
        ("steps = 3", "step = 3", "e.toml:5: step: no such key: did you mean 'steps'"),
        ("steps = 3", "", "e.toml: steps: required, but not given"),
        ('"maximize"', '"up"', "e.toml:4: direction"),
        ('"accuracy"', '"step"', "'step' is reserved for the store"),
        ('"package.module:fit"', '"os.system(1)"', "e.toml:2: task"),
        ("lr = 0.1", "lr = 7", r"lr: 7 is outside \[0.0001, 1.0\]"),
        ("steps = 3", "steps = = 3", "line 5"),
    ],
)
def test_a_mistake_is_an_error_with_its_line_and_field(tmp_path, old, new, message):
    file = tmp_path / "e.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ExperimentError, match=message):
        load(file)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ('"gradient"', "optimizer 'gradient' is not one of romul, truncation, initiator"),
        ('{ name = "romul", facter = 0.5 }', "no option 'facter': did you mean 'factor'"),
        ('{ name = "romul", factor = "half" }', "factor = 'half' is not a float"),
        ('{ name = "romul", factor = true }', "factor = True is not a float"),
        ('{ name = "romul", patience = 0.6 }', "no option 'patience': it takes quorum_share"),
        ('{ name = "romul", factor = -1 }', "factor = -1 is below 0"),
        ('{ name = "romul", factor = nan }', "factor = nan is not finite"),
        ('{ name = "romul", factor = inf }', "factor = inf is not finite"),
        ('{ name = "romul", factor = [0.5] }', r"factor = \[0\.5\] is not a float"),
        ('{ name = "random", factor = 0.5 }', "no option 'factor': it takes none"),
    ],
)
def test_a_wrong_optimizer_is_refused_before_anything_runs(optimizer, message):
    text = GOOD.replace('{ name = "romul", factor = 0.5 }', optimizer)
    with pytest.raises(ExperimentError, match=message):
        settings(parse(text))


@dataclass(frozen=True)
class Worded(RandomSearch):
    """An optimizer with an option that is text; no built-in optimizer has one."""

    name: ClassVar[str] = "worded"
    rule: str = "plain"


def test_an_option_that_is_text_takes_text_alone(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "worded", Worded)
    assert make("worded", {"rule": "other"}) == Worded(rule="other")
    text = GOOD.replace("factor = 0.5", "rule = 3").replace("romul", "worded")
    with pytest.raises(ExperimentError, match="rule = 3 is not a str"):
        settings(parse(text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_hours = 1e308", r"max_hours: 1e\+308 is above 1e\+09"),
        ("timeouts.lease_s = 1e308", r"timeouts.lease_s: 1e\+308 is above 1e\+09"),
        ("timeouts.setup_s = inf", "timeouts.setup_s: inf is not finite"),
        ("timeouts.trial_s = inf", "timeouts.trial_s: inf is not finite"),
        ("timeouts.quorum_s = nan", "timeouts.quorum_s: nan is not finite"),
        ("elasticity.second_copy = inf", "elasticity.second_copy: inf is not finite"),
        ("elasticity.per_worker = inf", "elasticity.per_worker: inf is not finite"),
        ("budget = 1e308", r"budget: 3 steps of 1e\+308 are too long in total"),
    ],
)
def test_a_time_that_cannot_be_counted_is_refused(line, message):
    with pytest.raises(ExperimentError, match=message):
        check(parse(f"{line}\n{GOOD}"))


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (
            "min = 0.0, max = 1.0, step = 5e-324",
            r"lr: step 5e-324 is too small for the range from min 0",
        ),
        ("min = -1e308, max = 1e308", r"lr: min -1e\+308 to max 1e\+308 is too wide"),
        ("min = -1e308, max = 1e308, step = 1.0", r"lr: min -1e\+308 to max 1e\+308 is too"),
        ('min = 5e-324, max = 1e308, scale = "log"', r"lr: min 5e-324 to max 1e\+308 is too"),
        ("min = 0.0, max = 1.0, step = 0.0", r"lr: step 0.0 is not above 0"),
    ],
)
def test_a_range_that_cannot_be_counted_on_is_refused(rate, message):
    text = GOOD.partition("[space]")[0] + f'[space]\nlr = {{ type = "float", {rate} }}\n'
    with pytest.raises(ExperimentError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ("guarded = 2.0", "optimizer 'romul': guarded = 2.0 is above 1"),
        ("power = 1e30", r"power = 1e\+30 is above 1e\+09"),
        ("power = 1" + "0" * 30, "power = 1" + "0" * 30 + " has more than 64 bits"),
        pytest.param(
            "power = 0x1" + "0" * 5000,
            "power = a int that is too long to show has more than",
            id="long",
        ),
        ('name = "pb2", candidates = 1', "optimizer 'pb2': candidates = 1 is below 2"),
        ('name = "pb2", candidates = 2_000_000', "candidates = 2000000 is above 1e"),
        ('name = "pb2", startup = 0', "startup = 0 is below 1"),
        ('name = "mf_pbt", slowest = 0', "slowest = 0 is below 1"),
        ('name = "de", crossover = 1.01', "crossover = 1.01 is above 1"),
        ('name = "asha", eta = 1_000_000_001', r"eta = 1000000001 is above 1e\+09"),
    ],
)
def test_a_constant_out_of_its_range_is_refused_with_its_line(tmp_path, optimizer, message):
    if '"pb2"' in optimizer:
        pytest.importorskip("sklearn")
    file = tmp_path / "e.toml"
    declared = GOOD.replace('name = "romul", factor = 0.5', optimizer)
    file.write_text(declared)
    with pytest.raises(ExperimentError, match=rf"e\.toml:\d+: .*{message}"):
        load_all(file)
    if "0x" not in optimizer:
        with pytest.raises(ExperimentError, match=message):
            check(parse(declared))


def test_a_stored_search_goes_on_with_a_constant_that_is_out_of_its_range_by_now():
    stored = parse(GOOD.replace("factor = 0.5", "guarded = 2.0"))
    assert settings(stored).optimizer == make("romul", {"guarded": 2.0})


@pytest.mark.parametrize(
    ("optimizer", "taken", "said"),
    [
        (
            'name = "romul", replaced_first = 0.5, factor = 0.3',
            {"factor": 0.3},
            "replaced_first = 0.5 no longer counts: .* any more: the share of slots",
        ),
        (
            'name = "romul", replaced_last = 0.25, power = 0.1',
            {"power": 0.1},
            "replaced_last = 0.25 no longer counts: .* any more: .* rises to all others",
        ),
        (
            'name = "romul", mutation = 0.25',
            {},
            "mutation = 0.25 no longer counts: .* any more: every copied vector moves",
        ),
        ('name = "romul", sigma = 0.1', {}, "sigma = 0.1 no longer counts: .* any more: noise"),
        ('name = "romul", redraw = 0', {}, "redraw = 0 no longer counts: .* any more: noise"),
        (
            'name = "romul", raised = 1.0',
            {},
            "raised = 1.0 no longer counts: .* any more: .* never below its base",
        ),
        ('name = "romul", power = -1.0', {}, "power = -1.0 no longer counts: .* is below 0"),
        ('name = "asha", eta = 1', {}, "eta = 1 no longer counts: .* eta = 1 is below 2"),
    ],
)
def test_a_stored_search_goes_on_without_what_its_optimizer_does_not_take(optimizer, taken, said):
    stored = parse(GOOD.replace('name = "romul", factor = 0.5', optimizer))
    assert settings(stored, stored=True).optimizer == make(stored.optimizer.name, taken)
    [sentence] = left_out(stored)
    assert re.match(said, sentence)
    # It is not decided any more.
    assert not left_out(stored, "finished")
    with pytest.raises(ExperimentError, match=re.escape(sentence.partition(": ")[2])):
        check(stored)


@dataclass(frozen=True)
class Unsound(RandomSearch):
    """An optimizer of an installed package that cannot be created on this machine."""

    name: ClassVar[str] = "unsound"

    def __post_init__(self) -> None:
        raise ValueError("no license")


def test_what_an_optimizer_that_cannot_be_made_takes_is_not_known(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "unsound", Unsound)
    assert not left_out(parse(GOOD.replace("romul", "unsound")))


def test_what_an_unknown_optimizer_takes_is_not_known():
    stored = parse(GOOD.replace('name = "romul", factor = 0.5', 'name = "former", factor = 0.5'))
    assert not left_out(stored)
    with pytest.raises(ExperimentError, match="optimizer 'former' is not one of"):
        settings(stored, stored=True)


def test_more_steps_than_can_be_read_back_are_refused():
    with pytest.raises(ExperimentError, match="steps: 1000000001 is above 1000000000"):
        settings(parse(GOOD.replace("steps = 3", "steps = 1_000_000_001")))


PYTHON = """\
from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="e", task="mine", steps=2,
    space={"lr": FloatSpec(type="float", min=0.0, max=LIMIT)},
)
"""


def test_a_python_file_declares_an_experiment_too(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PYTHON.replace("LIMIT", "1.0"))
    assert load(file).space["lr"] == FloatSpec(type="float", min=0.0, max=1.0)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("-1.0", r"mine.py:3: lr: min 0.0 is not below max -1.0"),
        ("UNKNOWN", r"mine.py:5: NameError: name 'UNKNOWN'"),
    ],
)
def test_a_mistake_in_a_python_file_is_an_error_with_its_line(tmp_path, limit, message):
    file = tmp_path / "mine.py"
    file.write_text(PYTHON.replace("LIMIT", limit))
    with pytest.raises(ExperimentError, match=message):
        load(file)


def test_other_files_are_no_experiments(tmp_path):
    for name, found in (("none.toml", "cannot be read"), ("x.yaml", "a .toml or a .py file")):
        file = tmp_path / name
        if name == "x.yaml":
            file.touch()
        with pytest.raises(ExperimentError, match=found):
            load(file)
    empty = tmp_path / "empty.py"
    empty.touch()
    with pytest.raises(ExperimentError, match="defines no variable `experiment`"):
        load(empty)


HALF = "a\ud800"
"""Half of a surrogate pair, which a JSON escape can produce."""
DECLARED = {
    "name": "e",
    "task": "mine",
    "steps": 2,
    "space": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("budget_unit", HALF),
        ("metric", HALF),
        ("name", HALF),
        ("checkpoints", f"/{HALF}"),
        ("constants", {"a": HALF}),
        ("constants", {HALF: 1}),
        ("constants", {"a": {"b": [HALF]}}),
        ("space", {HALF: {"type": "boolean"}}),
        ("space", {"x": {"type": "categorical", "choices": ["a", HALF]}}),
        ("space", {"x": {"type": "categorical", "choices": ["a", {HALF: 1}]}}),
        ("initial", [{HALF: 1}]),
        ("optimizer", {"name": HALF}),
        ("optimizer", {"name": "romul", HALF: 1}),
        ("from_run", {"name": "f", "checkpoints": [{"name": HALF, "trial": "0-0"}]}),
        ("resources", {"device": HALF}),
    ],
)
def test_half_of_a_character_is_refused_wherever_there_is_text(key, value):
    said = rf"f: {key}.*: '.*\\ud800' contains half of a surrogate pair, which can be neither"
    with pytest.raises(ExperimentError, match=said):
        from_values({**DECLARED, key: value}, "f")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps = " + "9" * 5000, "e.toml: cannot be read as TOML: Exceeds the limit"),
        ("x = " + "[" * 20_000, "e.toml: lists or tables are nested too deeply"),
        ('name = "\\ud800"', "e.toml:1: not TOML: Escaped character is not a Unicode scalar"),
    ],
    ids=["long", "deep", "half"],
)
def test_what_no_toml_reader_can_read_is_refused(text, said):
    with pytest.raises(ExperimentError, match=said):
        parse(text, "e.toml")


def declared_keys(table, prefix=""):
    """Each key of a table with its default as in a TOML file; nested tables key by key."""
    for name, field in table.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if type(default) in (ElasticitySpec, Resources, Timeouts):
            yield from declared_keys(type(default), f"{name}.")
        else:
            if isinstance(default, OptimizerSpec):
                default = default.name
            plain = list(default) if isinstance(default, tuple) else default
            yield prefix + name, "required" if field.is_required() else plain


def test_the_reference_has_every_key_with_its_default():
    page = Path(__file__).parents[2] / "docs" / "reference" / "experiment.md"
    rows = re.findall(
        r"^\| `([\w.]+)` \| (?:`(.+?)`|(required|none)) \|", page.read_text(), re.MULTILINE
    )
    words = {"required": "required", "none": None}
    told = {
        key: words[word] if word else tomllib.loads(f"x = {value}")["x"]
        for key, value, word in rows
    }
    assert list(told.items()) == list(declared_keys(Experiment))
