"""CIFAR's files are read without executing code in them, and completely or not at all."""

import http.server
import os
import pickle
import shutil
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from romul_workers.tasks.cifar_data import CIFAR10, CIFAR100, VARIABLE, DataError, load, locate

from . import cifar_files
from .cifar_files import SMALL10, SMALL100, pack, python2, write


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path):
    """Address and folder of a real file server."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}", folder
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.mark.parametrize("layout", [SMALL10, SMALL100], ids=lambda layout: layout.name)
@pytest.mark.parametrize(
    "written", [python2, partial(pickle.dumps, protocol=2), partial(pickle.dumps, protocol=4)]
)
def test_a_folder_is_read_whichever_python_wrote_it(tmp_path, layout, written):
    write(layout, tmp_path, written)
    train, test = load(layout, tmp_path)
    for part, names, n, first in (
        (train, layout.train, layout.images[0], 0),
        (test, layout.test, layout.images[1], 9),
    ):
        batches = [cifar_files.batch(layout, n, first + i) for i in range(len(names))]
        assert part.pixels.dtype == np.uint8
        assert part.labels.dtype == np.int64
        pixels = np.concatenate([batch[b"data"] for batch in batches])
        assert np.array_equal(part.pixels, pixels.reshape(-1, 3, 32, 32))
        assert part.labels.tolist() == [i for batch in batches for i in batch[layout.labels]]


def test_the_environment_or_the_caller_names_the_folder(tmp_path, monkeypatch):
    folder = write(SMALL10, tmp_path)
    assert locate(SMALL10, tmp_path) == locate(SMALL10, folder) == folder
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert locate(SMALL10) == folder
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv(VARIABLE, f"~/{tmp_path.name}")
    assert locate(SMALL10) == folder
    with pytest.raises(DataError, match=r"elsewhere: there is no such folder or archive: .*-py/"):
        locate(SMALL10, tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r"elsewhere: it holds neither: .*cifar-10-batches-py/"):
        locate(SMALL10, tmp_path / "elsewhere")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


class Calls:
    """An object that is pickled as a function call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("name", "hostile"),
    [
        ("posix.system", lambda file: Calls(os.system, f"touch {file}")),
        ("builtins.eval", lambda file: Calls(eval, f"open({str(file)!r}, 'w')")),
        ("numpy.save", lambda file: Calls(np.save, str(file), 1)),
        ("numpy.load", lambda file: Calls(np.load, str(file))),
        ("numpy.fromfile", lambda file: Calls(np.fromfile, str(file))),
        ("builtins.getattr", lambda file: Calls(getattr, np.dtype, "type")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_file_that_would_run_something_is_refused(tmp_path, name, hostile, protocol):
    folder, file = write(SMALL10, tmp_path), tmp_path / "run"
    content = {**cifar_files.batch(SMALL10, 40, 0), b"more": hostile(file)}
    (folder / "data_batch_3").write_bytes(pickle.dumps(content, protocol))
    module, function = name.split(".")
    # The name in Python 2.
    module = module.replace("builtins", "(builtins|__builtin__)")
    wanted = rf"data_batch_3: .*it names {module}[\w.]*\.{function}, which no batch needs"
    with pytest.raises(DataError, match=wanted):
        load(SMALL10, tmp_path)
    assert not list(tmp_path.glob("run*"))


RECONSTRUCT = np.empty(0).__reduce__()[0]
"""Names that numpy writes into the pickle of an array."""


@pytest.mark.parametrize(
    "call",
    [
        (RECONSTRUCT, (np.ndarray, (10**12,), b"b")),
        (RECONSTRUCT, (np.memmap, (0,), b"b")),
    ],
    ids=["huge", "another type"],
)
def test_an_array_is_made_empty_and_then_filled(tmp_path, call):
    folder = write(SMALL10, tmp_path)
    content = {**cifar_files.batch(SMALL10, 40, 0), b"data": Calls(call[0], *call[1])}
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError, match=r"data_batch_1: .*(no plain array|it names numpy.*memmap)"):
        load(SMALL10, tmp_path)


def test_a_file_cannot_change_what_reads_it(tmp_path):
    """`pickle` sets a state with slots attribute by attribute."""
    folder = write(SMALL10, tmp_path)
    name = b"c_codecs\nencode\n"
    slots = b"N}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
    (folder / "data_batch_1").write_bytes(b"\x80\x02" + name + slots)
    with pytest.raises(DataError, match=r"data_batch_1: .*__defaults__"):
        load(SMALL10, tmp_path)


def without(file):
    file.unlink()


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def emptied(file):
    file.write_bytes(b"")


def of_text(file):
    file.write_text("a,b,c\n1,2,3\n")


def holding(**changes):
    def change(file):
        content = cifar_files.batch(SMALL10, 40, 0)
        changed = {key.encode(): value(content) for key, value in changes.items()}
        file.write_bytes(python2({**content, **changed}))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without, "cannot be read: No such file"),
        (cut_short, "cut short, or not a file of this format"),
        (emptied, "cut short, or not a file of this format"),
        (of_text, "cut short, or not a file of this format"),
        (lambda file: file.write_bytes(python2([1, 2])), "not a batch of cifar10"),
        (lambda file: file.write_bytes(python2({b"data": 1})), "not a batch of cifar10"),
        (holding(data=lambda known: known[b"data"][:30]), r"uint8 \(30, 3072\), not uint8 \(40,"),
        (holding(data=lambda known: known[b"data"] / 255.0), "is float64"),
        (holding(data=lambda known: known[b"data"].tolist()), "list"),
        (holding(labels=lambda known: known[b"labels"][:-1]), "not 40 labels"),
        (holding(labels=lambda known: [*known[b"labels"][:-1], 10]), "not a number from 0 to 9"),
        (holding(labels=lambda known: [*known[b"labels"][:-1], b"1"]), "not a number from 0 to 9"),
    ],
)
def test_a_damaged_folder_is_an_error_with_the_file_and_what_to_do(tmp_path, damage, words):
    folder = write(SMALL10, tmp_path)
    damage(folder / "data_batch_2")
    with pytest.raises(DataError, match=words) as error:
        load(SMALL10, tmp_path)
    assert str(error.value).startswith(f"{folder / 'data_batch_2'}: ")
    assert "again" in str(error.value) or "No such file" in str(error.value)


