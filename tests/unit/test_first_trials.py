"""A search that begins with the results of another search."""

import json
from typing import Any

import pytest

from romul_actors.actor.batch import load
from romul_actors.actor.loop import Actor
from romul_actors.client import Client
from romul_actors.core.decide import decide
from romul_actors.core.events import Control, Stamped, Submitted
from romul_actors.core.history import TrialCreated
from romul_actors.core.population import Population
from romul_actors.errors import CheckpointError, ExperimentError
from romul_actors.protocol.experiment import Experiment, from_json, parse
from romul_actors.protocol.first_trials import Former, found, inherit
from romul_actors.protocol.plan import settings
from romul_actors.protocol.redeclare import redeclare
from romul_actors.store.memory import MemoryStore
from romul_workers.checkpoints import manifest
from romul_workers.checkpoints.inheritance import copies
from romul_workers.checkpoints.storage import Checkpoints
from tests.unit.harness import Run

OLD: dict[str, Any] = {
    "name": "old",
    "task": "t",
    "space": {
        "rate": {"type": "float", "min": 1e-3, "max": 1.0, "scale": "log"},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "width": {"type": "int", "min": 1, "max": 64, "mutable": False},
    },
    "population": 8,
    "steps": 3,
}


def declared(**fields):
    return Experiment.model_validate({**OLD, "name": "new", "from_run": "old", **fields})


def space(**changes):
    given = {**OLD["space"], **changes}
    return {name: table for name, table in given.items() if table is not None}


def loss(trial):
    return abs(trial.hyperparameters["rate"] - 0.1)


@pytest.fixture
def former():
    # Each copy gets a rate of its own, so that all that was found differs.
    experiment = Experiment.model_validate({**OLD, "optimizer": {"name": "romul", "guarded": 0.0}})
    run = Run(Population(settings=settings(experiment))).start().to_the_end(loss)
    return Former(experiment, run.population)


def no_copies(names):
    raise AssertionError(names)


def begun(experiment):
    """The first trials."""
    stored = from_json(experiment.model_dump_json())
    return decide(Population(settings=settings(stored)), Stamped(Submitted(), 1))


def test_half_of_the_slots_begin_with_the_best_that_was_found(former):
    experiment = inherit(declared(), former, no_copies)
    decision = begun(experiment)
    best = former.population.best.hyperparameters
    assert decision.trials[0].hyperparameters == pytest.approx(best)
    assert len(experiment.initial) == 4
    assert [dict(x) for x in experiment.initial] == [
        pytest.approx(dict(trial.hyperparameters)) for trial in decision.trials[:4]
    ]
    assert len({json.dumps(values) for values in experiment.initial}) == 4
    drawn = begun(declared(from_run=None)).trials[4:]
    assert [t.hyperparameters for t in decision.trials[4:]] == [t.hyperparameters for t in drawn]
    assert all(trial.parent is None for trial in decision.trials)


def test_two_places_of_one_choice_are_the_same_hyperparameters():
    few = {
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "width": {"type": "int", "min": 1, "max": 2},
    }
    experiment = Experiment.model_validate({**OLD, "space": few, "optimizer": "random"})
    run = Run(Population(settings=settings(experiment))).start()
    run.to_the_end(lambda trial: trial.slot)
    held = Former(experiment, run.population)
    assert len({slot.vector for slot in run.population.slots}) == 8
    first = inherit(declared(space=few, population=16), held, no_copies).initial
    assert 1 < len(first) == len({json.dumps(values, sort_keys=True) for values in first}) <= 4
    assert first[0] == run.population.best.hyperparameters


def test_no_trial_comes_twice_when_bounds_were_changed():
    experiment = Experiment.model_validate({**OLD, "optimizer": "random"})
    run = Run(Population(settings=settings(experiment))).start()
    run.to_the_end(lambda trial: trial.slot)
    before = run.population.settings
    run.tell(Control(action="bounds", by="me", parameter="rate", low=0.05, high=3.0))
    changed = redeclare(experiment, before, run.population.settings)
    trials = found(Former(changed, run.population), 8)
    assert trials[0].hyperparameters == run.population.best.hyperparameters
    assert len({trial.trial for trial in trials}) == len(trials) > 4


def test_values_of_its_own_come_first(former):
    own = {"rate": 0.5, "kind": "b", "width": 3}
    experiment = inherit(declared(initial=[own]), former, no_copies)
    assert experiment.initial[0] == own
    assert len(experiment.initial) == 4
    many = inherit(declared(initial=[own] * 7), former, no_copies)
    assert list(many.initial) == [own] * 7


