"""A search that another one begins from, as it is in the store."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from romul_actors.errors import ExperimentExistsError
from romul_actors.observe.stored_population import read_population
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.first_trials import Former, inherit
from romul_actors.store import ReaderStore

Copies = Callable[[Experiment, Experiment, Sequence[str]], Sequence[str]]
"""Copies checkpoints of a former search for a new one: `romul_workers.inheritance.copies`."""


async def begun_from(experiment: Experiment, store: ReaderStore, copies: Copies) -> Experiment:
    """The experiment with what its `from_run` takes from a search of the same store.

    Args:
        experiment: a new one; without `from_run` it stays as it is.
        store: that holds the former search.
        copies: is called off the loop.

    Raises:
        UnknownExperimentError: there is no search of that name.
        ExperimentExistsError: there is one of the new name already.
        ExperimentError, CheckpointError: nothing can be taken from it.
    """
    if experiment.from_run is None:
        return experiment
    if experiment.name in await store.experiments():
        # Before anything is copied for it.
        raise ExperimentExistsError.of(experiment.name)
    former = Former(*await read_population(store, experiment.from_run.name))
    copying = partial(copies, former.experiment, experiment)
    return await asyncio.to_thread(inherit, experiment, former, copying)
