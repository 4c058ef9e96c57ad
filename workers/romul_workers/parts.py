"""Files that a checkpoint has in common with its parent: what did not change is not written again.

A checkpoint's tensors lie in its main file and in parts. A part is a file under its content's hash,
and a hard link: the file system counts the checkpoints that have it, so that any of them can be
removed, moved or copied as if it were alone. No checkpoint needs another one to be read.

Tensors are compared byte by byte, not by hashes: one that changed is known by its first bytes, so
that a checkpoint in which everything changed costs no further pass over the data.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from romul_workers import manifest as manifests
from romul_workers.hashing import Written
from romul_workers.manifest import Manifest
from romul_workers.packing import octets

PARTS_KEY = "parts"
CHUNK = 1 << 24
"""So many bytes are compared at a time."""
LEAST_USED = 0.75
"""Such a share of a part's bytes must still be true; the rest of it only takes room."""
MOST_PARTS = 16
NEW = "part-new.safetensors"
"""The name of a part whose hash is not known yet."""
_PREFIX = 1024
_NAME = re.compile(r"part-[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True, slots=True)
class Shared:
    """What a checkpoint has in common with its parent.

    Attributes:
        linked: the parts that lie in the new folder now, by name.
        tensors: for each part, the names of the tensors that are to be read from it.
        unchanged: tensors as in the parent, but in files that are not worth sharing.
    """

    linked: Mapping[str, Written]
    tensors: Mapping[str, Sequence[str]]
    unchanged: Sequence[str]


NOTHING = Shared({}, {}, ())


def part_name(written: Written) -> str:
    """The name of a part."""
    return f"part-{written.blake3[:16]}.safetensors"


def parts_of(metadata: Mapping[str, str]) -> dict[str, list[str]]:
    """The parts that a main file's header lists, with the tensors to be read from each.

    Raises:
        ValueError: the list cannot be read, or leads out of the folder.
    """
    parts = json.loads(metadata.get(PARTS_KEY, "{}"))
    for name in parts:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a part")
    return dict(parts)


def share(
    folder: Path, main: str, tensors: Mapping[str, Tensor], parent: Path, *, checked: bool
) -> Shared:
    """Link the files of a parent, of which enough is still true, into a new checkpoint's folder.

    Args:
        folder: of the new checkpoint.
        main: name of the main file, the same in both.
        tensors: of the new checkpoint, by name.
        parent: folder of the parent; if it cannot be read, or not be linked, nothing is shared.
        checked: whether the parent's files were hashed; if not, those to be linked are now.
    """
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    if sum(sizes.values()) < manifests.SHARED_BYTES:
        return NOTHING
    try:
        unchanged = _unchanged(tensors, parent, main)
        records = Manifest.from_json((parent / manifests.NAME).read_bytes()).files
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return NOTHING
    used = {file: sum(sizes[name] for name in names) for file, names in unchanged.items()}
    linked, shared = {}, {}
    for file in sorted(used, key=lambda file: -used[file])[:MOST_PARTS]:
        record = records.get(file)
        if record is None or record.kind != "blake3":
            continue
        if used[file] < max(manifests.SHARED_BYTES, LEAST_USED * record.bytes):
            continue
        if not checked and not record.matches(parent / file):
            # What is true of it must not be lost with the rest.
            continue
        written = _link(parent / file, folder, record.hash)
        if written is not None:
            linked[part_name(written)] = written
            shared[part_name(written)] = unchanged.pop(file)
    rest = [name for names in unchanged.values() for name in names]
    if sum(sizes[name] for name in rest) < manifests.SHARED_BYTES:
        rest = []
    return Shared(linked, shared, rest)


def clear(folder: Path) -> None:
    """Remove the parts that an earlier save has left in a folder."""
    for file in folder.glob("part-*.safetensors"):
        if file.name == NEW or _NAME.fullmatch(file.name):
            file.unlink()


def _link(source: Path, folder: Path, digest: str) -> Written | None:
    """Link a file under its hash; None: that cannot be done here."""
    stat = source.stat()
    written = Written(stat.st_size, digest, stat.st_mtime_ns)
    try:
        (folder / part_name(written)).hardlink_to(source)
    except OSError:
        # Another file system, one without links, another user's file, too many links.
        return None
    return written


def _unchanged(tensors: Mapping[str, Tensor], parent: Path, main: str) -> dict[str, list[str]]:
    """Names of the tensors that are as in the parent, by the parent's file that holds them."""
    with safe_open(parent / main, framework="pt", device="cpu") as file:
        parts = parts_of(file.metadata() or {})
        found = {main: _same_in(file, file.keys(), tensors)}
    for part, names in parts.items():
        with safe_open(parent / part, framework="pt", device="cpu") as file:
            found[part] = _same_in(file, names, tensors)
    return {file: names for file, names in found.items() if names}


def _same_in(file: Any, names: Sequence[str], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        name for name in names if name in tensors and _same(tensors[name], file.get_tensor(name))
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same to the last bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    one, other = one.detach(), other.detach()
    # Of one that lies on a GPU only a little is copied, as a rule.
    if not _equal(one.reshape(-1)[:_PREFIX].to("cpu"), other.reshape(-1)[:_PREFIX]):
        return False
    mine, theirs = octets(one), octets(other)
    return all(
        _equal(mine[start : start + CHUNK], theirs[start : start + CHUNK])
        for start in range(0, len(mine), CHUNK)
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two rows of numbers are the same bytes."""
    one, other = (row.contiguous().view(torch.uint8) for row in (one, other))
    whole = len(one) // 8 * 8
    aligned = all(row.storage_offset() % 8 == 0 and row.data_ptr() % 8 == 0 for row in (one, other))
    if not aligned:
        return torch.equal(one, other)
    # Eight bytes at a time: several times as fast.
    words, others = (row[:whole].view(torch.int64) for row in (one, other))
    return torch.equal(words, others) and torch.equal(one[whole:], other[whole:])
