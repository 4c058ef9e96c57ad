"""Queued trials must fit the declared space: any user with a worker's password can queue one."""

import asyncio
import json
from dataclasses import replace

import pytest
from numpy.random import default_rng

from romul_actors.errors import MessageError
from romul_actors.protocol.experiment import parse
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.protocol.trial_fit import check_fit, declared_parameters
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster.virtual_time import run
from romul_workers.trainer import Success
from tests.trials import TRIAL
from tests.unit.test_kinds import KINDS
from tests.unit.test_worker import StubTrainer, filled, worker


def declared(space):
    return parse(f'name = "e"\ntask = "t"\nsteps = 1\n[space]\n{space}\n')


def parameters_of(experiment):
    return declared_parameters(experiment.model_dump_json())


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_an_actor_draws_of_a_space_fits(kind):
    experiment = declared(KINDS[kind])
    space, rng = experiment.search_space(), default_rng(0)
    for _ in range(50):
        drawn = space.decode(tuple(rng.random(len(space.axes))))
        trial = decode_trial(encode(replace(TRIAL, hyperparameters=drawn)))
        check_fit(trial, parameters_of(experiment))


SPACE = """
x = { type = "float", min = 0.0, max = 1.0 }
n = { type = "int", min = 1, max = 4, size = 2 }
kind = { type = "categorical", choices = ["a", 1] }
flag = { type = "boolean" }
ks = { type = "categorical", choices = ["a", "b"], size = 2 }
"""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.5}, "hyperparameters.rate: the space has no such name"),
        ({"x": "import os"}, "hyperparameters.x: 'import os' is not a number"),
        ({"x": True}, "hyperparameters.x: True is not a number"),
        ({"n": 3}, "hyperparameters.n: 3 is not a list"),
        ({"n": [1, None]}, "hyperparameters.n: None is not a number"),
        ({"kind": "b"}, "hyperparameters.kind: 'b' is not one of"),
        ({"kind": 1.0}, "hyperparameters.kind: 1.0 is not one of"),
        ({"flag": 1}, "hyperparameters.flag: 1 is not"),
        ({"ks": ["a", "c"]}, "hyperparameters.ks: 'c' is not one of"),
    ],
    ids=json.dumps,
)
def test_what_no_actor_draws_of_it_is_named(values, message):
    trial = decode_trial(encode(replace(TRIAL, hyperparameters=values)))
    with pytest.raises(MessageError, match=message):
        check_fit(trial, parameters_of(declared(SPACE)))


def test_bounds_may_have_been_changed_since():
    check_fit(
        replace(TRIAL, hyperparameters={"x": 7.5, "n": [9, 9]}), parameters_of(declared(SPACE))
    )


def test_a_worker_trains_no_trial_that_is_not_of_the_space():
    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        forged = replace(TRIAL, hyperparameters={"x": 0.5, "shell": "rm"})
        await filled(store, forged, replace(TRIAL, id="1-0", slot=1))
        trainer = StubTrainer(Success(1.0, "1-0-1-a"))
        await worker(store, trainer, max_trials=1).run(asyncio.Event())
        reports = [entry.body for entry in await store.read(["e"], "a", 10, 0)]
        return len(trainer.trained), len(reports), await store.dead("e")

    trained, reports, [dead] = run(main())
    # The submission, and the one result.
    assert (trained, reports) == (1, 2)
    assert (dead.origin, dead.reason) == (
        "trials",
        "trial.hyperparameters.shell: the space has no such name",
    )


def test_parameters_are_made_once_for_a_declaration_and_anew_for_a_changed_one():
    first, other = declared('x = { type = "float", min = 0, max = 1 }'), declared(SPACE)
    assert parameters_of(first) is parameters_of(first)
    assert parameters_of(first).keys() == {"x"}
    assert parameters_of(other).keys() == {"x", "n", "kind", "flag", "ks"}
