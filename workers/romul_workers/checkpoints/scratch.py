"""A local folder for a worker's files; folders that killed workers left are removed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SCRATCH = "romul-worker-"
LEFT_S = 60.0
"""A younger folder, in seconds, is not removed: its worker may not have locked it yet."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a local folder for a worker's files, for the duration of a `with` block.

    Also removes folders that killed workers left: nobody holds the lock of such a folder.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{SCRATCH}*"):
        # It may be another user's, a live worker's, or gone meanwhile.
        with contextlib.suppress(OSError), _locked(left):
            if time.time() - left.stat().st_mtime > LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system releases when the process ends.

    Raises:
        OSError: another process holds the lock, or it is not a folder.
    """
    # O_DIRECTORY, because all users can write here: opening another user's pipe would block.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
