"""Reads CIFAR-10 and CIFAR-100 as published: pickled batches in a folder or an archive.

A pickle can contain code. Therefore this module reads the files with its own unpickler, which
allows only numpy arrays and plain values. This module does not use torch.

Source of the data and of its format: Krizhevsky 2009, "Learning multiple layers of features from
tiny images", and https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import contextlib
import fcntl
import hashlib
import os
import pickle
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from romul_actors.errors import RomulError

VARIABLE = "ROMUL_CIFAR"
"""Environment variable that names the folder or the archive."""
SIDE = 32
"""Height and width of an image, in pixels."""
DOWNLOAD_TIMEOUT_S = 60.0
"""Longest silence of the server during a download, in seconds."""
CHUNK = 2**20


class DataError(RomulError):
    """A data set is missing or damaged; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The published form of a data set.

    Attributes:
        name: the name that experiments use.
        folder: the folder that the archive unpacks to.
        train, test: names of the batch files.
        other: further files of the archive, which are unpacked but not read.
        images: number of images in each file of `train`, and in each file of `test`.
        labels: key of the labels in a batch.
        classes: number of classes.
        archive, url, sha256: name, address and digest of the archive.
    """

    name: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    other: tuple[str, ...]
    images: tuple[int, int]
    labels: bytes
    classes: int
    archive: str
    url: str
    sha256: str


CIFAR10 = Layout(
    name="cifar10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    other=("batches.meta",),
    images=(10_000, 10_000),
    labels=b"labels",
    classes=10,
    archive="cifar-10-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = Layout(
    name="cifar100",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    other=("meta",),
    images=(50_000, 10_000),
    labels=b"fine_labels",
    classes=100,
    archive="cifar-100-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


@dataclass(frozen=True, slots=True)
class Images:
    """Images and their classes.

    Attributes:
        pixels: uint8, shape (n, 3, 32, 32); the channels are red, green and blue.
        labels: int64, shape (n,), counted from 0.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load(layout: Layout, place: Path | None = None, *, download: bool = False) -> list[Images]:
    """Read the training part and the test part, in the order of the files.

    Args:
        layout: which data set.
        place: a folder that holds the data set's folder or archive, or the folder or archive
            itself. Default: what the environment variable ROMUL_CIFAR names, or else
            `default_place`.
        download: whether to download the archive into `place` if the data set is not there.

    Raises:
        DataError: the data set is not there, or a file of it is missing or damaged.
    """
    folder = locate(layout, place, download=download)
    parts = []
    for names, images in zip((layout.train, layout.test), layout.images, strict=True):
        batches = [read_batch(folder / name, layout, images) for name in names]
        parts.append(
            Images(
                np.concatenate([batch.pixels for batch in batches]),
                np.concatenate([batch.labels for batch in batches]),
            )
        )
    return parts


def default_place() -> Path:
    """The folder for downloads if neither the experiment nor the environment names one."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "romul" / "cifar"


def locate(layout: Layout, place: Path | None = None, *, download: bool = False) -> Path:
    """Find the folder of the batch files; unpack an archive in the folder that holds it.

    Args:
        layout: which data set.
        place: see `load`.
        download: see `load`.

    Raises:
        DataError: the data set is not there, or its archive is not the published one.
    """
    if place is None:
        named = os.environ.get(VARIABLE)
        place = Path(named).expanduser() if named else default_place()
    if place.is_file():
        return _unpacked(layout, place.parent, place)
    for folder in (place / layout.folder, place):
        if (folder / layout.train[0]).is_file():
            return folder
    if (place / layout.archive).is_file():
        return _unpacked(layout, place, place / layout.archive)
    if (place / layout.folder).is_dir():
        raise DataError(
            f"{place / layout.folder}: holds no {layout.train[0]}, so that it is not {layout.name} "
            f"as published: remove it and unpack {layout.archive} again"
        )
    if not download:
        found = "it holds neither" if place.is_dir() else "there is no such folder or archive"
        raise DataError(
            f"{place}: {found}: let the constant 'data' or {VARIABLE} name a folder with "
            f"{layout.folder}/ or {layout.archive}, or set the constant 'download' to true"
        )
    return _unpacked(layout, place, None)


def read_batch(file: Path, layout: Layout, images: int) -> Images:
    """Read one batch file.

    Args:
        file: a pickled dictionary with `b"data"` and the labels.
        layout: which data set.
        images: expected number of images.

    Raises:
        DataError: the file is missing or damaged, contains code, or has another shape.
    """
    batch = _unpickle(file)
    again = f"get {layout.archive} again from {layout.url}"
    if not isinstance(batch, Mapping) or not {b"data", layout.labels} <= set(batch):
        raise DataError(
            f"{file}: not a batch of {layout.name}, which is a dictionary with b'data' and "
            f"{layout.labels!r}: {again}"
        )
    pixels, labels = batch[b"data"], batch[layout.labels]
    wanted = (images, 3 * SIDE * SIDE)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != wanted:
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels)
        raise DataError(f"{file}: b'data' is {found}, not uint8 {wanted}: {again}")
    if not isinstance(labels, list) or len(labels) != images:
        raise DataError(f"{file}: not {images} labels in {layout.labels!r}: {again}")
    if not all(type(label) is int and 0 <= label < layout.classes for label in labels):
        raise DataError(f"{file}: a label is not a number from 0 to {layout.classes - 1}: {again}")
    return Images(pixels.reshape(-1, 3, SIDE, SIDE), np.array(labels, np.int64))


class _Unpickler(pickle.Unpickler):
    """Makes only arrays and plain values; refuses all names but five.

    Bound methods replace the functions of numpy and the codecs, because a file can call a bound
    method but not change it.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The object that a name in the file stands for."""
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return self._empty_array
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case "_codecs", "encode":
                return self._encoded
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch needs")

    def _empty_array(self, kind: object, shape: object, code: object) -> NDArray[Any]:
        """Make an empty array, which the file then fills.

        numpy's own function would also make arrays of any size and type.
        """
        if kind is not np.ndarray or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError(f"no plain array: {kind!r}, {shape!r}, {code!r}")
        return np.ndarray((0,), np.int8)

    def _encoded(self, text: object, encoding: object) -> bytes:
        """Make bytes, which Python 3 writes as encoded text in protocol 2."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError(f"not bytes: {encoding!r}")
        return text.encode("latin1")


