"""Copies checkpoints of one search for a new search that begins from them (`from_run`).

The copies lie in the new search's folder and have names of their own. Each search can remove its
checkpoints without any effect on the other.
"""

import contextlib
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from romul_actors.errors import CheckpointError
from romul_actors.protocol.experiment import Experiment
from romul_workers.checkpoints import manifest as manifests
from romul_workers.checkpoints.manifest import FileRecord, Manifest
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.checkpoints.storage import Checkpoints


def copies(former: Experiment, experiment: Experiment, checkpoints: Sequence[str]) -> list[str]:
    """Copy one checkpoint for each slot.

    Args:
        former: the search that wrote the checkpoints.
        experiment: the new search.
        checkpoints: names of the checkpoints, by slot.

    Returns:
        Names of the copies, by slot.

    Raises:
        CheckpointError: a checkpoint cannot be copied; the copies made so far are removed.
    """
    if former.checkpoints is None or experiment.checkpoints is None:
        raise CheckpointError(f"from_run: {former.name} or the new search keeps no checkpoints")
    made: list[str] = []
    with scratch_folder() as scratch:
        theirs = Checkpoints(former.checkpoints, scratch / "theirs")
        ours = Checkpoints(experiment.checkpoints, scratch / "ours")
        try:
            for slot, checkpoint in enumerate(checkpoints):
                copy = f"{slot}-0-0-{secrets.token_hex(4)}"
                _copy(theirs, checkpoint, ours, copy)
                made.append(copy)
        except CheckpointError as error:
            for copy in made:
                ours.delete(copy)
            raise CheckpointError(
                f"from_run: {error}; a search that still runs may have removed it: try again, or "
                f"pause {former.name}"
            ) from None
    return made


def _copy(theirs: Checkpoints, checkpoint: str, ours: Checkpoints, copy: str) -> None:
    """Copy one checkpoint, and compare the copy with its hashes.

    Raises:
        CheckpointError: it cannot be copied, or the copy differs.
    """
    source = theirs.fetch(checkpoint)
    folder = ours.begin(copy)
    try:
        manifest = Manifest.from_json((source / manifests.NAME).read_bytes())
        for file, record in manifest.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            _duplicate(source / file, folder / file, record)
            if not record.matches(folder / file):
                raise ValueError(f"{file} was changed meanwhile")  # noqa: TRY301
    except (OSError, ValueError) as error:
        ours.discard(folder)
        raise CheckpointError(f"checkpoint {checkpoint}: cannot be copied: {error}") from None
    ours.publish(folder, copy)


def _duplicate(source: Path, target: Path, record: FileRecord) -> None:
    """Link a file if it is large, otherwise or if that fails copy it."""
    if record.bytes >= manifests.SHARED_BYTES:
        with contextlib.suppress(OSError):
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)
