"""Checkpoints in an object store: a real S3 protocol server, no local folder that all see."""

import json
import os

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from romul_actors.errors import CheckpointError
from romul_workers.checkpoints import Checkpoints
from tests.conftest import free_port, wait_for


@pytest.fixture
def s3(monkeypatch):
    """Address of a server, with an empty bucket "romul"; found by the usual variables."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    # It keeps clients by what they were made with, which the address is no part of.
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="romul")
    yield client
    client.close()
    server.stop()


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
    place = Checkpoints("s3://romul/e", tmp_path)
    folder = place.begin("0-0-1-ab")
    (folder / "weights").write_bytes(b"numbers")
    place.publish(folder, "0-0-1-ab")
    s3.put_object(Bucket="romul", Key="e/0-0-1-ab/weights", Body=b"numbes")
    with pytest.raises(CheckpointError, match="damaged"):
        place.fetch("0-0-1-ab")


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
    # What no trial needs goes here too.
    wait_for(lambda: system.client.zcard("romul:{e}:garbage") == 0, 60)
    left = {key.split("/")[1] for key in keys(s3)}
    assert best in left
    assert len(left) <= 5
