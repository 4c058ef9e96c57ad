"""Limits that end a search early: hours, a number of trials, a target."""

import math

import pytest

import romul
from romul_actors.core.events import Control
from romul_actors.core.history import SearchExtended, SearchFinished, TrialCreated
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import parse
from romul_actors.protocol.plan import settings
from romul_actors.protocol.redeclare import redeclare
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from romul_sim.records.record import Record
from romul_sim.records.replay import verify
from tests.unit.harness import Run, bowl, population

TOML = """\
name = "e"
task = "t"
metric = "accuracy"
population = 8
steps = 4
{more}
[space]
x = {{ type = "float", min = 0.0, max = 1.0 }}
y = {{ type = "float", min = 0.0, max = 1.0 }}
"""


def declared(more):
    return parse(TOML.format(more=more))


def ended(run):
    [line] = run.of(SearchFinished)
    assert run.population.status == "finished"
    assert run.population.reason == line.reason
    counts = run.population.counts
    assert counts.created == counts.reported + counts.failed + counts.discarded
    return line.reason


@pytest.mark.parametrize("maximize", [False, True])
def test_a_search_ends_at_its_target(maximize):
    sign = -1.0 if maximize else 1.0
    core = population(n_slots=8, steps=6, maximize=maximize, target_loss=0.5)
    run = Run(core).start()
    run.tell(run.result(0, sign * 0.6))
    run.tell(run.result(1, sign * 0.500001))
    assert run.population.status == "running"
    run.tell(run.result(2, sign * 0.5))
    assert ended(run) == f"the target of {sign * 0.5:g} was reached"
    assert run.population.counts.discarded == 5
    assert run.population.best.trial == "2-0"


def test_a_paused_search_ends_at_its_target_when_it_is_resumed():
    run = Run(population(n_slots=4, target_loss=0.5)).start()
    run.tell(Control(action="pause"))
    run.tell(run.result(0, 0.1))
    assert run.population.status == "paused"
    run.tell(Control(action="resume"))
    assert ended(run).startswith("the target")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("most", [8, 9, 10, 11, 19, 24, 31])
def test_no_more_trials_begin_than_there_may_be_and_none_is_thrown_away(optimizer, most):
    run = Run(population(optimizer, n_slots=8, steps=4, max_trials=most)).start()
    run.to_the_end(bowl)
    assert ended(run) == f"after {most} trials (max_trials)"
    counts = run.population.counts
    assert (counts.created, counts.reported, counts.discarded) == (most, most, 0)


def test_a_failed_trial_is_one_of_them():
    run = Run(population(n_slots=4, steps=9, max_trials=9, max_attempts=1)).start()
    run.tell(run.failed(0))
    run.to_the_end(bowl)
    assert (run.population.counts.reported, run.population.counts.failed) == (8, 1)


def test_the_share_of_steps_done_is_that_of_the_steps_that_the_trials_allow():
    """With 10 steps, 8 slots and 40 trials, each decision is that of a search with 5 steps."""
    few = Run(population(n_slots=8, steps=10, max_trials=40)).start().to_the_end(bowl)
    five = Run(population(n_slots=8, steps=5)).start().to_the_end(bowl)
    assert few.population.horizon == 5
    assert few.of(TrialCreated) == five.of(TrialCreated)


def test_hours_count_from_the_beginning_and_pauses_are_among_them():
    run = Run(population(n_slots=4, steps=99, max_ms=100_000))
    run.now_ms = 500_000
    run.start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot]), seconds=30.0))
    run.tell(Control(action="pause"))
    run.tell(Control(action="resume"), at_ms=590_000)
    assert run.queued() == [0, 1, 2, 3]
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot]), seconds=30.0))
    # No trial begins that would end too late.
    assert ended(run) == f"after {100 / 3600:g} hours (max_hours)"


def test_hours_set_the_horizon_as_a_deadline_does():
    run = Run(population(n_slots=4, steps=99, max_ms=10_000)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot]), seconds=1.0))
    run.tick(1_000, workers=4)
    assert run.population.horizon == 1 + 9
    run.tick(10_001, workers=4)
    assert ended(run).endswith("(max_hours)")


