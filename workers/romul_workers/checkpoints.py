"""Checkpoints: whole or absent, in any file system that fsspec knows.

A checkpoint is a folder with a manifest that lists its files (`manifest.py`); without the manifest
it does not exist. On a local disk the folder is built beside its final place and renamed; elsewhere
the manifest is uploaded last. Names are never used again (SLOT-STEP-ATTEMPT and a random tail), so
that no checkpoint overwrites another.

A checkpoint is whole by itself. What it has in common with another one is a hard link on a local
disk (`parts.py`), and elsewhere a copy that the object store makes of what it has
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
from romul_workers import manifest as manifests
from romul_workers.hashing import Written
from romul_workers.manifest import Manifest
from romul_workers.object_store import ObjectStore, options

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""A file system that takes nothing more: it is full, or an error has made it read-only."""
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
"""Errors that a storage has answered with, or that are not the storage's: they would come again.
All others are an outage: libraries of object stores have many errors of their own."""
OWN = (errno.ELOOP, errno.ENAMETOOLONG)
"""What a file system says of links and names that a task made in its folder. Of a whole storage
ELOOP is an outage: an automounter says it of what it cannot mount."""
UNFLUSHABLE = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP)
"""What a file system says whose folders cannot be opened, or not be flushed."""
SPARE_BYTES = 1_000_000
"""A disk with less than this left is full."""
RIVALS = 100
"""So often a removal goes on where another worker removes the same checkpoint."""
FLUSHES = 8
"""So many files are flushed at a time."""
_FLUSHING = ThreadPoolExecutor(FLUSHES - 1, "flush")
"""Threads that stay: to start two for each checkpoint costs more than a small one's flush."""


def place_of(folder: str, name: str) -> str:
    """Path or URL of the checkpoint `name` in a folder, which is a path or a URL itself.

    Raises:
        CheckpointError: no checkpoint has such a name; it may lead out of the folder.
    """
    if not is_name(name):
        raise CheckpointError(misnamed(name))
    return f"{folder.rstrip('/')}/{name}"


