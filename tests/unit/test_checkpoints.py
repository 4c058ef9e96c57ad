"""Checkpoints are whole or absent, on a local disk and elsewhere alike."""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from romul.result import Result
from romul_actors.errors import CheckpointError, NoRoomError, StorageOutageError
from romul_actors.observe.snapshot import read_glance
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Glance
from romul_sim.drill.injector import small_disk
from romul_workers.checkpoints.hashing import Written
from romul_workers.checkpoints.manifest import NAME as MANIFEST
from romul_workers.checkpoints.storage import Checkpoints


@pytest.fixture(params=["local", "remote"])
def checkpoints(request, tmp_path):
    # fsspec's own memory file system stands for all that are not a local disk.
    url = str(tmp_path / "c") if request.param == "local" else f"memory://{uuid.uuid4().hex}/c"
    return Checkpoints(url, tmp_path / "scratch")


def published(checkpoints, name="0-0-1", **files):
    folder = checkpoints.begin(name)
    for file, content in (files or {"w": "weights"}).items():
        (folder / file).write_text(content)
    checkpoints.publish(folder, name)
    return folder


def test_what_is_published_is_fetched(checkpoints):
    folder = checkpoints.begin("3-7-1")
    (folder / "deep").mkdir()
    (folder / "deep" / "w").write_bytes(b"\x00\xff")
    (folder / "note").write_text("n")
    assert not checkpoints.exists("3-7-1")
    checkpoints.publish(folder, "3-7-1")
    fetched = checkpoints.fetch("3-7-1")
    assert (fetched / "deep" / "w").read_bytes() == b"\x00\xff"
    assert (fetched / "note").read_text() == "n"
    assert checkpoints.exists("3-7-1")
    assert not folder.exists()


def test_without_a_manifest_it_does_not_exist(checkpoints):
    published(checkpoints)
    checkpoints._fs.rm_file(f"{checkpoints._root}/0-0-1/{MANIFEST}")
    assert not checkpoints.exists("0-0-1")
    with pytest.raises(CheckpointError, match="checkpoint 0-0-1: none of that name"):
        checkpoints.fetch("0-0-1")


def test_one_that_was_deleted_is_gone(checkpoints):
    published(checkpoints)
    checkpoints.delete("0-0-1")
    checkpoints.delete("0-0-1")
    assert not checkpoints.exists("0-0-1")


@pytest.mark.parametrize("call", ["rm_file", "rm"])
def test_one_that_two_remove_at_once_is_gone(checkpoints, monkeypatch, call):
    published(checkpoints)

    def removed(path, **options):
        # The other worker acts between the check and the removal.
        monkeypatch.undo()
        checkpoints._fs.rm(f"{checkpoints._root}/0-0-1", recursive=True)
        raise FileNotFoundError(path, options)

    monkeypatch.setattr(checkpoints._fs, call, removed)
    checkpoints.delete("0-0-1")
    assert not checkpoints.exists("0-0-1")


@pytest.mark.parametrize("call", ["rm_file", "rm"])
def test_what_another_worker_has_yet_to_remove_is_removed(checkpoints, monkeypatch, call):
    """The other worker may be killed while it removes the folder."""
    published(checkpoints)
    place = f"{checkpoints._root}/0-0-1"
    remove = checkpoints._fs.rm_file

    def removed_in_part(path, **options):
        monkeypatch.undo()
        if call == "rm_file":
            remove(f"{place}/{MANIFEST}")
        raise FileNotFoundError(path, options)

    monkeypatch.setattr(checkpoints._fs, call, removed_in_part)
    checkpoints.delete("0-0-1")
    assert not checkpoints._fs.exists(place)


def test_a_file_that_was_cut_off_is_noticed(tmp_path):
    checkpoints = Checkpoints(str(tmp_path / "c"), tmp_path)
    published(checkpoints)
    (tmp_path / "c" / "0-0-1" / "w").write_text("wei")
    with pytest.raises(CheckpointError, match="w is missing or of another length"):
        checkpoints.fetch("0-0-1")