def test_another_space_takes_what_it_can(former):
    other = space(
        rate={"type": "float", "min": 0.5, "max": 2.0},
        kind={"type": "categorical", "choices": ["c", "d"]},
        width=None,
        momentum={"type": "float", "min": 0.0, "max": 1.0},
    )
    experiment = inherit(declared(space=other), former, no_copies)
    for values in experiment.initial:
        assert values["rate"] >= 0.5
        assert values["kind"] in ("c", "d")
        assert set(values) == {"rate", "kind", "momentum"}
    # Unknown values are drawn, from the seed.
    assert len({values["momentum"] for values in experiment.initial}) == 4
    assert inherit(declared(space=other), former, no_copies) == experiment
    seeded = inherit(declared(space=other, seed=1), former, no_copies)
    assert seeded.initial[0]["momentum"] != experiment.initial[0]["momentum"]


def test_checkpoints_go_with_what_never_changes(former):
    asked = []

    def made(names):
        asked.extend(names)
        return [f"{slot}-0-0-ab" for slot in range(len(names))]

    experiment = inherit(declared(from_run={"name": "old", "what": "checkpoints"}), former, made)
    decision = begun(experiment)
    best = former.population.best
    assert asked[0] == asked[4] == best.checkpoint
    assert len(set(asked)) == 4
    kept = former.population.needed_checkpoints()
    assert set(asked) <= kept
    assert [trial.parent for trial in decision.trials] == [f"{slot}-0-0-ab" for slot in range(8)]
    width = best.hyperparameters["width"]
    assert decision.trials[0].hyperparameters["width"] == width
    assert decision.trials[4].hyperparameters["width"] == width
    rates = {trial.hyperparameters["rate"] for trial in decision.trials}
    assert len(rates) == 8
    lines = [line for line in decision.history if isinstance(line, TrialCreated)]
    assert lines[0].parent is None
    assert lines[0].why == {"rule": "inherited", "from": f"old {best.trial}"}
    # Nothing may remove them before the first decision, nor while a trial needs them.
    start = Population(settings=settings(from_json(experiment.model_dump_json())))
    copied = {f"{slot}-0-0-ab" for slot in range(8)}
    assert start.needed_checkpoints() == decision.population.needed_checkpoints() == copied


def test_what_does_not_count_beside_a_trials_values_needs_none():
    depth = {"type": "int", "min": 1, "max": 9, "mutable": False, "when": {"kind": ["b"]}}
    old = Experiment.model_validate({**OLD, "space": space(depth=depth)})
    run = Run(Population(settings=settings(old)))
    run.start().to_the_end(lambda trial: loss(trial) + (trial.hyperparameters["kind"] == "b"))
    best = run.population.best
    assert "depth" not in best.hyperparameters
    origin = {"name": "old", "what": "checkpoints"}
    new = declared(space=space(depth=depth), from_run=origin)
    experiment = inherit(
        new, Former(old, run.population), lambda names: [f"{i}-0-0-ab" for i, _ in enumerate(names)]
    )
    first = begun(experiment).trials[0]
    assert (first.hyperparameters["kind"], "depth" in first.hyperparameters) == ("a", False)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        ({"type": "int", "min": 100, "max": 200, "mutable": False}, "width: .*a checkpoint of old"),
        (None, "depth is not mutable, but old has no such hyperparameter: use what"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_space_is_refused(former, width, message):
    depth = {"type": "int", "min": 1, "max": 2, "mutable": False}
    other = space(width=width, **({"depth": depth} if width is None else {}))
    experiment = declared(space=other, from_run={"name": "old", "what": "checkpoints"})
    with pytest.raises(ExperimentError, match=f"from_run: {message}"):
        inherit(experiment, former, no_copies)


def test_a_search_that_has_found_nothing_is_refused(former):
    empty = Former(former.experiment, Population(settings=former.population.settings))
    with pytest.raises(ExperimentError, match="from_run: no trial of old has succeeded yet"):
        inherit(declared(), empty, no_copies)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('from_run = "a b"', "from_run"),
        ('from_run = { name = "old", what = "weights" }', "from_run.what"),
        ("from_run = 3", "from_run"),
    ],
)
def test_a_wrong_origin_is_refused(text, message):
    toml = f'name = "e"\ntask = "t"\nsteps = 1\n{text}\n[space]\nx = {{ type = "boolean" }}\n'
    with pytest.raises(ExperimentError, match=message):
        parse(toml)


