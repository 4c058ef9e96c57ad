"""The manifest of a checkpoint: its files with their lengths and hashes, as JSON.

A checkpoint without a manifest does not exist. A file that differs from the manifest is damaged.
The manifest comes from a shared storage, so names that lead out of the folder are refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romul_actors.errors import CheckpointError
from romul_workers.checkpoints.hashing import Written

NAME = "MANIFEST.json"
SHARED_BYTES = 1 << 22
"""Smallest file that is shared with another checkpoint; a smaller one is cheaper to write."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a checkpoint.

    Attributes:
        bytes: length of the file.
        hash: the hash, hexadecimal.
        kind: kind of the hash: "blake3", or "sha256" in checkpoints of older versions.
    """

    bytes: int
    hash: str
    kind: str = "blake3"

    def has_length_of(self, path: Path) -> bool:
        """Whether `path` is a file of this length."""
        return path.is_file() and path.stat().st_size == self.bytes

    def matches(self, path: Path) -> bool:
        """Whether the file `path` has this hash."""
        if self.kind == "blake3":
            return Written.of(path).blake3 == self.hash
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, self.kind).hexdigest() == self.hash


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one checkpoint.

    Attributes:
        files: by path inside the checkpoint's folder, with forward slashes.
    """

    files: Mapping[str, FileRecord]

    @classmethod
    def of(cls, written: Mapping[str, Written]) -> "Manifest":
        """Make the manifest of files that are hashed."""
        return cls({name: FileRecord(file.bytes, file.blake3) for name, file in written.items()})

    def first_fault(self, folder: Path) -> tuple[str, str] | None:
        """Find the first file that is missing or damaged.

        Returns:
            Its path inside the folder, and what is wrong with it; None: all files are correct.

        Raises:
            OSError: a file cannot be read.
        """
        for name, record in self.files.items():
            if not record.has_length_of(folder / name):
                return name, "is missing or of another length"
            if not record.matches(folder / name):
                return name, "is damaged"
        return None

    def to_json(self) -> str:
        """The text of MANIFEST.json."""
        files = {n: {"bytes": file.bytes, file.kind: file.hash} for n, file in self.files.items()}
        return json.dumps({"files": files}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read the text of MANIFEST.json.

        Raises:
            ValueError: it is not a manifest, or names a file outside the checkpoint.
        """
        try:
            files = {str(name): _record(file) for name, file in json.loads(text)["files"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{NAME} is not a manifest: {error}") from error
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} leads out of the checkpoint")
        return cls(files)


def check(folder: Path) -> None:
    """Compare a local checkpoint's files with its manifest; accept a folder that has none.

    Raises:
        CheckpointError: a file is missing or damaged, or the manifest is invalid.
    """
    try:
        fault = Manifest.from_json((folder / NAME).read_bytes()).first_fault(folder)
    except FileNotFoundError:
        # A folder that ROMUL did not store, such as a user's own.
        return
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
    if fault is not None:
        raise CheckpointError(f"{folder}: {' '.join(fault)}")


def _record(file: Mapping[str, Any]) -> FileRecord:
    kind = "blake3" if "blake3" in file else "sha256"
    return FileRecord(int(file["bytes"]), str(file[kind]), kind)
