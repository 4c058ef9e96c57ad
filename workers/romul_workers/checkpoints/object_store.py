"""Uploads checkpoints to an object store and downloads them; keeps local copies of the latest.

All files of a checkpoint are transferred in parallel, and large files in pieces if the store
supports that. The store itself copies files that it has already; local files are linked.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from romul_actors.errors import CheckpointError
from romul_workers.checkpoints import manifest as manifests
from romul_workers.checkpoints.manifest import FileRecord, Manifest

PIECE_BYTES = 1 << 24
"""Size of the pieces in which larger files are sent to S3, and read from it, in parallel."""
KEPT = 4
"""Number of checkpoints kept on this machine; a worker's next trial often needs one of them."""


def options(url: str) -> dict[str, int]:
    """Options for opening the file system of a URL: the size of pieces, for S3."""
    return {"default_block_size": PIECE_BYTES} if _is_s3(url) else {}


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


class ObjectStore:
    """Transfers checkpoints between a local folder and a remote file system.

    Args:
        url: URL of the experiment's checkpoints.
        filesystem: the fsspec file system of that URL.
        scratch: local folder for the copies.
    """

    def __init__(self, url: str, filesystem: Any, scratch: Path) -> None:
        self._fs = filesystem
        self._copies = scratch / "fetched"
        self._pieces = {"chunksize": PIECE_BYTES} if _is_s3(url) else {}

    def upload(self, folder: Path, place: str, manifest: Manifest, parent: str | None) -> None:
        """Store the content of a folder, and keep the folder as this machine's copy.

        Args:
            folder: has the files of `manifest`, and MANIFEST.json.
            place: path of the checkpoint in the store.
            manifest: manifest of the checkpoint.
            parent: path of a checkpoint in the store that has a local copy. The store copies files
                that are the same there.
        """
        theirs = {} if parent is None else self._files_of(parent)
        sent = []
        for file, record in manifest.files.items():
            known = theirs.get(record.hash) if record.bytes >= manifests.SHARED_BYTES else None
            if known is None or not self._copy(f"{parent}/{known}", f"{place}/{file}"):
                sent.append(file)
        if sent:
            local = [str(folder / file) for file in sent]
            self._fs.put(local, [f"{place}/{file}" for file in sent], **self._pieces)
        # The manifest last: before it is there, the checkpoint does not exist.
        self._fs.put_file(str(folder / manifests.NAME), f"{place}/{manifests.NAME}")
        self._copies.mkdir(exist_ok=True)
        folder.rename(self._copy_of(place))
        self._remove_oldest()

    def download(self, place: str, manifest: Manifest) -> Path:
        """Return a local copy of a checkpoint.

        Raises:
            CheckpointError: a file differs from the manifest.
        """
        folder = self._copy_of(place)
        text = manifest.to_json()
        with contextlib.suppress(OSError):
            whole = (folder / manifests.NAME).read_text() == text
            if whole and manifest.first_fault(folder) is None:
                folder.touch()
                return folder
        shutil.rmtree(folder, ignore_errors=True)
        here = self._here()
        folder.mkdir(parents=True)
        wanted = []
        for file, record in manifest.files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if record.hash not in here or not _linked(here[record.hash], path, record):
                wanted.append(file)
        if wanted:
            local = [str(folder / file) for file in wanted]
            self._fs.get([f"{place}/{file}" for file in wanted], local)
        fault = Manifest({file: manifest.files[file] for file in wanted}).first_fault(folder)
        if fault is not None:
            raise CheckpointError(f"checkpoint {folder.name}: {fault[0]} was damaged in transit")
        (folder / manifests.NAME).write_text(text)
        self._remove_oldest()
        return folder

    def _copy_of(self, place: str) -> Path:
        return self._copies / place.rpartition("/")[2]

    def _files_of(self, place: str) -> Mapping[str, str]:
        """The files of a checkpoint that has a local copy, by hash."""
        with contextlib.suppress(OSError, ValueError):
            text = (self._copy_of(place) / manifests.NAME).read_bytes()
            return {record.hash: file for file, record in Manifest.from_json(text).files.items()}
        return {}

    def _here(self) -> dict[str, Path]:
        """All local files that are large enough for a link, by hash."""
        found = {}
        for path in self._copies.glob(f"*/{manifests.NAME}"):
            with contextlib.suppress(OSError, ValueError):
                for file, record in Manifest.from_json(path.read_bytes()).files.items():
                    if record.bytes >= manifests.SHARED_BYTES:
                        found[record.hash] = path.parent / file
        return found

    def _copy(self, source: str, target: str) -> bool:
        """Ask the store to copy a file; return whether it did."""
        try:
            self._fs.cp_file(source, target)
        except (OSError, NotImplementedError):
            # The store cannot copy, or the source is gone: the file is then sent.
            return False
        return True

    def _remove_oldest(self) -> None:
        """Remove all but the latest copies."""
        copies = []
        for folder in self._copies.iterdir():
            with contextlib.suppress(OSError):
                copies.append((folder.stat().st_mtime_ns, folder))
        for _, folder in sorted(copies)[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def _linked(source: Path, target: Path, record: FileRecord) -> bool:
    """Link a local file if its hash is still correct; return whether that was done."""
    try:
        target.hardlink_to(source)
    except OSError:
        return False
    if record.matches(target):
        return True
    target.unlink()
    return False