# -- copies ---------------------------------------------------------------------------------------


def places(tmp_path):
    old = Experiment.model_validate({**OLD, "checkpoints": str(tmp_path / "old")})
    new = declared(checkpoints=str(tmp_path / "new"))
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    return old, new, Checkpoints(old.checkpoints, tmp_path / "scratch")


def publish(place, name, text):
    folder = place.begin(name)
    (folder / "deep").mkdir()
    (folder / "deep" / "x").write_text(text)
    place.publish(folder, name)


def test_copies_are_whole_checkpoints_of_their_own(tmp_path):
    old, new, theirs = places(tmp_path)
    publish(theirs, "1-2-1-ab", "one")
    publish(theirs, "2-2-1-ab", "two")
    names = copies(old, new, ["1-2-1-ab", "2-2-1-ab", "1-2-1-ab"])
    assert [name.rpartition("-")[0] for name in names] == ["0-0-0", "1-0-0", "2-0-0"]
    for name in ("1-2-1-ab", "2-2-1-ab"):
        theirs.delete(name)
    ours = Checkpoints(new.checkpoints, tmp_path / "scratch")
    assert [(ours.fetch(n) / "deep" / "x").read_text() for n in names] == ["one", "two", "one"]
    assert ours.names(0.0) == sorted(names)


def test_copies_of_large_files_are_links_which_outlive_the_search_they_came_from(tmp_path):
    old, new, theirs = places(tmp_path)
    folder = theirs.begin("1-2-1-ab")
    (folder / "large").write_bytes(bytes(manifest.SHARED_BYTES))
    (folder / "small").write_bytes(b"numbers")
    theirs.publish(folder, "1-2-1-ab")
    names = copies(old, new, ["1-2-1-ab", "1-2-1-ab"])
    ours = Checkpoints(new.checkpoints, tmp_path / "scratch")
    assert manifest.SHARED_BYTES < ours.used() < 1.1 * manifest.SHARED_BYTES
    theirs.delete("1-2-1-ab")
    ours.delete(names[0])
    kept = ours.fetch(names[1])
    assert (kept / "large").read_bytes() == bytes(manifest.SHARED_BYTES)
    assert (kept / "small").read_bytes() == b"numbers"


def test_a_checkpoint_that_is_gone_or_damaged_leaves_nothing_behind(tmp_path):
    old, new, theirs = places(tmp_path)
    publish(theirs, "1-2-1-ab", "one")
    ours = Checkpoints(new.checkpoints, tmp_path / "scratch")
    with pytest.raises(CheckpointError, match=r"from_run: .*none of that name.*or pause old"):
        copies(old, new, ["1-2-1-ab", "2-2-1-ab"])
    (tmp_path / "old" / "1-2-1-ab" / "deep" / "x").write_text("eno")
    with pytest.raises(CheckpointError, match="is damaged"):
        copies(old, new, ["1-2-1-ab"])
    assert ours.names(0.0) == []
    assert not list((tmp_path / "new" / ".part").iterdir())
    assert (tmp_path / "old" / "1-2-1-ab" / manifest.NAME).exists()


async def test_a_submitted_search_keeps_its_copies_until_they_are_used(tmp_path):
    store, name = MemoryStore(), "new"
    experiment = declared(
        from_run={
            "name": "old",
            "what": "checkpoints",
            "checkpoints": [
                {
                    "name": f"{slot}-0-0-ab",
                    "trial": "1-2",
                    "hyperparameters": {"rate": 0.1, "kind": "a", "width": 7},
                }
                for slot in range(8)
            ],
        },
        checkpoints=str(tmp_path),
    )
    await Client(store).submit(experiment)
    held = await load(store, name)
    assert len(held.population.needed_checkpoints()) == 8
    actor = Actor(store, "a", pace_s=0.001)
    for _ in range(3):
        await actor.turn()
    held = await load(store, name)
    assert [slot.checkpoint for slot in held.population.slots] == [
        f"{slot}-0-0-ab" for slot in range(8)
    ]
    assert {trial["width"] for trial in hyperparameters(held)} == {7}


def hyperparameters(held):
    decoded = held.population.settings.space.decode
    return [decoded(slot.vector) for slot in held.population.slots]