def test_a_folder_of_another_format_is_an_error(tmp_path):
    (tmp_path / SMALL10.folder).mkdir()
    (tmp_path / SMALL10.folder / "data_batch_1.bin").write_bytes(bytes(3073))
    with pytest.raises(DataError, match=r"holds no data_batch_1, .* unpack cifar-10-python.tar.gz"):
        load(SMALL10, tmp_path)
    # CIFAR-100's files where CIFAR-10's should be.
    shutil.rmtree(tmp_path / SMALL10.folder)
    other = write(SMALL100, tmp_path)
    for name in (*SMALL10.train, *SMALL10.test):
        shutil.copy(other / "train", other / name)
    with pytest.raises(DataError, match=r"not a batch of cifar10, .* b'labels'"):
        load(SMALL10, other)


@pytest.fixture
def packed(tmp_path):
    """A layout of a small archive, in a folder of its own."""
    (tmp_path / "place").mkdir()
    layout = pack(SMALL10, write(SMALL10, tmp_path), tmp_path / "place" / SMALL10.archive)
    return layout, tmp_path / "place"


def test_an_archive_is_unpacked_beside_itself(packed):
    layout, place = packed
    train, test = load(layout, place)
    assert (len(train.labels), len(test.labels)) == (200, 60)
    assert names(place) == [layout.folder, layout.archive]
    assert names(place / layout.folder) == sorted((*layout.train, *layout.test, *layout.other))
    # The archive itself can be given, too, and is no longer needed afterwards.
    assert locate(layout, place / layout.archive) == place / layout.folder
    (place / layout.archive).unlink()
    assert locate(layout, place) == place / layout.folder


def test_an_archive_that_is_not_the_published_one_leaves_nothing(packed):
    layout, place = packed
    archive = place / layout.archive
    whole = archive.read_bytes()
    for content in (whole[:-500], whole + b"x", b""):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"its SHA-256 is \w+, but .* get it again from"):
            load(layout, place)
        assert names(place) == [layout.archive]


