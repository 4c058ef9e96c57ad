"""Parts that a checkpoint shares with its parent: not rewritten, and never lost with it."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from romul_actors.errors import CheckpointError
from romul_workers.checkpoints.manifest import NAME as MANIFEST
from romul_workers.checkpoints.manifest import SHARED_BYTES
from romul_workers.checkpoints.storage import Checkpoints
from romul_workers.tensors import packing, parts
from romul_workers.tensors.file import read, write

FILE = "state.safetensors"
LAYER = SHARED_BYTES // 4 // 2
"""Numbers in a layer: two layers are just large enough for a shared file."""
LAYERS = 10


class Search:
    """The checkpoints of one slot, with a state of ten layers, in their own folder."""

    def __init__(self, folder):
        self.place = Checkpoints(str(folder / "c"), folder / "scratch")
        self.root = folder / "c"
        self.state = {f"layer{i}": torch.randn(LAYER) for i in range(LAYERS)}
        self.made = []

    def train(self, *layers):
        for layer in layers:
            self.state[f"layer{layer}"] += 1

    def save(self):
        """Save the state as a child of the last checkpoint; return the new checkpoint's folder."""
        name = f"0-{len(self.made)}-1"
        parent = self.made[-1] if self.made else None
        folder = self.place.begin(name)
        written = write(folder / FILE, self.state, self.place.fetch(parent) if parent else None)
        self.place.publish(folder, name, written, parent)
        self.made.append(name)
        return self.root / name

    def holds(self, name):
        """Whether a checkpoint is complete and equals the current state."""
        found = read(self.place.fetch(name) / FILE)
        return found.keys() == self.state.keys() and all(
            torch.equal(found[key], tensor) for key, tensor in self.state.items()
        )


@pytest.fixture
def search(tmp_path):
    return Search(tmp_path)


def on_disk(folder):
    """Bytes that a folder takes, in disk blocks; each file counts once."""
    stats = {}
    for path in folder.rglob("*"):
        stat = path.stat()
        stats[stat.st_ino] = stat.st_blocks * 512
    return sum(stats.values())


def passed_to_the_disk():
    """Bytes that this process has written to files so far."""
    (line,) = (s for s in Path("/proc/self/io").read_text().splitlines() if s.startswith("wchar"))
    return int(line.split()[1])


def links(folder):
    return {path.name: path.stat().st_nlink for path in folder.iterdir() if path.name != MANIFEST}


def test_with_nine_of_ten_layers_frozen_a_tenth_is_written(search):
    search.save()
    whole = on_disk(search.root)
    for _ in range(3):
        search.train(0)
        before, written = on_disk(search.root), passed_to_the_disk()
        search.save()
        assert on_disk(search.root) - before < 0.15 * whole
        assert passed_to_the_disk() - written < 0.15 * whole
        assert search.holds(search.made[-1])


def test_what_is_frozen_lies_apart_where_too_much_beside_it_changes(search):
    search.save()
    for _ in range(3):
        search.train(*range(6))
        last = search.save()
    (part,) = (name for name in links(last) if name.startswith("part-"))
    # All children share it, and nothing in it is outdated.
    assert links(last) == {part: 3, FILE: 1}
    frozen = 4 * LAYER * 4
    assert frozen <= (last / part).stat().st_size < 1.01 * frozen
    assert search.holds("0-3-1")


def test_a_state_that_changed_everywhere_is_written_as_before(search, tmp_path):
    search.save()
    search.train(*range(LAYERS))
    before = passed_to_the_disk()
    last = search.save()
    passed = passed_to_the_disk() - before
    alone = tmp_path / "alone"
    alone.mkdir()
    write(alone / FILE, search.state)
    assert links(last) == {FILE: 1}
    assert (last / FILE).read_bytes() == (alone / FILE).read_bytes()
    assert passed < 1.001 * (alone / FILE).stat().st_size + 10_000


def test_what_changed_everywhere_but_at_its_beginning_is_written_too(search):
    search.save()
    for layer in search.state.values():
        layer[-1] += 1
    assert links(search.save()) == {FILE: 1}
    assert search.holds("0-1-1")


def test_a_layer_that_thaws_is_written_again_and_the_rest_is_not(search):
    search.save()
    search.train(0)
    search.save()
    search.train(0, 1)
    folder = search.save()
    assert search.holds("0-2-1")
    assert (folder / FILE).stat().st_size < 3 * LAYER * 4
    # If too little of the shared file is still valid, none of it is used.
    search.train(0, 1, 2)
    folder = search.save()
    assert search.holds("0-3-1")
    assert max(links(folder).values()) == 1


def test_a_checkpoint_is_whole_without_its_parent(search):
    search.save()
    for _ in range(2):
        search.train(0)
        search.save()
    search.place.delete("0-0-1")
    search.place.delete("0-1-1")
    assert search.place.names(0.0) == ["0-2-1"]
    assert search.holds("0-2-1")
    search.place.delete("0-2-1")
    assert search.place.used() == 0


def test_a_child_that_goes_takes_nothing_along(search):
    search.save()
    state = {name: tensor.clone() for name, tensor in search.state.items()}
    search.train(0)
    search.save()
    search.place.delete("0-1-1")
    search.state = state
    assert search.holds("0-0-1")


def test_damage_to_a_shared_part_is_noticed_in_all_that_have_it(search):
    search.save()
    search.train(0)
    folder = search.save()
    (part,) = (name for name in links(folder) if name.startswith("part-"))
    with (folder / part).open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"wrong")
    with pytest.raises(CheckpointError, match=f"{FILE} is damaged"):
        search.place.fetch("0-0-1")
    with pytest.raises(CheckpointError, match=f"{part} is damaged"):
        search.place.fetch("0-1-1")


