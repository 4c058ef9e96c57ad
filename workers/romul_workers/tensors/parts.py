"""Files that a checkpoint shares with its parent, so that unchanged tensors are not written again.

A checkpoint's tensors are in its main file and in parts. A part is a file named by the hash of its
content. It is a hard link: the file system counts the checkpoints that use it, so each of them can
be removed, moved or copied by itself. No checkpoint needs another one to be read.

Tensors are compared byte by byte, not by hashes. A changed tensor usually differs in its first
bytes, so a checkpoint in which everything changed needs no further pass over the data.
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

from romul_workers.checkpoints import manifest as manifests
from romul_workers.checkpoints.hashing import Written
from romul_workers.checkpoints.manifest import Manifest
from romul_workers.tensors.packing import octets

PARTS_KEY = "parts"
CHUNK = 1 << 24
"""Number of bytes that are compared at a time."""
LEAST_USED = 0.75
"""Share of a file's bytes that must be unchanged for a link; the rest only takes room."""
MOST_PARTS = 16
NEW = "part-new.safetensors"
"""Name of a part whose hash is not known yet."""
_PREFIX = 1024
_NAME = re.compile(r"part-[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True, slots=True)
class Shared:
    """What a checkpoint shares with its parent.

    Attributes:
        linked: the parts that are linked into the new folder, by name.
        tensors: names of the tensors to read from each part, by the part's name.
        unchanged: names of unchanged tensors whose files are not worth sharing.
    """

    linked: Mapping[str, Written]
    tensors: Mapping[str, Sequence[str]]
    unchanged: Sequence[str]


NOTHING = Shared({}, {}, ())


def part_name(written: Written) -> str:
    """The file name of a part."""
    return f"part-{written.blake3[:16]}.safetensors"


def parts_of(metadata: Mapping[str, str]) -> dict[str, list[str]]:
    """The parts that a main file's header lists, with the tensors to read from each.

    Raises:
        ValueError: the list cannot be read, or has a name that is not a part's.
    """
    parts = json.loads(metadata.get(PARTS_KEY, "{}"))
    for name in parts:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a part")
    return dict(parts)


def share(
    folder: Path, main: str, tensors: Mapping[str, Tensor], parent: Path, *, checked: bool
) -> Shared:
    """Link files of the parent whose tensors are mostly unchanged into a new checkpoint's folder.

    Args:
        folder: folder of the new checkpoint.
        main: name of the main file in both folders.
        tensors: tensors of the new checkpoint, by name.
        parent: folder of the parent. If it cannot be read or linked, nothing is shared.
        checked: whether the parent's files were hashed; if not, those to be linked are hashed now.
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
            # The file is damaged, so its unchanged tensors are written again.
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
    """Remove the parts that an earlier save left in a folder."""
    for file in folder.glob("part-*.safetensors"):
        if file.name == NEW or _NAME.fullmatch(file.name):
            file.unlink()


def _link(source: Path, folder: Path, digest: str) -> Written | None:
    """Link a file into a folder, named by its hash; None: it cannot be linked."""
    stat = source.stat()
    written = Written(stat.st_size, digest, stat.st_mtime_ns)
    try:
        (folder / part_name(written)).hardlink_to(source)
    except OSError:
        # Another file system, one without links, another user's file, too many links.
        return None
    return written


def _unchanged(tensors: Mapping[str, Tensor], parent: Path, main: str) -> dict[str, list[str]]:
    """Names of the tensors that are unchanged, by the parent's file that holds them."""
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
    """Whether two tensors are equal bit by bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    one, other = one.detach(), other.detach()
    # The beginning first: a changed tensor on a GPU then need not be copied.
    if not _equal(one.reshape(-1)[:_PREFIX].to("cpu"), other.reshape(-1)[:_PREFIX]):
        return False
    mine, theirs = octets(one), octets(other)
    return all(
        _equal(mine[start : start + CHUNK], theirs[start : start + CHUNK])
        for start in range(0, len(mine), CHUNK)
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one dimension have the same bytes."""
    one, other = (row.contiguous().view(torch.uint8) for row in (one, other))
    whole = len(one) // 8 * 8
    aligned = all(row.storage_offset() % 8 == 0 and row.data_ptr() % 8 == 0 for row in (one, other))
    if not aligned:
        return torch.equal(one, other)
    # Comparing eight bytes at a time is several times as fast.
    words, others = (row[:whole].view(torch.int64) for row in (one, other))
    return torch.equal(words, others) and torch.equal(one[whole:], other[whole:])
