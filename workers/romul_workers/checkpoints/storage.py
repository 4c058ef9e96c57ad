"""Checkpoints, complete or absent, in any file system that fsspec supports.

A checkpoint is a folder with a manifest that lists its files (`manifest.py`). Without the manifest
it does not exist. On a local disk the folder is built beside its final place and then renamed.
Elsewhere the manifest is uploaded last. A name (SLOT-STEP-ATTEMPT and a random tail) is never
used again, so no checkpoint overwrites another.

No checkpoint needs another one to be read. Files that it shares with its parent are hard links on a
local disk (`tensors/parts.py`), and copies that the object store makes itself elsewhere
(`object_store.py`).
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from romul_actors.errors import CheckpointError, NoRoomError, StorageOutageError
from romul_actors.protocol.checkpoint_names import is_name, misnamed
from romul_workers.checkpoints import manifest as manifests
from romul_workers.checkpoints.hashing import Written
from romul_workers.checkpoints.manifest import Manifest
from romul_workers.checkpoints.object_store import ObjectStore, options

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a file system that cannot be written: it is full, or an error made it read-only."""
SETTLED = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    ValueError,
    TypeError,
    ImportError,
    NotImplementedError,
    MemoryError,
)
"""Errors that would occur again: a storage has answered, or the error is not the storage's. All
other errors count as an outage, because libraries of object stores define many of their own."""
OWN = (errno.ELOOP, errno.ENAMETOOLONG)
"""Errors about links and names that a task made in its folder. For a whole storage ELOOP is an
outage: an automounter reports it for what it cannot mount."""
UNFLUSHABLE = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP)
"""Errors of a file system whose folders cannot be opened or flushed."""
SPARE_BYTES = 1_000_000
"""A disk with less free space than this counts as full."""
RIVALS = 100
"""Most repetitions of a removal while other workers remove the same checkpoint."""
FLUSHES = 8
"""Number of files that are flushed at the same time."""
_FLUSHING = ThreadPoolExecutor(FLUSHES - 1, "flush")
"""Kept: starting two threads for each checkpoint costs more than the flush of a small one."""


def place_of(folder: str, name: str) -> str:
    """Path or URL of the checkpoint `name` in a folder, which is itself a path or a URL.

    Raises:
        CheckpointError: `name` is not a valid name of a checkpoint; it might lead out of the
            folder.
    """
    if not is_name(name):
        raise CheckpointError(misnamed(name))
    return f"{folder.rstrip('/')}/{name}"