def test_the_beginning_is_kept_in_the_store():
    core = population(n_slots=4, max_ms=10_000)
    run = Run(core)
    run.now_ms = 5
    run.start()
    meta = write_meta(run.population, "loss")
    slots = [write_slot(slot, core.settings, "loss") for slot in run.population.slots]
    assert read(core.settings, "loss", meta, slots) == run.population
    assert run.population.started_ms == 6
    del meta["started_ms"]
    assert read(core.settings, "loss", meta, slots).started_ms is None


LIMITS = [
    ("target_loss", 0.5, "target = -0.5"),
    ("max_trials", 8, "max_trials = 8"),
    ("max_ms", 7_200_000, "max_hours = 2"),
]


@pytest.mark.parametrize(("name", "value", "toml"), LIMITS)
def test_an_extended_search_goes_on_beyond_the_limit_that_ended_it(name, value, toml):
    experiment = declared(f'direction = "maximize"\n{toml}')
    core = settings(experiment)
    assert getattr(core, name) == value
    run = Run(population(n_slots=8, steps=4, maximize=True, **{name: value}))
    run.start()
    for slot in run.queued():
        run.tell(run.result(slot, -bowl(run.trials[slot])))
    if run.population.status == "running":
        at_ms = 1 + value if name == "max_ms" else run.now_ms
        run.tell(run.result(0, -0.4), at_ms=at_ms)
    assert run.population.status == "finished"
    before = run.population.settings
    run.tell(Control(action="extend", steps=6))
    assert run.of(SearchExtended)[0].lifted == {name: value}
    run.to_the_end(lambda trial: -bowl(trial))
    counts = run.population.counts
    assert (counts.reported, counts.discarded) == (48, 0)
    after = redeclare(experiment, before, run.population.settings)
    assert after == declared('direction = "maximize"').model_copy(update={"steps": 6})
    # As it is stored, the record has no limit; the line says what it was.
    stored = after.model_copy(update={"seed": 3})
    assert verify(Record(stored, 0, run.history, [], 1.0)).parting is None


def test_a_limit_that_has_not_been_reached_stays():
    run = Run(population(n_slots=4, steps=2, max_trials=20, max_ms=99_000, target_loss=-1.0))
    run.start().to_the_end(bowl)
    run.tell(Control(action="extend", steps=9))
    assert run.of(SearchExtended)[0].lifted == {}
    run.to_the_end(bowl)
    assert run.population.reason == "after 20 trials (max_trials)"


def test_a_running_search_keeps_its_limits_when_it_is_extended():
    run = Run(population(n_slots=4, steps=9, max_ms=1_000)).start()
    for slot in run.queued():
        run.tell(run.result(slot, bowl(run.trials[slot]), seconds=0.9))
    run.tell(Control(action="extend", steps=20), at_ms=500)
    assert run.of(SearchExtended)[0].lifted == {}
    assert run.population.settings.max_ms == 1_000


def test_they_are_declared():
    core = settings(declared("target = 0.05\nmax_trials = 20\nmax_hours = 1.5"))
    assert (core.target_loss, core.max_trials, core.max_ms) == (0.05, 20, 5_400_000)
    assert core.planned_steps == math.ceil(20 / 8)
    assert declared("max_trials = 20").n_trials == 20
    assert declared("").n_trials == 32


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("max_trials = 7", "7 trials are fewer than the population of 8"),
        ("max_trials = 0", "max_trials: "),
        ("max_hours = 0", "max_hours: "),
        ("target = nan", "target: "),
        ('target = "low"', "target: "),
        ("max_hour = 3", "did you mean 'max_hours'"),
    ],
)
def test_a_wrong_limit_is_refused_with_its_line(more, message):
    with pytest.raises(ExperimentError, match=message) as error:
        declared(more)
    assert "6" in str(error.value)


def test_ask_and_tell_has_them_too():
    space = {"x": romul.Float(0, 1), "y": romul.Float(0, 1)}
    asked = romul.Population(space, population=8, steps=5, target=0.3, max_trials=30, clock=None)
    asked.tell(asked.ask(), 0.2)
    assert (asked.done, asked.ask()) == (True, None)
    assert asked.reason == "the target of 0.3 was reached"
    asked.extend(6)
    asked = romul.Population.load(asked.state, clock=None)
    while not asked.done:
        trial = asked.ask()
        asked.tell(trial, bowl(trial))
    assert "30 of 30 trials" in repr(asked)