def test_a_file_that_was_damaged_on_its_way_is_noticed(tmp_path):
    url = f"memory://{uuid.uuid4().hex}"
    checkpoints = Checkpoints(url, tmp_path / "a")
    published(checkpoints)
    checkpoints._fs.pipe_file(f"{checkpoints._root}/0-0-1/w", b"WEIGHTS")
    with pytest.raises(CheckpointError, match="w was damaged in transit"):
        Checkpoints(url, tmp_path / "b").fetch("0-0-1")


@pytest.mark.parametrize("name", ["../../etc", "a", "1-2", "1-2-3/../4", ""])
def test_a_name_never_leads_out_of_the_folder(checkpoints, name):
    for call in (checkpoints.fetch, checkpoints.exists, checkpoints.delete):
        with pytest.raises(CheckpointError, match="not a name of the form SLOT-STEP-ATTEMPT"):
            call(name)


def test_a_manifest_never_leads_out_of_the_folder(checkpoints):
    published(checkpoints)
    evil = {"files": {"../../evil": {"bytes": 1, "sha256": "0"}}}
    place = f"{checkpoints._root}/0-0-1/{MANIFEST}"
    checkpoints._fs.pipe_file(place, json.dumps(evil).encode())
    with pytest.raises(CheckpointError, match="leads out of the checkpoint"):
        checkpoints.fetch("0-0-1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {"w": {}}}'])
def test_a_manifest_that_is_none_is_an_error(checkpoints, text):
    published(checkpoints)
    checkpoints._fs.pipe_file(f"{checkpoints._root}/0-0-1/{MANIFEST}", text.encode())
    with pytest.raises(CheckpointError, match="checkpoint 0-0-1: cannot be read"):
        checkpoints.fetch("0-0-1")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "c").write_text("a file, no folder")
    with pytest.raises(CheckpointError, match=r"checkpoints '.*/c'"):
        Checkpoints(str(tmp_path / "c"), tmp_path).begin("0-0-1")


def test_a_full_disk_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path / "c"), tmp_path)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be stored: .*No space left on device"):
        published(checkpoints)
    assert not checkpoints.exists("0-0-1")
    assert list((tmp_path / "c" / ".part").iterdir()) == []


def test_an_unknown_kind_of_url_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoints 'nowhere://x'"):
        Checkpoints("nowhere://x", tmp_path)


def test_one_changed_byte_is_noticed_on_a_local_disk_too(tmp_path):
    place = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
    published(place)
    (tmp_path / "c" / "0-0-1" / "w").write_text("weight5")
    with pytest.raises(CheckpointError, match="w is damaged"):
        place.fetch("0-0-1")


def test_a_full_quota_is_an_error_with_what_is_used(tmp_path):
    published(Checkpoints(str(tmp_path / "c"), tmp_path / "scratch"), w="x" * 1_000)
    place = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch", quota=1_000)
    with pytest.raises(NoRoomError, match=r"1,\d{3} bytes of a quota of 1,000"):
        place.begin("0-1-1")
    place.delete("0-0-1")
    place.begin("0-1-1")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full_is_an_error_and_recovers(tmp_path):
    with small_disk(tmp_path / "c") as mounted:
        if not mounted:
            pytest.skip("mounting is not allowed here")
        place = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
        folder = place.begin("0-0-1")
        filler = tmp_path / "c" / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4_096)
        assert place.full()
        with pytest.raises(NoRoomError, match="disk is full"):
            place.begin("0-1-1")
        with contextlib.suppress(OSError):
            (folder / "w").write_text("x" * 10_000)
        with pytest.raises(NoRoomError, match="No space left"):
            place.publish(folder, "0-0-1")
        assert not place.exists("0-0-1")
        filler.unlink()
        published(place)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_a_disk_that_has_become_read_only_is_as_a_full_one(tmp_path):
    with small_disk(tmp_path / "c") as mounted:
        if not mounted:
            pytest.skip("mounting is not allowed here")
        place = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
        folder = place.begin("0-0-1")
        remount(tmp_path / "c", "ro")
        with pytest.raises(NoRoomError, match="Read-only"):
            place.begin("0-1-1")
        with pytest.raises(NoRoomError, match="Read-only"):
            place.publish(folder, "0-0-1")
        remount(tmp_path / "c", "rw")
        published(place)


