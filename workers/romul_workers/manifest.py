"""The manifest of a checkpoint: which files belong to it, with their lengths and hashes.

A checkpoint without a manifest does not exist; a file that differs from its manifest is damaged.
The manifest is JSON, and its names come from a shared place: none may lead out of the folder.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a checkpoint.

    Attributes:
        bytes: its length.
        sha256: its hash, hexadecimal.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """Describe a file as it is now.

        Raises:
            OSError: it cannot be read.
        """
        return cls(path.stat().st_size, _digest(path))

    def has_length_of(self, path: Path) -> bool:
        """Whether there is a file of this length."""
        return path.is_file() and path.stat().st_size == self.bytes

    def matches(self, path: Path) -> bool:
        """Whether a file has this hash."""
        return _digest(path) == self.sha256


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one checkpoint.

    Attributes:
        files: by path inside the checkpoint's folder, with forward slashes.
    """

    files: Mapping[str, FileRecord]

    @classmethod
    def of(cls, folder: Path) -> "Manifest":
        """Describe what lies in a folder.

        Raises:
            OSError: a file cannot be read.
        """
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls({path.relative_to(folder).as_posix(): FileRecord.of(path) for path in paths})

    def to_json(self) -> str:
        """The text of MANIFEST.json."""
        return json.dumps({"files": {n: asdict(file) for n, file in self.files.items()}}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read the text of MANIFEST.json.

        Raises:
            ValueError: it is no manifest, or names a file outside the checkpoint.
        """
        try:
            files = {
                str(name): FileRecord(int(file["bytes"]), str(file["sha256"]))
                for name, file in json.loads(text)["files"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{NAME} is no manifest: {error}") from error
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} leads out of the checkpoint")
        return cls(files)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