class Checkpoints:
    """The checkpoints of one experiment.

    Args:
        url: folder that holds them, as a path or an fsspec URL.
        scratch: local folder for checkpoints in the making and for copies of remote ones.
        quota: most bytes that all of them may take; None: what the disk holds.

    Attributes:
        worked: whether the storage has been read or written here.

    Raises:
        CheckpointError: fsspec does not know the kind of URL, or its library is not installed.
        StorageOutageError: its library cannot begin: without credentials, for instance.
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
            NoRoomError: the disk or the quota is full already.
            StorageOutageError: the storage refuses, or does not answer.
            CheckpointError: the folder cannot be made.
        """
        # On a local disk it is a neighbour of its final place: a rename needs the same file system.
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
        """Turn whatever a file system raises into an error of this project's."""
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
        """Whether the local disk has no room for anything; an object store's is not known."""
        with contextlib.suppress(OSError):
            return self._local and shutil.disk_usage(self._root).free < SPARE_BYTES
        return False

    def refusal(self, folder: Path) -> str | None:
        """How the storage refuses what a task writes, in words; None: it does not.

        Args:
            folder: local, from `begin`; only of a local disk it is a part of the storage.
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
        """Bytes that all checkpoints take; a file that several have on a local disk counts once."""
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
        """Make what lies in `folder` the checkpoint `name`; `folder` is gone then.

        Args:
            folder: local, from `begin`.
            name: the checkpoint's.
            written: by path in `folder`, files that are hashed already; one that was changed since
                is hashed again.
            parent: a checkpoint that `fetch` gave; what an object store has of it is not sent.

        Raises:
            NoRoomError: the disk is full; nothing is stored then.
            StorageOutageError: the storage refuses, or does not answer; nothing is stored then.
            CheckpointError: it cannot be stored; nothing is then.
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
            # The task's fault, or this machine's: no storage has been asked for anything.
            raise CheckpointError(f"checkpoint {name}: cannot be stored: {error}") from error
        return manifest

    def _rename(self, folder: Path, name: str, files: Sequence[str]) -> None:
        folder.chmod(0o755)
        # With the folders, so that no crash of the machine takes a file's name away. All at once: a
        # file system writes its journal once for all that wait for it.
        folders = {folder / above for file in files for above in Path(file).parents}
        first, *others = [*(folder / file for file in files), *folders]
        flushed = _FLUSHING.map(_flush, others)
        _flush(first)
        for _ in flushed:
            pass
        place = folder.rename(self._place(name))
        try:
            # It is reported next: no crash may take its new name away.
            _flush(place.parent)
        except OSError:
            self.discard(place)
            raise

    def fetch(self, name: str) -> Path:
        """Give a local folder with the checkpoint `name`; to be read only.

        Raises:
            CheckpointError: it does not exist, or a file of it is not what was written.
            StorageOutageError: the storage refuses, or does not answer.
        """
        place = self._place(name)
        with self._errors(f"checkpoint {name}: cannot be read"):
            try:
                manifest = Manifest.from_json(self._fs.cat_file(f"{place}/{manifests.NAME}"))
                folder = Path(place) if self._local else self._store.download(place, manifest)
            except FileNotFoundError:
                message = f"checkpoint {name}: none of that name in {self.url!r}"
                raise CheckpointError(message) from None
            # Of an object store only what is sound comes here.
            fault = manifest.first_fault(folder) if self._local else None
        self.worked = True
        if fault is not None:
            raise CheckpointError(f"checkpoint {name}: {' '.join(fault)}")
        return folder

    def unchanged(self, name: str, written: Mapping[str, Written]) -> Path | None:
        """A local checkpoint's folder, if its files are all `written`, and as they were then.

        Nothing is read but the manifest: lengths and times of change are compared, not hashes.
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
        """Whether the checkpoint `name` is there, whole."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(f"{self._place(name)}/{manifests.NAME}"))

    def delete(self, name: str) -> None:
        """Remove the checkpoint `name`; its manifest goes first, so that no half of it exists."""
        place = self._place(name)
        with self._errors(f"checkpoint {name}: cannot be removed"):
            # All workers collect the same garbage: each time another one was faster with a file.
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
        """All checkpoints, whole or in pieces, that were last changed `older_s` ago or before."""
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
        """When a folder was last changed, in seconds since the epoch; infinity: not known."""
        if self._local:
            return float(entry["mtime"])
        with contextlib.suppress(NotImplementedError, OSError):
            manifest = f"{entry['name'].rstrip('/')}/{manifests.NAME}"
            return float(self._fs.modified(manifest).timestamp())
        return float("inf")

    def tidy(self, older_s: float) -> int:
        """Remove local checkpoints in the making that have not changed for `older_s`."""
        base, removed = Path(self._root) / ".part", 0
        for folder in base.iterdir() if self._local and base.is_dir() else ():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime <= time.time() - older_s:
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    @staticmethod
    def has_room_beside(folder: Path) -> bool:
        """Whether the disk has room for twice what a checkpoint in the making takes."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free >= 2 * _bytes_in(folder)
        # It has gone to its place meanwhile.
        return True

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove a checkpoint in the making."""
        shutil.rmtree(folder, ignore_errors=True)


def _hash_all(folder: Path, written: Mapping[str, Written]) -> dict[str, Written]:
    """All files of a folder by their paths in it, hashed."""
    hashed = {}
    for file in sorted(_files_in(folder)):
        known, path = written.get(file), folder / file
        hashed[file] = known if known is not None and known.describes(path) else Written.of(path)
    return hashed


def _files_in(folder: Path) -> Iterator[str]:
    """Paths of all files in a folder, from there, with forward slashes."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                for file in _files_in(folder / entry.name):
                    yield f"{entry.name}/{file}"
            elif entry.is_file():
                yield entry.name


def _flush(path: Path) -> None:
    """Wait until a file is on the disk, or a folder's names, where its file system can do that."""
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
    """Bytes of all files under a folder, one that has several names once."""
    sizes = {}
    for base, _, files in os.walk(folder):
        for file in files:
            # One that another worker has removed since takes nothing.
            with contextlib.suppress(FileNotFoundError):
                stat = os.lstat(Path(base, file))
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())
