"""Start a search from an earlier search in the same store."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from romul_actors.errors import ExperimentExistsError
from romul_actors.observe.stored_population import read_population
from romul_actors.protocol.checkpoint_folder import check_folder
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.first_trials import Former, inherit
from romul_actors.store import ReaderStore

Copies = Callable[[Experiment, Experiment, Sequence[str]], Sequence[str]]
"""Copies checkpoints to a new search: `romul_workers.checkpoints.inheritance.copies`."""


async def begun_from(experiment: Experiment, store: ReaderStore, copies: Copies) -> Experiment:
    """The experiment, with what its `from_run` takes from a search in the same store.

    Args:
        experiment: a new experiment; without `from_run` it is returned unchanged.
        store: the store that holds the former search.
        copies: copies checkpoints; called in a thread.

    Raises:
        UnknownExperimentError: the former search does not exist.
        ExperimentExistsError: there is already a search with the new name.
        ExperimentError: the path of the new search's checkpoints is relative.
        ExperimentError, CheckpointError: the former search cannot be used.
    """
    if experiment.from_run is None:
        return experiment
    # Before anything is copied for it.
    check_folder(experiment.checkpoints)
    if experiment.name in await store.experiments():
        raise ExperimentExistsError.of(experiment.name)
    former = Former(*await read_population(store, experiment.from_run.name))
    copying = partial(copies, former.experiment, experiment)
    return await asyncio.to_thread(inherit, experiment, former, copying)