def test_nothing_leaves_the_folder_that_an_archive_is_unpacked_to(tmp_path, packed):
    layout, place = packed
    hostile = {"../outside": b"x", "/tmp/romul-outside": b"x", f"{layout.folder}/more": b"x"}
    layout = pack(layout, tmp_path / layout.folder, place / layout.archive, **hostile)
    folder = locate(layout, place)
    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/romul-outside").exists()
    assert "more" not in names(folder)


def test_a_link_or_a_missing_file_in_an_archive_is_refused(tmp_path, packed):
    layout, place = packed
    folder = tmp_path / layout.folder
    (folder / "test_batch").unlink()
    without_test = pack(layout, folder, place / layout.archive)
    with pytest.raises(DataError, match="test_batch"):
        load(without_test, place)
    (folder / "test_batch").symlink_to("/etc/passwd")
    linked = pack(layout, folder, place / layout.archive)
    with pytest.raises(DataError, match="test_batch is no file"):
        load(linked, place)
    assert names(place) == [layout.archive]
    with tarfile.open(place / layout.archive) as tar:
        assert tar.getmember(f"{layout.folder}/test_batch").issym()


def test_an_archive_is_downloaded_once_for_all_workers(tmp_path, server):
    url, served = server
    layout = pack(SMALL100, write(SMALL100, tmp_path), served / SMALL100.archive)
    layout = replace(layout, url=f"{url}/{SMALL100.archive}")
    place = tmp_path / "a" / "place"
    with pytest.raises(DataError, match="set the constant 'download' to true"):
        load(layout, place)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load(layout, place, download=True), range(4)))
    assert {len(train.labels) for train, _ in found} == {200}
    assert names(place) == [layout.folder]
    # With the files in place, no network is needed.
    (served / SMALL100.archive).unlink()
    load(layout, place, download=True)


def test_a_download_goes_to_the_cache_where_no_folder_is_named(tmp_path, server):
    url, served = server
    layout = pack(SMALL10, write(SMALL10, tmp_path), served / "a.tar.gz", f"{url}/a.tar.gz")
    folder = locate(layout, download=True)
    assert folder == tmp_path / "cache" / "romul" / "cifar" / SMALL10.folder
    assert locate(layout) == folder


def test_a_download_that_fails_or_is_another_file_leaves_nothing(tmp_path, server):
    url, served = server
    place = tmp_path / "place"
    missing = replace(SMALL10, url=f"{url}/missing.tar.gz")
    with pytest.raises(DataError, match=r"cannot be downloaded: .*404.* copy cifar-10-python"):
        load(missing, place, download=True)
    nowhere = replace(SMALL10, url="http://127.0.0.1:1/a.tar.gz")
    with pytest.raises(DataError, match=rf"Without a network, .*{VARIABLE}"):
        load(nowhere, place, download=True)
    (served / "a.tar.gz").write_bytes(b"not what was published")
    other = replace(SMALL10, url=f"{url}/a.tar.gz")
    with pytest.raises(DataError, match=f"that of the published archive is {CIFAR10.sha256}"):
        load(other, place, download=True)
    assert names(place) == []


def test_what_is_in_the_way_is_named(packed):
    layout, place = packed
    (place / layout.folder).mkdir()
    (place / layout.folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="cannot hold cifar-10-batches-py/ unpacked"):
        locate(layout, place / layout.archive)
    assert names(place / layout.folder) == ["notes.txt"]


def test_the_published_sizes_are_those_of_the_papers():
    for layout in (CIFAR10, CIFAR100):
        assert len(layout.train) * layout.images[0] == 50_000
        assert len(layout.test) * layout.images[1] == 10_000
        assert layout.url.endswith(layout.archive)


# Collected only where there is real data: there is nothing to skip elsewhere.
if os.environ.get(VARIABLE):
    REAL = Path(os.environ[VARIABLE])

    def test_the_real_data_is_read():
        train, test = load(CIFAR10, REAL)
        assert train.pixels.shape == (50_000, 3, 32, 32)
        assert np.bincount(train.labels).tolist() == [5000] * 10
        assert np.bincount(test.labels).tolist() == [1000] * 10