def _unpickle(file: Path) -> object:
    try:
        with file.open("rb") as stream:
            # Python 2 wrote the published files; its strings are bytes.
            found: object = _Unpickler(stream, encoding="bytes").load()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{file}: cut short, or not a file of this format ({error}): get the archive again"
        ) from None
    return found


def _unpacked(layout: Layout, place: Path, archive: Path | None) -> Path:
    """Unpack the archive into `place`; download it first if `archive` is None.

    The files are made in a temporary folder, which is renamed at the end: no incomplete folder
    is ever seen.
    """
    target = place / layout.folder
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            if (target / layout.train[0]).is_file():
                return target
            with tempfile.TemporaryDirectory(dir=place, prefix=".unpacking-") as scratch:
                if archive is None:
                    archive = _download(layout, Path(scratch))
                _verify(layout, archive)
                _extract(layout, archive, Path(scratch) / layout.folder)
                (Path(scratch) / layout.folder).rename(target)
    except OSError as error:
        # If the file system has no locks, another process may have been faster.
        if not (target / layout.train[0]).is_file():
            raise DataError(f"{place}: cannot hold {layout.folder}/ unpacked: {error}") from error
    return target


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let only one process at a time fill a folder; others wait and then find it filled."""
    handle = os.open(place, os.O_RDONLY)
    try:
        # Some network file systems have no locks: two processes then do the same work.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _download(layout: Layout, folder: Path) -> Path:
    archive = folder / layout.archive
    try:
        # The address is a constant of this module, and the archive's digest is checked.
        with (
            urllib.request.urlopen(layout.url, timeout=DOWNLOAD_TIMEOUT_S) as answer,  # noqa: S310
            archive.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file, CHUNK)
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            # The error object keeps the connection open.
            error.close()
        raise DataError(
            f"{layout.url}: cannot be downloaded: {error}. Without a network, copy {layout.archive}"
            f" or {layout.folder}/ to this machine and let {VARIABLE} name the folder that holds it"
        ) from None
    return archive


def _verify(layout: Layout, archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != layout.sha256:
        raise DataError(
            f"{archive}: its SHA-256 is {digest}, but that of the published archive is "
            f"{layout.sha256}: it was cut short or is another file; get it again from {layout.url}"
        )


def _extract(layout: Layout, archive: Path, folder: Path) -> None:
    """Copy only the known files, to names that this module chooses."""
    folder.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in (*layout.train, *layout.test, *layout.other):
                member = _regular(tar, f"{layout.folder}/{name}")
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(member, file, CHUNK)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise DataError(f"{archive}: not {layout.name}: {error}; see {layout.url}") from None


def _regular(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a file in an archive; refuse a link."""
    member = tar.getmember(name)
    stream = tar.extractfile(member) if member.isfile() else None
    if stream is None:
        raise tarfile.ExtractError(f"{name} is no file")
    return stream
