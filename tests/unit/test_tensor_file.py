"""Tensors in a file: what is read, what is refused, and what is hashed."""

import math
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file

from romul_actors.errors import CheckpointError, TaskError
from romul_workers.checkpoints.hashing import Written
from romul_workers.tensors import file as tensor_file
from romul_workers.tensors import packing
from romul_workers.tensors.file import read, write

KINDS = sorted(packing.TYPES, key=str)


def there_and_back(tmp_path, content):
    file = tmp_path / "x.safetensors"
    write(file, content)
    return read(file)


def test_plain_values_come_back_as_they_were(tmp_path):
    content = {
        "numbers": [1, -2.5, math.inf, True, None],
        "betas": (0.9, 0.999),
        "state": {0: {"step": 3}, "a.b": "text"},
        "empty": [{}, [], ()],
    }
    assert repr(there_and_back(tmp_path, content)) == repr(content)
    assert math.isnan(there_and_back(tmp_path / "..", {"x": math.nan})["x"])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tensors_of_every_kind_come_back(tmp_path, kind):
    tensor = torch.arange(6).reshape(2, 3).to(kind)
    found = there_and_back(tmp_path, {"x": tensor, "odd": torch.tensor([True, False, True])})
    assert found["x"].dtype == kind
    assert torch.equal(found["x"].view(torch.uint8), tensor.view(torch.uint8))
    assert found["odd"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.zeros(0, 4),
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(10.0)[::2],
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=["one number", "empty", "transposed", "strided", "parameter"],
)
def test_tensors_of_every_shape_come_back(tmp_path, tensor):
    found = there_and_back(tmp_path, {"x": tensor})["x"]
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor.detach())


def test_what_a_module_says_of_its_versions_comes_back(tmp_path):
    state: Any = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).state_dict()
    found: Any = there_and_back(tmp_path, {"model": state})["model"]
    assert type(found) is OrderedDict
    assert vars(found)["_metadata"] == state._metadata


def test_tied_weights_are_written_once(tmp_path):
    weight = torch.randn(1000)
    write(tmp_path / "one", {"a": weight})
    write(tmp_path / "two", {"a": weight, "b": weight})
    assert (tmp_path / "two").stat().st_size < 1.1 * (tmp_path / "one").stat().st_size
    found = read(tmp_path / "two")
    assert torch.equal(found["a"], found["b"])


def test_other_programs_read_the_tensors(tmp_path):
    weight = torch.randn(3, 4)
    write(tmp_path / "x", {"model": {"layer.weight": weight}})
    assert torch.equal(load_file(tmp_path / "x")["model.layer.weight"], weight)


def test_the_hash_is_that_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "CHUNK", 1000)
    written = write(tmp_path / "x", {"a": torch.randn(999), "b": torch.randn(50, 50)})["x"]
    body = (tmp_path / "x").read_bytes()
    assert (written.bytes, written.blake3) == (len(body), blake3(body).hexdigest())
    assert Written.of(tmp_path / "x") == written
    assert written.describes(tmp_path / "x")
    os.utime(tmp_path / "x", ns=(0, 0))
    assert not written.describes(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"b": [object()]}}, r"a\.b\.0: a object cannot be saved"),
        ({"a": {1.5: 2}}, r"a: the key 1\.5 is neither"),
        ({"a": torch.eye(3).to_sparse()}, "a: a tensor of this kind cannot be saved"),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, "a: a tensor of this kind"),
    ],
    ids=["object", "key", "sparse", "complex"],
)
def test_what_cannot_be_kept_is_named(tmp_path, content, message):
    with pytest.raises(TaskError, match=message):
        write(tmp_path / "x", content)


@pytest.mark.parametrize("kept", [0, 4, 100, 4000])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept):
    write(tmp_path / "x", {"a": torch.randn(2000)})
    body = (tmp_path / "x").read_bytes()
    (tmp_path / "y").write_bytes(body[:kept])
    with pytest.raises(CheckpointError, match="cannot be restored"):
        read(tmp_path / "y")


def test_another_programs_file_is_refused(tmp_path):
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="cannot be restored"):
        read(tmp_path / "x")


def test_two_names_that_would_be_one_stay_two(tmp_path):
    first, second = torch.ones(2), torch.zeros(2)
    found = there_and_back(tmp_path, {"a": {"b.c": first}, "a.b": {"c": second}})
    assert torch.equal(found["a"]["b.c"], first)
    assert torch.equal(found["a.b"]["c"], second)


def never_on_disk():
    """Bytes that this process wrote but that were deleted before they reached the disk."""
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counted["cancelled_write_bytes"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="other systems do not count these")
def test_a_large_file_goes_to_the_disk_while_it_is_written(tmp_path):
    running, before = set(threading.enumerate()), never_on_disk()
    written = write(tmp_path / "x", {"x": [torch.ones(2**21) for _ in range(4)]})
    for thread in set(threading.enumerate()) - running:
        thread.join()
    (tmp_path / "x").unlink()
    assert never_on_disk() - before < written["x"].bytes / 8
