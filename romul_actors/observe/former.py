"""Start a search from an earlier search in the same store."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath

from romul_actors.errors import ExperimentError, ExperimentExistsError
from romul_actors.observe.stored_population import read_population
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.first_trials import Former, inherit
from romul_actors.store import ReaderStore

Copies = Callable[[Experiment, Experiment, Sequence[str]], Sequence[str]]
"""Copies checkpoints to a new search: `romul_workers.checkpoints.inheritance.copies`."""


LOCAL = ("file://", "local://", "file:", "local:")
"""Prefixes with which fsspec names the local file system."""


async def begun_from(
    experiment: Experiment, store: ReaderStore, copies: Copies, *, shared: bool = True
) -> Experiment:
    """The experiment, with what its `from_run` takes from a search in the same store.

    Args:
        experiment: a new experiment; without `from_run` it is returned unchanged.
        store: the store that holds the former search.
        copies: copies checkpoints; called in a thread.
        shared: whether workers that were started elsewhere take its trials. They need an absolute
            path or a URL of the checkpoints.

    Raises:
        UnknownExperimentError: the former search does not exist.
        ExperimentExistsError: there is already a search with the new name.
        ExperimentError: the search is shared, and the path of its checkpoints is relative.
        ExperimentError, CheckpointError: the former search cannot be used.
    """
    if shared and experiment.checkpoints is not None:
        _check_absolute(experiment.checkpoints)
    if experiment.from_run is None:
        return experiment
    if experiment.name in await store.experiments():
        # Before anything is copied for it.
        raise ExperimentExistsError.of(experiment.name)
    former = Former(*await read_population(store, experiment.from_run.name))
    copying = partial(copies, former.experiment, experiment)
    return await asyncio.to_thread(inherit, experiment, former, copying)


def _check_absolute(checkpoints: str) -> None:
    prefix = next((prefix for prefix in LOCAL if checkpoints.startswith(prefix)), "")
    path = checkpoints.removeprefix(prefix)
    # fsspec expands "~".
    if "://" not in path and not path.startswith("~") and not PurePath(path).is_absolute():
        raise ExperimentError(
            f"checkpoints: {checkpoints!r} is relative, so it would be another folder for each "
            "worker: give an absolute path or a URL"
        )