def test_of_a_parent_that_was_not_hashed_no_damaged_file_is_linked(search, tmp_path):
    parent = search.save()
    search.train(0)
    with (parent / FILE).open("r+b") as file:
        # The damage is in the layer that has changed, so the valid part of the file is intact.
        file.seek(-search.state["layer0"].nbytes * 9 - 5, os.SEEK_END)
        file.write(b"wrong")
    for checked, shared in ((True, True), (False, False)):
        folder = tmp_path / f"{checked}"
        folder.mkdir()
        write(folder / FILE, search.state, parent, checked=checked)
        assert any(count > 1 for count in links(folder).values()) is shared


def test_a_quota_counts_shared_bytes_once(search):
    search.save()
    one = search.place.used()
    for _ in range(3):
        search.train(0)
        search.save()
    assert one < search.place.used() < 1.4 * one
    search.place.delete("0-0-1")
    # Its file is still the others' part.
    assert search.place.used() > one


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from romul_workers.checkpoints.storage import Checkpoints
    from romul_workers.tensors.file import read, write

    place = Checkpoints(sys.argv[1], Path(sys.argv[1]) / "scratch")
    parent = place.fetch("0-0-1")
    state = {name: tensor.clone() for name, tensor in read(parent / "state.safetensors").items()}
    state["layer0"] += 1
    folder = place.begin("0-1-1")
    write(folder / "state.safetensors", state, parent)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_between_link_and_rename_costs_nothing(search):
    search.save()
    one = search.place.used()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(search.root)]
    done = subprocess.run(command, check=False)
    assert done.returncode == -signal.SIGKILL
    assert links(search.root / "0-0-1") == {FILE: 2}
    assert search.place.names(0.0) == ["0-0-1"]
    assert search.place.tidy(0.0) == 1
    assert search.place.used() == one
    assert links(search.root / "0-0-1") == {FILE: 1}
    assert search.holds("0-0-1")


def test_a_copy_elsewhere_is_whole(search, tmp_path):
    search.save()
    search.train(0)
    shutil.copytree(search.save(), tmp_path / "copy")
    shutil.rmtree(search.root)
    found = read(tmp_path / "copy" / FILE)
    assert all(torch.equal(found[key], tensor) for key, tensor in search.state.items())


def test_where_nothing_can_be_linked_all_is_written(search, tmp_path, monkeypatch):
    parent = search.save()
    search.train(0)

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    folder = tmp_path / "x"
    folder.mkdir()
    written = write(folder / FILE, search.state, parent)
    found = read(folder / FILE)
    assert all(torch.equal(found[key], tensor) for key, tensor in search.state.items())
    assert written.keys() == {path.name for path in folder.iterdir()}
    assert all(path.stat().st_nlink == 1 for path in folder.iterdir())


@pytest.mark.parametrize("lost", [FILE, MANIFEST])
def test_from_a_parent_that_cannot_be_read_nothing_is_shared(search, tmp_path, lost):
    parent = search.save()
    (parent / lost).write_bytes(b"nothing")
    folder = tmp_path / "x"
    folder.mkdir()
    assert write(folder / FILE, search.state, parent).keys() == {FILE}


def test_a_second_save_replaces_the_first_one(search, tmp_path):
    parent = search.save()
    folder = tmp_path / "x"
    folder.mkdir()
    search.train(0)
    write(folder / FILE, search.state, parent)
    assert len(links(folder)) == 2
    (folder / FILE).unlink()
    (folder / "part-of-the-task.safetensors").write_text("the task's own")
    search.train(*range(LAYERS))
    write(folder / FILE, search.state, parent)
    assert links(folder).keys() == {FILE, "part-of-the-task.safetensors"}


@pytest.mark.parametrize("kind", sorted(packing.TYPES, key=str), ids=str)
def test_tensors_of_every_kind_are_compared_to_the_last_bit(kind):
    one = torch.arange(5000).to(kind)
    other = one.clone()
    assert parts._same(one, other)
    other.view(torch.uint8)[-1] ^= 1
    assert not parts._same(one, other)
    assert not parts._same(one, one[:-1])
    assert parts._same(one[1:], one.clone()[1:])
    assert parts._same(one[:0], one[:0])


def test_equal_numbers_that_are_other_bits_are_not_the_same():
    assert parts._same(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    assert not parts._same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not parts._same(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64))
    assert not parts._same(torch.zeros(4), torch.zeros(2, 2))
    transposed = torch.arange(6.0).reshape(2, 3).t()
    assert parts._same(transposed, transposed.contiguous())


@pytest.mark.parametrize("name", ["../0-0-1/state.safetensors", "/etc/passwd", "other.safetensors"])
def test_a_list_of_parts_never_leads_out_of_the_folder(name):
    with pytest.raises(ValueError, match="is not the name of a part"):
        parts.parts_of({parts.PARTS_KEY: f'{{"{name}": ["layer0"]}}'})


def test_a_part_that_is_not_there_is_an_error(search):
    search.save()
    search.train(0)
    folder = search.save()
    for part in folder.glob("part-*"):
        part.unlink()
    with pytest.raises(CheckpointError, match="is missing or of another length"):
        search.place.fetch("0-1-1")
    with pytest.raises(CheckpointError, match="cannot be restored"):
        read(folder / FILE)
