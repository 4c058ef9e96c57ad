"""Checkpoints in an object store: a real S3 server, and no shared local folder."""

import json
import os
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
import s3fs
import torch
from moto.server import ThreadedMotoServer

from romul_actors.errors import CheckpointError
from romul_actors.local.processes import free_port
from romul_workers.checkpoints.manifest import SHARED_BYTES
from romul_workers.checkpoints.object_store import KEPT, PIECE_BYTES
from romul_workers.checkpoints.storage import Checkpoints
from romul_workers.tensors.file import read, write
from tests.conftest import wait_for


class Server:
    """An S3 server that can be stopped, and restarted with its data."""

    def __init__(self):
        self.port = free_port()
        self.start()

    def start(self):
        self._moto = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._moto.start()

    def stop(self):
        self._moto.stop()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


@pytest.fixture
def s3(server, monkeypatch):
    """A client of a server, with an empty bucket "romul"; found by the usual variables."""
    url = f"http://127.0.0.1:{server.port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    # It caches clients by their arguments, which do not include the address.
    s3fs.S3FileSystem.clear_instance_cache()
    # Otherwise the next server in this process would have the data of this one.
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="romul")
    yield client
    client.close()


def keys(s3):
    return sorted(one["Key"] for one in s3.list_objects_v2(Bucket="romul").get("Contents", []))


def test_a_checkpoint_makes_the_round_trip(s3, tmp_path):
    place = Checkpoints("s3://romul/runs/e", tmp_path / "a")
    folder = place.begin("0-0-1-ab")
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"numbers")
    place.publish(folder, "0-0-1-ab")
    assert not folder.exists()
    assert place.exists("0-0-1-ab")
    other = Checkpoints("s3://romul/runs/e", tmp_path / "b")
    assert (other.fetch("0-0-1-ab") / "sub" / "weights").read_bytes() == b"numbers"
    assert other.used() > 7
    assert other.names(0.0) == ["0-0-1-ab"]
    assert other.names(3600.0) == []
    other.delete("0-0-1-ab")
    assert keys(s3) == []
    with pytest.raises(CheckpointError, match="none of that name"):
        Checkpoints("s3://romul/runs/e", tmp_path / "c").fetch("0-0-1-ab")


def test_what_was_not_uploaded_whole_does_not_exist(s3, tmp_path):
    place = Checkpoints("s3://romul/e", tmp_path)
    s3.put_object(Bucket="romul", Key="e/0-0-1-ab/weights", Body=b"half")
    assert not place.exists("0-0-1-ab")
    with pytest.raises(CheckpointError, match="none of that name"):
        place.fetch("0-0-1-ab")


def test_a_damaged_object_is_refused(s3, tmp_path):
    place = Checkpoints("s3://romul/e", tmp_path / "a")
    folder = place.begin("0-0-1-ab")
    (folder / "weights").write_bytes(b"numbers")
    place.publish(folder, "0-0-1-ab")
    s3.put_object(Bucket="romul", Key="e/0-0-1-ab/weights", Body=b"numbes")
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoints("s3://romul/e", tmp_path / "b").fetch("0-0-1-ab")


class Sent:
    """Bytes of files that a place's file system sends, and files that the store copies."""

    def __init__(self, place, monkeypatch):
        self.bytes = 0
        self.copied: list[tuple[str, str]] = []
        put, copy = place._fs.put, place._fs.cp_file

        def noted_put(local, remote, **options):
            self.bytes += sum(Path(file).stat().st_size for file in local)
            return put(local, remote, **options)

        def noted_copy(source, target):
            self.copied.append((source, target))
            return copy(source, target)

        monkeypatch.setattr(place._fs, "put", noted_put)
        monkeypatch.setattr(place._fs, "cp_file", noted_copy)


