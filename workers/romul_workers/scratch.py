"""A worker's own local folder, and the removal of those that killed workers left behind."""

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
"""A folder that is younger may not be locked yet, though its worker lives."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a local folder for a worker's own files, for the time of a `with` block.

    Folders that killed workers left there are removed too: a live worker holds a lock on its own.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{SCRATCH}*"):
        # Another user's, or a live worker's, or gone meanwhile: left alone.
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
    """Hold a folder's lock, which ends with the process.

    Raises:
        OSError: another process holds it, or it is no folder.
    """
    # The place is all users': what is no folder may be a pipe, which would wait for its other end.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
