"""Checkpoints on their way to an object store and from it, and the latest of them on this machine.

All files of a checkpoint go side by side, and large ones in pieces where the store can do that.
What the store has already it copies by itself; what this machine has already is linked.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from romul_actors.errors import CheckpointError
from romul_workers import manifest as manifests
from romul_workers.manifest import FileRecord, Manifest

PIECE_BYTES = 1 << 24
"""Larger files go to S3, and come from there, in pieces of so many bytes, side by side."""
KEPT = 4
"""So many checkpoints stay on this machine: a worker's next trial often begins from one of them."""


def options(url: str) -> dict[str, int]:
    """What to open a file system with: how large the pieces are that come side by side."""
    return {"default_block_size": PIECE_BYTES} if _is_s3(url) else {}


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


class ObjectStore:
    """Carries checkpoints between a local folder and a file system that is not local.

    Args:
        url: of the experiment's checkpoints.
        filesystem: fsspec's.
        scratch: local folder for the copies.
    """

    def __init__(self, url: str, filesystem: Any, scratch: Path) -> None:
        self._fs = filesystem
        self._copies = scratch / "fetched"
        self._pieces = {"chunksize": PIECE_BYTES} if _is_s3(url) else {}

    def upload(self, folder: Path, place: str, manifest: Manifest, parent: str | None) -> None:
        """Store what lies in a folder, and keep the folder as this machine's copy.

        Args:
            folder: with the files of `manifest` and with MANIFEST.json.
            place: of the checkpoint in the store.
            manifest: of the checkpoint.
            parent: place of a checkpoint that is here already: the store copies its files.
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
        """Give a local copy of a checkpoint.

        Raises:
            CheckpointError: a file is not what the manifest says.
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
            raise CheckpointError(f"checkpoint {folder.name}: {fault[0]} was damaged on its way")
        (folder / manifests.NAME).write_text(text)
        self._remove_oldest()
        return folder

    def _copy_of(self, place: str) -> Path:
        return self._copies / place.rpartition("/")[2]

    def _files_of(self, place: str) -> Mapping[str, str]:
        """The files of a checkpoint that is here, by their hashes."""
        with contextlib.suppress(OSError, ValueError):
            text = (self._copy_of(place) / manifests.NAME).read_bytes()
            return {record.hash: file for file, record in Manifest.from_json(text).files.items()}
        return {}

    def _here(self) -> dict[str, Path]:
        """All files that are here and worth a link, by their hashes."""
        found = {}
        for path in self._copies.glob(f"*/{manifests.NAME}"):
            with contextlib.suppress(OSError, ValueError):
                for file, record in Manifest.from_json(path.read_bytes()).files.items():
                    if record.bytes >= manifests.SHARED_BYTES:
                        found[record.hash] = path.parent / file
        return found

    def _copy(self, source: str, target: str) -> bool:
        """Let the store copy a file; whether it did."""
        try:
            self._fs.cp_file(source, target)
        except (OSError, NotImplementedError):
            # Not every store can, and the source may be gone: the file is sent then.
            return False
        return True

    def _remove_oldest(self) -> None:
        """Keep the latest copies only."""
        copies = []
        for folder in self._copies.iterdir():
            with contextlib.suppress(OSError):
                copies.append((folder.stat().st_mtime_ns, folder))
        for _, folder in sorted(copies)[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def _linked(source: Path, target: Path, record: FileRecord) -> bool:
    """Link a file that is here, if it still is what it was; whether that was done."""
    try:
        target.hardlink_to(source)
    except OSError:
        return False
    if record.matches(target):
        return True
    target.unlink()
    return False