def test_what_the_store_has_of_the_parent_is_copied_there_and_not_sent(s3, tmp_path, monkeypatch):
    place = Checkpoints("s3://romul/e", tmp_path / "a")
    state = {f"layer{i}": torch.randn(1 << 18) for i in range(10)}
    folder = place.begin("0-0-1-ab")
    place.publish(folder, "0-0-1-ab", write(folder / "state.safetensors", state))
    sent = Sent(place, monkeypatch)
    state["layer0"] += 1
    parent, folder = place.fetch("0-0-1-ab"), place.begin("0-1-1-ab")
    written = write(folder / "state.safetensors", state, parent)
    place.publish(folder, "0-1-1-ab", written, "0-0-1-ab")
    assert len(sent.copied) == 1
    assert 1 << 20 <= sent.bytes < 0.15 * 10 * (1 << 20)
    # Each is whole by itself, for a machine that has seen neither.
    place.delete("0-0-1-ab")
    other = Checkpoints("s3://romul/e", tmp_path / "b")
    found = read(other.fetch("0-1-1-ab") / "state.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_what_the_store_lost_of_the_parent_is_sent(s3, tmp_path, monkeypatch):
    place = Checkpoints("s3://romul/e", tmp_path / "a")
    content = bytes(SHARED_BYTES)
    for name in ("0-0-1-ab", "0-1-1-ab"):
        folder = place.begin(name)
        (folder / "weights").write_bytes(content)
        place.publish(folder, name, parent=None if name == "0-0-1-ab" else "0-0-1-ab")
        s3.delete_object(Bucket="romul", Key="e/0-0-1-ab/weights")
    assert "e/0-1-1-ab/weights" in keys(s3)
    other = Checkpoints("s3://romul/e", tmp_path / "b")
    assert (other.fetch("0-1-1-ab") / "weights").read_bytes() == content


def test_large_files_go_and_come_in_pieces(s3, tmp_path):
    place = Checkpoints("s3://romul/e", tmp_path / "a")
    folder = place.begin("0-0-1-ab")
    content = os.urandom(2 * PIECE_BYTES + 12_345)
    (folder / "weights").write_bytes(content)
    place.publish(folder, "0-0-1-ab")
    # S3's own mark of an object that came in pieces: how many.
    assert s3.head_object(Bucket="romul", Key="e/0-0-1-ab/weights")["ETag"].endswith('-3"')
    other = Checkpoints("s3://romul/e", tmp_path / "b")
    assert (other.fetch("0-0-1-ab") / "weights").read_bytes() == content


def test_the_latest_checkpoints_stay_on_the_machine_and_no_others(s3, tmp_path, monkeypatch):
    place = Checkpoints("s3://romul/e", tmp_path / "a")
    names = [f"0-{step}-1-ab" for step in range(KEPT + 2)]
    for name in names:
        folder = place.begin(name)
        (folder / "weights").write_text(name)
        place.publish(folder, name)
    assert sorted(path.name for path in (tmp_path / "a" / "fetched").iterdir()) == names[-KEPT:]
    got = []
    get = place._fs.get

    def noted(remote, local):
        got.extend(remote)
        return get(remote, local)

    monkeypatch.setattr(place._fs, "get", noted)
    assert (place.fetch(names[-1]) / "weights").read_text() == names[-1]
    assert got == []
    # A file that was damaged here is fetched again.
    (tmp_path / "a" / "fetched" / names[-1] / "weights").write_text("0-x-1-ab")
    assert (place.fetch(names[-1]) / "weights").read_text() == names[-1]
    assert got == [f"romul/e/{names[-1]}/weights"]
    s3.delete_object(Bucket="romul", Key=f"e/{names[-1]}/MANIFEST.json")
    with pytest.raises(CheckpointError, match="none of that name"):
        place.fetch(names[-1])


def test_a_search_runs_with_its_checkpoints_in_an_object_store(s3, system):
    # No variable of ours: what the object store's own library reads.
    system.environment |= {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    system.submit(steps=6, checkpoints="s3://romul/e")
    system.actor()
    for _ in range(2):
        system.worker("--garbage-s=0")
    system.wait_for_status("finished", seconds=90)
    assert system.meta()["reported"] == "24"
    assert system.meta()["causes"] == "{}"
    best = json.loads(system.meta()["best"])["checkpoint"]
    # Unneeded checkpoints are removed here, too.
    wait_for(lambda: system.client.zcard("romul:{e}:garbage") == 0, 60)
    left = {key.split("/")[1] for key in keys(s3)}
    assert best in left
    assert len(left) <= 5


def causes(system):
    return json.loads(system.meta().get("causes") or "{}")


def test_an_outage_of_an_object_store_costs_time_only(server, s3, system):
    system.environment |= {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    system.submit(steps=12, checkpoints="s3://romul/e")
    system.actor()
    log = system.worker("--name=w").log
    wait_for(lambda: int(system.meta().get("reported", 0)) >= 4)
    server.stop()
    wait_for(lambda: causes(system).get("no_room", 0) >= 2)
    alarm = "the storage for checkpoints refuses or does not answer: w"
    wait_for(lambda: alarm in system.as_json("top", "e", "--once")["alarms"])
    assert "'s3://romul/e' refuses or does not answer" in log.read_text()
    server.start()
    system.wait_for_status("finished")
    assert set(causes(system)) == {"no_room"}
    assert {system.slot(n)["failures"] for n in range(4)} == {"0"}


def test_without_credentials_a_search_ends_at_once_with_what_the_store_says(server, system):
    place = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(system.folder / "none"),
        "AWS_CONFIG_FILE": str(system.folder / "none"),
    }
    system.environment = {
        **{k: v for k, v in system.environment.items() if not k.startswith("AWS_")},
        **place,
    }
    system.submit(steps=3, checkpoints="s3://romul/e")
    system.actor()
    system.worker()
    system.wait_for_status("failed")
    assert causes(system) == {"storage": 12}
    shown = system.call("failures", "e").stdout
    assert "'s3://romul/e' refuses or does not answer" in shown