class Checkpoints:
    """The checkpoints of one experiment.

    Args:
        url: folder that holds them, as a path or an fsspec URL.
        scratch: local folder for unfinished checkpoints and for copies of remote ones.
        quota: most bytes that all of them may take; None: no limit.

    Attributes:
        worked: whether the storage has been read or written by this object.

    Raises:
        CheckpointError: fsspec does not know the kind of URL, or its library is not installed.
        StorageOutageError: the library of the storage fails, for example without credentials.
    """

    def __init__(self, url: str, scratch: Path, quota: int | None = None) -> None:
        self.url = url
        self.worked = False
        with self._errors(f"checkpoints {url!r}"):
            filesystem, root = fsspec.core.url_to_fs(url, **options(url))
        self._fs: Any = filesystem
        self._root: str = root.rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)
        self._scratch = scratch
        self._quota = quota
        self._store = ObjectStore(url, filesystem, scratch)

    def _place(self, name: str) -> str:
        return place_of(self._root, name)

    def begin(self, name: str) -> Path:
        """Make an empty local folder for a new checkpoint `name`.

        Raises:
            NoRoomError: the disk is full, or the quota is used up.
            StorageOutageError: the storage refuses or does not answer.
            CheckpointError: the folder cannot be made.
        """
        # On a local disk it must be in the same file system as its final place, for the rename.
        base = Path(self._root) / ".part" if self._local else self._scratch
        with self._errors(f"checkpoints {self.url!r}"):
            base.mkdir(parents=True, exist_ok=True)
            if self.full():
                raise NoRoomError(f"checkpoints {self.url!r}: the disk is full: make room")
            if self._quota is not None and (used := self.used()) >= self._quota:
                raise NoRoomError(
                    f"checkpoints {self.url!r}: {used:,} bytes of a quota of {self._quota:,}: "
                    "raise --quota-gb, or remove what `romul collect` finds"
                )
            made = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=base))
        self.worked = self.worked or self._local
        return made

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn whatever a file system raises into a CheckpointError; `what` begins the message."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NoRoomError(f"{what}: {error}") from error
            if isinstance(error, SETTLED):
                raise CheckpointError(f"{what}: {error}") from error
            where = "it" if self.url in what else repr(self.url)
            said = f"refuses or does not answer: {str(error) or type(error).__name__}"
            raise StorageOutageError(f"{what}: {where} {said}") from error

    def full(self) -> bool:
        """Whether the local disk is full; False for an object store, where it is not known."""
        with contextlib.suppress(OSError):
            return self._local and shutil.disk_usage(self._root).free < SPARE_BYTES
        return False

    def refusal(self, folder: Path) -> str | None:
        """A message that says how the storage refuses what a task writes; None: it does not.

        Args:
            folder: local folder, from `begin`. It is part of the storage only on a local disk.
        """
        try:
            if self._local:
                with os.scandir(folder):
                    pass
        except SETTLED:
            return None
        except OSError as error:
            return f"checkpoints {self.url!r}: it refuses or does not answer: {error}"
        return None

    def used(self) -> int:
        """Bytes that all checkpoints take; a file with several hard links counts once."""
        if self._local:
            return _bytes_in(Path(self._root))
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return int(self._fs.du(self._root))
        return 0

    def publish(
        self,
        folder: Path,
        name: str,
        written: Mapping[str, Written] | None = None,
        parent: str | None = None,
    ) -> None:
        """Make the content of `folder` the checkpoint `name`, and remove `folder`.

        If an exception is raised, nothing is stored.

        Args:
            folder: local folder, from `begin`.
            name: name of the checkpoint.
            written: hashed files, by path in `folder`; one that changed since is hashed again.
            parent: name of a checkpoint that `fetch` returned. Files that an object store has of it
                are not sent.

        Raises:
            NoRoomError: the disk is full.
            StorageOutageError: the storage refuses or does not answer.
            CheckpointError: the checkpoint cannot be stored for another reason.
        """
        try:
            with self._errors(f"checkpoint {name}: cannot be stored"):
                manifest = self._described(folder, name, written or {})
                if self._local:
                    self._rename(folder, name, [*manifest.files, manifests.NAME])
                else:
                    theirs = None if parent is None else self._place(parent)
                    self._store.upload(folder, self._place(name), manifest, theirs)
        except CheckpointError:
            self.discard(folder)
            raise
        self.worked = True

    def _described(self, folder: Path, name: str, written: Mapping[str, Written]) -> Manifest:
        """Hash a folder's files, and write their manifest beside them."""
        try:
            manifest = Manifest.of(_hash_all(folder, written))
            (folder / manifests.NAME).write_text(manifest.to_json())
        except OSError as error:
            if error.errno in NO_ROOM or (self._local and error.errno not in OWN):
                raise
            # The storage was not involved: the cause is the task or this machine.
            raise CheckpointError(f"checkpoint {name}: cannot be stored: {error}") from error
        return manifest

    def _rename(self, folder: Path, name: str, files: Sequence[str]) -> None:
        folder.chmod(0o755)
        # Folders too, so that the files' names survive a crash of the machine. All at the same
        # time, because a file system then writes its journal only once.
        folders = {folder / above for file in files for above in Path(file).parents}
        first, *others = [*(folder / file for file in files), *folders]
        flushed = _FLUSHING.map(_flush, others)
        _flush(first)
        for _ in flushed:
            pass
        place = folder.rename(self._place(name))
        try:
            # It is reported next, so its new name must survive a crash.
            _flush(place.parent)
        except OSError:
            self.discard(place)
            raise

    def fetch(self, name: str) -> Path:
        """Return a local folder with the checkpoint `name`; do not write to it.

        Raises:
            CheckpointError: the checkpoint does not exist, or is damaged.
            StorageOutageError: the storage refuses or does not answer.
        """
        place = self._place(name)
        with self._errors(f"checkpoint {name}: cannot be read"):
            try:
                manifest = Manifest.from_json(self._fs.cat_file(f"{place}/{manifests.NAME}"))
                folder = Path(place) if self._local else self._store.download(place, manifest)
            except FileNotFoundError:
                message = f"checkpoint {name}: none of that name in {self.url!r}"
                raise CheckpointError(message) from None
            # `download` has checked the files of an object store already.
            fault = manifest.first_fault(folder) if self._local else None
        self.worked = True
        if fault is not None:
            raise CheckpointError(f"checkpoint {name}: {' '.join(fault)}")
        return folder

    def unchanged(self, name: str, written: Mapping[str, Written]) -> Path | None:
        """The folder of a local checkpoint, if its files are those of `written`, unchanged.

        Only the manifest is read. Lengths and modification times are compared, not hashes.
        """
        if not self._local:
            return None
        folder = Path(self._place(name))
        try:
            manifest = Manifest.from_json((folder / manifests.NAME).read_bytes())
            same = manifest == Manifest.of(written) and all(
                file.describes(folder / path) for path, file in written.items()
            )
        except (OSError, ValueError):
            return None
        return folder if same else None

    def exists(self, name: str) -> bool:
        """Whether there is a complete checkpoint `name`."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(f"{self._place(name)}/{manifests.NAME}"))

    def delete(self, name: str) -> None:
        """Remove the checkpoint `name`; the manifest first, so that no damaged one exists.

        Raises:
            StorageOutageError: the storage refuses or does not answer.
            CheckpointError: it cannot be removed for another reason.
        """
        place = self._place(name)
        with self._errors(f"checkpoint {name}: cannot be removed"):
            # All workers collect the same garbage; another one may remove a file first.
            for _ in range(RIVALS):
                with contextlib.suppress(FileNotFoundError):
                    self._remove(name, place)
                    return
            self._remove(name, place)

    def _remove(self, name: str, place: str) -> None:
        if self.exists(name):
            self._fs.rm_file(f"{place}/{manifests.NAME}")
        if self._fs.exists(place):
            self._fs.rm(place, recursive=True)

    def names(self, older_s: float) -> list[str]:
        """Names of all checkpoints, complete or not, unchanged for `older_s` seconds."""
        self._fs.invalidate_cache()
        if not self._fs.exists(self._root):
            return []
        limit, found = time.time() - older_s, []
        for entry in self._fs.ls(self._root, detail=True):
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if is_name(name) and self._changed(entry) <= limit:
                found.append(name)
        return sorted(found)

    def _changed(self, entry: dict[str, Any]) -> float:
        """When a folder was last changed, in seconds since the epoch; infinity if not known."""
        if self._local:
            return float(entry["mtime"])
        with contextlib.suppress(NotImplementedError, OSError):
            manifest = f"{entry['name'].rstrip('/')}/{manifests.NAME}"
            return float(self._fs.modified(manifest).timestamp())
        return float("inf")

    def tidy(self, older_s: float) -> int:
        """Remove unfinished local checkpoints that have not changed for `older_s` seconds.

        Returns:
            The number of folders that were removed.
        """
        base, removed = Path(self._root) / ".part", 0
        for folder in base.iterdir() if self._local and base.is_dir() else ():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime <= time.time() - older_s:
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    @staticmethod
    def has_room_beside(folder: Path) -> bool:
        """Whether the disk has room for twice the size of an unfinished checkpoint."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free >= 2 * _bytes_in(folder)
        # The folder has been renamed meanwhile.
        return True

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove an unfinished checkpoint."""
        shutil.rmtree(folder, ignore_errors=True)


def _hash_all(folder: Path, written: Mapping[str, Written]) -> dict[str, Written]:
    """Hash all files of a folder; by path inside the folder."""
    hashed = {}
    for file in sorted(_files_in(folder)):
        known, path = written.get(file), folder / file
        hashed[file] = known if known is not None and known.describes(path) else Written.of(path)
    return hashed


def _files_in(folder: Path) -> Iterator[str]:
    """Paths of all files inside a folder, with forward slashes."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                for file in _files_in(folder / entry.name):
                    yield f"{entry.name}/{file}"
            elif entry.is_file():
                yield entry.name


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder if its file system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in UNFLUSHABLE or not path.is_dir():
            raise


def _bytes_in(folder: Path) -> int:
    """Bytes of all files under a folder; a file with several hard links counts once."""
    sizes = {}
    for base, _, files in os.walk(folder):
        for file in files:
            # Another worker may have removed the file.
            with contextlib.suppress(FileNotFoundError):
                stat = os.lstat(Path(base, file))
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())