@contextlib.contextmanager
def refused(folder):
    """A folder that this process may not use."""
    folder.chmod(0)
    user = os.geteuid()
    # Root can access everything.
    os.seteuid(65_534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_folder_that_refuses_is_an_outage_and_no_fault_of_a_checkpoint(tmp_path):
    place = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
    assert not place.worked
    published(place)
    assert place.worked
    folder = place.begin("0-1-1")
    (folder / "w").write_text("more")
    assert place.refusal(folder) is None
    with refused(tmp_path / "c"):
        with pytest.raises(StorageOutageError, match=r"0-0-1: cannot be read: '.*/c' refuses.*Per"):
            place.fetch("0-0-1")
        with pytest.raises(StorageOutageError, match=r"checkpoints '.*/c': it refuses.*Permission"):
            place.begin("0-2-1")
        assert "Permission denied" in (place.refusal(folder) or "")
        with pytest.raises(StorageOutageError, match=r"0-1-1: cannot be stored.*Permission"):
            place.publish(folder, "0-1-1")
    assert (place.fetch("0-0-1") / "w").read_text() == "weights"


def test_what_an_object_stores_library_raises_is_an_outage_but_a_missing_name_is_none(
    tmp_path, monkeypatch
):
    class UnreachableError(Exception):
        """An error that is not an OSError and has no message."""

    def down(*args, **options):
        raise UnreachableError

    place = Checkpoints(f"memory://{uuid.uuid4().hex}/c", tmp_path / "scratch")
    place.begin("0-0-1")
    assert not place.worked
    published(place)
    assert place.worked
    monkeypatch.setattr(place._fs, "cat_file", down)
    with pytest.raises(StorageOutageError, match="refuses or does not answer: UnreachableError"):
        place.fetch("0-0-1")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="none of that name") as caught:
        place.fetch("0-9-1")
    assert not isinstance(caught.value, StorageOutageError)


@pytest.mark.parametrize("name", ["x", MANIFEST])
def test_a_link_to_itself_in_a_tasks_folder_is_no_outage(checkpoints, name):
    folder = checkpoints.begin("0-1-1")
    (folder / name).symlink_to(name)
    with pytest.raises(CheckpointError, match=f"0-1-1: cannot be stored.*{name}") as caught:
        checkpoints.publish(folder, "0-1-1")
    assert not isinstance(caught.value, StorageOutageError)
    assert not folder.exists()


def test_a_path_that_is_too_long_is_no_outage(checkpoints):
    folder = checkpoints.begin("0-1-1")
    # The whole path is too long, although each part can be created from its parent.
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=handle)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    with pytest.raises(CheckpointError, match=r"0-1-1: cannot be stored.*too long") as caught:
        checkpoints.publish(folder, "0-1-1")
    assert not isinstance(caught.value, StorageOutageError)


def test_a_scratch_folder_that_cannot_be_read_is_no_outage_of_an_object_store(tmp_path):
    place = Checkpoints(f"memory://{uuid.uuid4().hex}/c", tmp_path / "scratch")
    folder = place.begin("0-1-1")
    with refused(folder), pytest.raises(CheckpointError, match="Permission denied") as caught:
        place.publish(folder, "0-1-1")
    assert not isinstance(caught.value, StorageOutageError)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_leftovers_are_listed_by_their_age(tmp_path):
    place = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
    assert place.names(0.0) == []
    published(place, "0-1-1-abc")
    (tmp_path / "c" / "notes").mkdir()
    assert place.names(0.0) == ["0-1-1-abc"]
    assert place.names(60.0) == []
    place.begin("0-2-1-abc")
    assert (place.tidy(60.0), place.tidy(0.0)) == (0, 1)


def test_a_file_that_is_hashed_and_flushed_is_not_read_again(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path / "store"), tmp_path / "scratch")
    folder = checkpoints.begin("0-0-1")
    (folder / "a").write_bytes(b"one")
    (folder / "b").write_bytes(b"two")
    written = {"a": Written.of(folder / "a"), "b": Written.of(folder / "b")}
    os.utime(folder / "b", ns=(1, 1))
    hashed, of = [], Written.of

    def noted(path):
        hashed.append(path.name)
        return of(path)

    monkeypatch.setattr(Written, "of", noted)
    checkpoints.publish(folder, "0-0-1", written)
    assert hashed == ["b"]
    assert (checkpoints.fetch("0-0-1") / "a").read_bytes() == b"one"


