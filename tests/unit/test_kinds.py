"""Every kind of hyperparameter: a table of kinds, and a test for each reader of values."""

import itertools
import json
import re
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from romul_actors.core import history
from romul_actors.core.events import Control
from romul_actors.core.history import BoundsChanged, ControlIgnored, TrialCreated, TrialFailed
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.core.parameter import identity
from romul_actors.core.population import Population
from romul_actors.dashboard import charts
from romul_actors.dashboard.feed import Feed
from romul_actors.observe.explain import explain, in_words
from romul_actors.observe.export import points, to_csv, to_jsonl, to_parquet
from romul_actors.observe.failures import by_region
from romul_actors.observe.html import png
from romul_actors.observe.plots import plot
from romul_actors.observe.snapshot import Snapshot
from romul_actors.observe.trial_records import trials
from romul_actors.protocol.experiment import CategoricalSpec, Experiment, from_json, parse
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from romul_sim.play import ASYNCHRONOUS, Training
from romul_sim.play import Run as Play
from romul_sim.records.record import Record
from romul_sim.records.replay import verify
from tests.trials import created, declare
from tests.unit.harness import Run

SGD = 'kind = { type = "categorical", choices = ["sgd", "adam", "none"] }\n'
KINDS = {
    "float": 'x = { type = "float", min = -1.0, max = 1.0 }',
    "float, log": 'x = { type = "float", min = 1e-4, max = 1.0, scale = "log" }',
    "float, step": 'x = { type = "float", min = 0.0, max = 1.0, step = 0.1 }',
    "float, step, log": 'x = { type = "float", min = 0.1, max = 0.8, step = 0.1, scale = "log" }',
    "int": 'x = { type = "int", min = -3, max = 9 }',
    "int, step": 'x = { type = "int", min = 16, max = 128, step = 16 }',
    "int, step, log": 'x = { type = "int", min = 16, max = 128, step = 16, scale = "log" }',
    "choice": 'x = { type = "categorical", choices = ["a", "b", "c"] }',
    "ordinal": 'x = { type = "categorical", choices = ["s", "m", "l", "xl"], ordinal = true }',
    "look-alikes": 'x = { type = "categorical", choices = [true, 1, 1.0, "1", "True"] }',
    "any JSON": 'x = { type = "categorical", choices = [[200, 300], [1, 2.0], { a = [1] }, "z"] }',
    "boolean": 'x = { type = "boolean" }',
    "list of floats": 'x = { type = "float", min = 0.1, max = 1.0, scale = "log", size = 3 }',
    "list of ints": 'x = { type = "int", min = 16, max = 64, step = 16, size = 2 }',
    "list of choices": 'x = { type = "categorical", choices = [[1], "a"], size = 2 }',
    "list of one": 'x = { type = "boolean", size = 1 }',
    "immutable": 'x = { type = "int", min = 1, max = 64, size = 2, mutable = false }',
    "nested": '[space.x]\nlr = { type = "float", min = 0.0, max = 1.0 }\n'
    '[space.x.y]\ntype = { type = "boolean" }\n',
    "condition": SGD + 'x = { type = "float", min = 0.0, max = 1.0, when = { kind = "sgd" } }\n'
    'y = { type = "int", min = 1, max = 9, size = 2, when = { kind = ["sgd", "adam"] } }',
    "chain": SGD + 'x = { type = "boolean", when = { kind = "sgd" } }\n'
    'y = { type = "float", min = 0.0, max = 1.0, when = { x = true } }',
    "immutable decides": 'k = { type = "boolean", mutable = false }\n'
    'x = { type = "float", min = 0.0, max = 1.0, when = { k = true } }',
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def declared(kind, **changes):
    text = 'name = "k"\ntask = "t"\nsteps = 5\n[space]\n' + KINDS[kind]
    return parse(text).model_copy(update=changes)


def loss(values):
    """A loss that depends on all values."""
    text = json.dumps(values, sort_keys=True)
    return sum((i + 1) * ord(c) for i, c in enumerate(text)) % 997 / 997


def check(space, values):
    """Check that values have the space's types, and that inactive ones are absent."""
    vector = space.encode(values)
    back = space.decode(vector)
    assert set(back) == set(values)
    for name, value in values.items():
        if isinstance(value, float):
            assert back[name] == pytest.approx(value, rel=1e-9, abs=1e-12)
        else:
            assert type(back[name]) is type(value)


def searched(experiment, seed=1):
    """Run a population to its end; return it with its trials."""
    run = Run(Population(settings=settings(experiment.model_copy(update={"seed": seed})))).start()
    trials = []

    def answer(trial):
        trials.append(trial)
        return loss(trial.hyperparameters)

    run.to_the_end(answer)
    return run, trials


@EVERY
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_optimizers_search_it(kind, optimizer):
    spec = declared(kind).optimizer.model_copy(update={"name": optimizer})
    experiment = declared(kind, optimizer=spec)
    space = experiment.search_space()
    run, trials = searched(experiment)
    assert run.population.status == "finished"
    assert len(trials) == 8 * 5
    for trial in trials:
        check(space, trial.hyperparameters)
    # It varies at the start, and later on, too, if it is mutable.
    assert len({identity(trial.hyperparameters) for trial in trials}) > 1


@EVERY
def test_the_wire_the_store_and_the_declaration_keep_it_by_type_and_value(kind):
    experiment = declared(kind)
    assert from_json(experiment.model_dump_json()) == experiment
    run, trials = searched(experiment)
    for trial in trials:
        received = decode_trial(encode(trial))
        assert identity(received.hyperparameters) == identity(trial.hyperparameters)
    population, core = run.population, settings(experiment)
    meta = write_meta(population, "loss")
    rows = [write_slot(slot, core, "loss") for slot in population.slots]
    again = read(core, "loss", meta, rows)
    assert [slot.vector for slot in again.slots] == [slot.vector for slot in population.slots]
    for slot, row in zip(population.slots, rows, strict=True):
        assert identity(json.loads(row["hyperparameters"])) == identity(
            core.space.decode(slot.vector)
        )


@EVERY
def test_a_replay_decides_the_same(kind):
    experiment = declared(kind)
    run, _ = searched(experiment, seed=experiment.seed)
    texts = [json.dumps(history.to_json(line)) for line in run.history]
    lines = [history.from_json(json.loads(text)) for text in texts]
    found = verify(Record(experiment, 0, lines, [], 0.0))
    assert found.parting is None, asdict(found)
    assert found.trials == 8 * 5


@EVERY
@pytest.mark.parametrize("conditions", [Play.__init__.__defaults__[0], ASYNCHRONOUS])
def test_the_lab_plays_it(kind, conditions):
    experiment = declared(kind)
    space = {name: spec.model_dump() for name, spec in experiment.space.items()}

    def step(_state, values, _number, _rng):
        return loss(values), loss(values)

    training = Training(space, 4, step, float)
    run = Play(training, "romul", 8, 1, conditions, keep=True).to_the_end()
    line = run.line(run.winner(3))
    assert len(line) == 4
    for values in line:
        check(experiment.search_space(), values)


NEW_BOUNDS = {
    "float": (0.0, 0.5),
    "float, log": (1e-3, 0.1),
    "float, step": (0.2, 0.5),
    "float, step, log": (0.2, 0.6),
    "int": (0, 4),
    "int, step": (32, 64),
    "int, step, log": (32, 96),
    "list of floats": (0.2, 0.4),
    "list of ints": (16, 32),
    "condition": (0.2, 0.4),
    "immutable decides": (0.2, 0.4),
}
"""Narrower bounds, for the kinds of x that can have some."""


@EVERY
def test_other_bounds_are_searched_or_refused(kind):
    experiment = declared(kind, steps=8)
    run = Run(Population(settings=settings(experiment))).start()
    for slot in run.queued():
        run.tell(run.result(slot, loss(run.trials[slot].hyperparameters)))
    low, high = NEW_BOUNDS.get(kind, (0, 1))
    run.tell(Control(action="bounds", by="me", parameter="x", low=low, high=high))
    changed = kind in NEW_BOUNDS
    said = run.of(BoundsChanged | ControlIgnored)
    assert [type(line) for line in said] == [BoundsChanged if changed else ControlIgnored]
    # Trials that were already leased keep their values.
    for slot in run.queued():
        run.tell(run.result(slot, loss(run.trials[slot].hyperparameters)))
    later = []

    def noted(trial):
        later.append(trial)
        return loss(trial.hyperparameters)

    run.to_the_end(noted)
    space = run.population.settings.space
    for trial in later:
        check(space, trial.hyperparameters)
        if changed and "x" in trial.hyperparameters:
            x = trial.hyperparameters["x"]
            assert all(low <= value <= high for value in (x if isinstance(x, list) else [x]))


def test_null_is_a_choice_from_python_and_stays_one():
    spec = {"type": "categorical", "choices": (None, 0, False, (1, 2))}
    experiment = Experiment(name="k", task="t", steps=2, space={"x": spec})
    kind = experiment.space["x"]
    assert isinstance(kind, CategoricalSpec)
    assert kind.choices == (None, 0, False, [1, 2])
    assert from_json(experiment.model_dump_json()) == experiment
    _, trials = searched(experiment)
    met = {identity(trial.hyperparameters["x"]) for trial in trials}
    assert met == {"null", "0", "false", "[1, 2]"}


@pytest.mark.parametrize("optimizer", ["romul", "truncation", "de", "pb2"])
def test_what_does_not_count_is_held_along_its_line(optimizer):
    spec = declared("chain").optimizer.model_copy(update={"name": optimizer})
    experiment = declared("chain", optimizer=spec, steps=12)
    space = experiment.search_space()
    run, _ = searched(experiment)
    lines = {line.trial: line for line in run.of(TrialCreated)}
    held = 0
    for line in lines.values():
        parent = lines.get(line.parent)
        if parent is None:
            continue
        for axis, on in enumerate(space.active(line.vector)):
            if not on:
                held += 1
                assert line.vector[axis] == parent.vector[axis]
    assert held > 10
    assert {tuple(line.hyperparameters) for line in lines.values()} == {
        ("kind", "x", "y"),
        ("kind", "x"),
        ("kind",),
    }


def test_an_order_is_moved_along_and_a_choice_is_not():
    experiment = declared("ordinal", steps=30)
    space = experiment.search_space()
    assert space.choice_axes == ()
    assert space.n_choices == (0,)
    spec = experiment.optimizer.model_copy(
        update={"name": "truncation", "options": {"resample": 0.0}}
    )
    run, _ = searched(experiment.model_copy(update={"optimizer": spec}))
    lines = {line.trial: line for line in run.of(TrialCreated)}
    ranks = {"s": 0, "m": 1, "l": 2, "xl": 3}
    moves = [
        abs(ranks[line.hyperparameters["x"]] - ranks[lines[p].hyperparameters["x"]])
        for line in lines.values()
        if (p := line.parent) in lines
    ]
    assert set(moves) == {0, 1}


def test_each_element_of_a_list_moves_by_itself():
    run, _ = searched(declared("list of floats", steps=12))
    lines = {line.trial: line for line in run.of(TrialCreated)}
    changed = set()
    for line in lines.values():
        if line.parent in lines:
            pairs = zip(line.vector, lines[line.parent].vector, strict=True)
            changed.add(tuple(a != b for a, b in pairs))
    assert len(next(iter(lines.values())).hyperparameters["x"]) == 3
    assert changed <= set(itertools.product((True, False), repeat=3))
    assert (True, True, True) in changed


@EVERY
def test_all_that_shows_a_run_shows_it(kind, tmp_path):
    experiment = declared(kind)
    space = experiment.search_space()
    names = [axis.name for axis in space]
    run, trials_made = searched(experiment)
    found = trials(run.history)
    best = run.population.best.trial

    figure = plot(experiment, found, best, {})
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == ["loss", *names]
    if kind in RENDERED:
        assert png(figure).startswith(b"\x89PNG")

    feed = Feed(None, "k")
    feed.snapshot = snapshot_of(experiment, run)
    for line in run.history:
        feed._add(line)
    for name in names:
        chart = charts.hyperparameter(feed, experiment, name)
        json.dumps(chart, allow_nan=False)
        [line] = [line for line in chart["series"] if line["name"] == "winner's line"]
        assert [step for step, _ in line["data"]] == list(range(1 + found[best].step))
        if chart["yAxis"]["type"] == "category":
            places = {place for row in chart["series"] for _, place in row["data"]}
            assert places - {None} <= set(chart["yAxis"]["data"])
            assert len(set(chart["yAxis"]["data"])) == len(chart["yAxis"]["data"])
    parallel = charts.parallel(feed, experiment)
    json.dumps(parallel, allow_nan=False)
    assert [axis["name"] for axis in parallel["parallelAxis"]] == [*names, "loss"]
    assert all(len(row) == len(names) + 1 for row in parallel["series"][0]["data"])
    with_x = [any(key.startswith("h.x") for key in row) for row in charts.rows(feed)]
    assert all(with_x) or kind in DEPENDING

    for point in points(experiment, run.history):
        here = space.by_axis(found[f"{point.slot}-{point.step}"].hyperparameters)
        shown = {name for name in point.figures if name.startswith("hyperparameters/")}
        assert shown == {f"hyperparameters/{name}" for name in here}

    for write in (to_csv, to_parquet, to_jsonl):
        assert write(experiment, run.history, tmp_path / write.__name__) > 0
    rows = pq.read_table(tmp_path / "to_parquet").to_pylist()
    assert [name for name in rows[0] if name.startswith("h.")] or kind in DEPENDING
    for row, trial in zip(rows, found, strict=True):
        for name, value in space.by_axis(found[trial].hyperparameters).items():
            cell = row[f"h.{name}"]
            assert identity(cell) == identity(value) or identity(json.loads(cell)) == identity(
                value
            )

    story = explain(experiment, run.history, best)
    assert set(story.changes) == set(names)
    json.dumps(story.as_json())
    on = space.by_axis(found[best].hyperparameters)
    words = "\n".join(in_words(story))
    for name in names:
        assert (f"  {name} = " in words) is (name in on)
        assert (f"  {name} is inactive here" in words) is (name not in on)

    regions = by_region(experiment, run.history)
    assert list(regions) == names
    for axis, name in enumerate(names):
        on = sum(space.active(line.vector)[axis] for line in run.of(TrialCreated))
        assert sum(row["attempts"] for row in regions[name]) == on
    assert len(trials_made) == 40


def test_failures_are_counted_where_their_values_lie_in_the_range_of_today():
    line = created(hyperparameters={"x": 0.9}, vector=(0.9,))
    failed = TrialFailed(
        at_ms=0,
        trial="0-0",
        attempt=1,
        worker="w",
        slot=0,
        step=0,
        reason="exception",
        message="",
        again=False,
    )
    wider = declare(space={"x": {"type": "float", "min": 0.0, "max": 4.0}})
    rows = by_region(wider, [line, failed])["x"]
    assert [(row["region"], row["failed"]) for row in rows][:2] == [("0 to 1", 1), ("1 to 2", 0)]
    narrower = declare(space={"x": {"type": "float", "min": 0.0, "max": 0.4}})
    assert [row["failed"] for row in by_region(narrower, [line, failed])["x"]] == [0, 0, 0, 1]


RENDERED = {"any JSON", "list of floats", "chain"}
"""Kinds that are plotted; a plot takes a second."""
DEPENDING = {"condition", "chain", "immutable decides"}
"""Kinds in which some trials have no x."""


def snapshot_of(experiment, run):
    return Snapshot(
        experiment=experiment,
        now_ms=0,
        status="finished",
        reason="",
        counts={},
        causes={},
        best={"trial": run.population.best.trial},
        n_slots=8,
        slots=(),
        workers=(),
        depths={},
        history=run.history,
    )


def blocks_of(language):
    """The blocks of docs/spaces.md in one language."""
    text = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("block", blocks_of("toml"))
def test_what_the_page_shows_is_searched(block):
    text = re.sub(r"^\[(?=optimizer)", "[space.", block, flags=re.MULTILINE)
    experiment = parse(f'name = "k"\ntask = "t"\nsteps = 3\n[space]\n{text}')
    space = experiment.search_space()
    assert all(name in block.replace(".", " ") or "." in name for name in space.names)
    _, trials = searched(experiment)
    for trial in trials:
        check(space, trial.hyperparameters)


def test_the_page_shows_the_same_space_in_both_languages():
    romul = pytest.importorskip("romul")
    python = eval(blocks_of("python")[0], {"romul": romul})  # the page is this project's own
    experiment = Experiment(name="k", task="t", steps=3, space=romul.space.tables(python))
    toml = parse(f'name = "k"\ntask = "t"\nsteps = 3\n[space]\n{blocks_of("toml")[0]}')
    assert experiment.space == toml.space
