"""Checkpoints: whole or absent, in any file system that fsspec knows.

A checkpoint is a folder with a MANIFEST.json that lists its files; without the manifest it does not
exist. On a local disk the folder is built beside its final place and renamed; elsewhere the
manifest is uploaded last. Names are never reused (SLOT-STEP-ATTEMPT), so nobody overwrites anybody.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from romul_actors.errors import CheckpointError

MANIFEST = "MANIFEST.json"
_NAME = re.compile(r"\d+-\d+-\d+")


class Checkpoints:
    """The checkpoints of one experiment.

    Args:
        url: folder that holds them, as a path or an fsspec URL.
        scratch: local folder for checkpoints in the making and for copies of remote ones.

    Raises:
        CheckpointError: fsspec does not know the kind of URL, or its library is not installed.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            raise CheckpointError(f"checkpoints {url!r}: {error}") from None
        self.url = url
        self._fs: Any = filesystem
        self._root: str = root.rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)
        self._scratch = scratch

    def _place(self, name: str) -> str:
        # Names come over the network: none may lead out of the folder.
        if not _NAME.fullmatch(name):
            raise CheckpointError(f"checkpoint {name!r}: not a name of the form SLOT-STEP-ATTEMPT")
        return f"{self._root}/{name}"

    def begin(self, name: str) -> Path:
        """Make an empty local folder for a new checkpoint `name`."""
        # On a local disk it is a neighbour of its final place: a rename needs the same file system.
        base = Path(self._root) / ".part" if self._local else self._scratch
        try:
            base.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=base))
        except OSError as error:
            raise CheckpointError(f"checkpoints {self.url!r}: {error}") from error

    def publish(self, folder: Path, name: str) -> None:
        """Make what lies in `folder` the checkpoint `name`, and remove `folder`.

        Raises:
            CheckpointError: it cannot be stored; then nothing is.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        try:
            manifest = {
                "files": {
                    str(path.relative_to(folder)): {
                        "bytes": path.stat().st_size,
                        "sha256": _digest(path),
                    }
                    for path in files
                }
            }
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
            if self._local:
                self._rename(folder, name, files)
            else:
                self._upload(folder, name, files)
        except OSError as error:
            self.discard(folder)
            raise CheckpointError(f"checkpoint {name}: cannot be stored: {error}") from error

    def _rename(self, folder: Path, name: str, files: list[Path]) -> None:
        for path in (*files, folder / MANIFEST):
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        folder.chmod(0o755)
        folder.rename(self._place(name))

    def _upload(self, folder: Path, name: str, files: list[Path]) -> None:
        for path in (*files, folder / MANIFEST):
            self._fs.put_file(str(path), f"{self._place(name)}/{path.relative_to(folder)}")
        self.discard(folder)

    def fetch(self, name: str) -> Path:
        """Give a local folder with the checkpoint `name`; to be read only.

        Raises:
            CheckpointError: it does not exist, or a file of it is not what was written.
        """
        place = self._place(name)
        folder = Path(place) if self._local else self._scratch / "fetched" / name
        try:
            manifest = json.loads(self._fs.cat_file(f"{place}/{MANIFEST}"))
            _check_names(manifest["files"])
            if not self._local and not (folder / MANIFEST).exists():
                self._download(place, folder, manifest)
        except FileNotFoundError:
            raise CheckpointError(f"checkpoint {name}: none of that name in {self.url!r}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {name}: cannot be read: {error}") from error
        for file, told in manifest["files"].items():
            path = folder / file
            if not path.is_file() or path.stat().st_size != told["bytes"]:
                raise CheckpointError(f"checkpoint {name}: {file} is missing or cut off")
        return folder

    def _download(self, place: str, folder: Path, manifest: dict[str, Any]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for file, told in manifest["files"].items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(f"{place}/{file}", str(path))
            if _digest(path) != told["sha256"]:
                raise CheckpointError(f"checkpoint {folder.name}: {file} was damaged on its way")
        (folder / MANIFEST).write_text(json.dumps(manifest))

    def exists(self, name: str) -> bool:
        """Whether the checkpoint `name` is there, whole."""
        return bool(self._fs.exists(f"{self._place(name)}/{MANIFEST}"))

    def delete(self, name: str) -> None:
        """Remove the checkpoint `name`; its manifest goes first, so that no half of it exists."""
        place = self._place(name)
        if self.exists(name):
            self._fs.rm_file(f"{place}/{MANIFEST}")
        if self._fs.exists(place):
            self._fs.rm(place, recursive=True)

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove a checkpoint in the making."""
        shutil.rmtree(folder, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check_names(files: dict[str, Any]) -> None:
    for file in files:
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise ValueError(f"{file!r} leads out of the checkpoint")