@pytest.fixture
def flushes(monkeypatch):
    """Paths in the order in which they are flushed and renamed; for a rename, the new path."""
    made, fsync, rename = [], os.fsync, os.rename

    def noted_fsync(handle):
        made.append(("flush", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def noted_rename(source, target):
        made.append(("rename", str(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    return made


def test_a_checkpoint_and_its_names_are_flushed_once_each_before_it_is_there(tmp_path, flushes):
    checkpoints = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
    folder = checkpoints.begin("0-0-1")
    (folder / "a" / "b").mkdir(parents=True)
    for file in ("w", "a/b/v"):
        (folder / file).write_text("x")
    checkpoints.publish(folder, "0-0-1")
    *before, renamed, last = flushes
    inside = ["w", "a/b/v", MANIFEST, ".", "a", "a/b"]
    assert sorted(before) == sorted(("flush", str(folder / path)) for path in inside)
    assert renamed == ("rename", str(tmp_path / "c" / "0-0-1"))
    assert last == ("flush", str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("number", "stored"), [(errno.EINVAL, True), (errno.EIO, False)], ids=["no flush", "broken"]
)
def test_where_folders_cannot_be_flushed_a_checkpoint_is_stored_and_on_a_broken_disk_not(
    tmp_path, monkeypatch, number, stored
):
    checkpoints = Checkpoints(str(tmp_path / "c"), tmp_path / "scratch")
    fsync = os.fsync

    def of_files(handle):
        if Path(f"/proc/self/fd/{handle}").readlink() == tmp_path / "c":
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_files)
    with contextlib.nullcontext() if stored else pytest.raises(CheckpointError, match="stored"):
        published(checkpoints)
    assert checkpoints.exists("0-0-1") == stored
    assert checkpoints.names(0.0) == (["0-0-1"] if stored else [])


def test_a_manifest_of_an_older_version_is_checked_too(tmp_path):
    checkpoints = Checkpoints(str(tmp_path / "store"), tmp_path / "scratch")
    folder = checkpoints.begin("0-0-1")
    (folder / "a").write_bytes(b"one")
    checkpoints.publish(folder, "0-0-1")
    place = tmp_path / "store" / "0-0-1"
    digest = hashlib.sha256(b"one").hexdigest()
    manifest = {"files": {"a": {"bytes": 3, "sha256": digest}}}
    (place / "MANIFEST.json").write_text(json.dumps(manifest))
    assert (checkpoints.fetch("0-0-1") / "a").read_bytes() == b"one"
    (place / "a").write_bytes(b"eno")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.fetch("0-0-1")


@pytest.mark.parametrize("folder", ["s3://bucket/e", "s3://bucket/e/"])
def test_the_best_checkpoint_stands_in_its_folder_however_that_is_written(folder):
    assert found(folder, "0-0-1-ab").best.checkpoint == "s3://bucket/e/0-0-1-ab"


def test_a_best_checkpoint_of_another_form_leads_nowhere(tmp_path):
    """A store may still hold such a name from before they were refused."""
    result = found(str(tmp_path / "checkpoints"), "../loot")
    with pytest.raises(CheckpointError, match=r"'\.\./loot': not a name of the form"):
        _ = result.best
    assert "not a name of the form" in repr(result)


def found(folder, checkpoint):
    """A search whose best trial wrote this checkpoint."""
    space = {"x": {"type": "float", "min": 0.0, "max": 1.0}}
    experiment = Experiment(name="e", task="t", steps=1, space=space, checkpoints=folder)
    best = {"loss": 0.5, "trial": "0-0", "checkpoint": checkpoint, "hyperparameters": {"x": 0.5}}
    meta = {"spec": experiment.model_dump_json(), "status": "running", "slots": "0"}
    meta["best"] = json.dumps({**best, "metrics": {}})
    return Result(read_glance(Glance(1, meta, [], {}, {}, [])))
