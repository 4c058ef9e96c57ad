"""Small data sets in the two published formats, as written by Python 2."""

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from romul_workers.tasks.cifar_data import CIFAR10, CIFAR100

SMALL10 = replace(CIFAR10, images=(40, 60))
SMALL100 = replace(CIFAR100, images=(200, 100))


class Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    # Missing in the type stubs of Pickler.
    write: Any
    memoize: Any
    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
        self.memoize(obj)

    def save_str(self, obj):
        self.save_bytes(obj.encode("latin1"))

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str


def python2(content):
    """Pickled in protocol 2 with the names that numpy had then."""
    stream = io.BytesIO()
    Python2(stream, 2).dump(content)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def batch(layout, n, seed):
    """Noisy images whose brightness and colour show their class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % layout.classes)
    colours = np.random.default_rng(0).uniform(30, 220, (layout.classes, 3, 1))
    noise = rng.normal(0.0, 20.0, (n, 3, 32 * 32))
    pixels = (colours[labels] + noise).clip(0, 255).astype(np.uint8)
    content = {
        b"batch_label": b"a batch",
        b"data": pixels.reshape(n, -1),
        b"filenames": [b"%d.png" % i for i in range(n)],
        layout.labels: labels.tolist(),
    }
    if layout.classes == 100:
        content[b"coarse_labels"] = (labels // 5).tolist()
    return content


def write(layout, place, write_batch=python2):
    """Write the folder that the archive contains into `place`."""
    folder = place / layout.folder
    folder.mkdir(parents=True)
    for names, n, first in (
        (layout.train, layout.images[0], 0),
        (layout.test, layout.images[1], 9),
    ):
        for i, name in enumerate(names):
            (folder / name).write_bytes(write_batch(batch(layout, n, first + i)))
    for name in layout.other:
        (folder / name).write_bytes(write_batch({b"label_names": [b"a", b"b"]}))
    return folder


def pack(layout, folder, archive, url="", **more):
    """Pack a folder and further members, and return the layout of this archive."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, layout.folder)
        for name, content in more.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return replace(layout, sha256=digest, url=url)
