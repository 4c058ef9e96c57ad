"""Tensors in a file, without pickle: written and hashed in one pass, read by mmap.

The file is a safetensors file, and so are the parts that may lie beside it; any program that
supports the format can read the tensors. The structure around the tensors (tables, lists, numbers,
texts) is JSON in the file's header, under the key `romul`. The key `parts` says which tensors are
in which part.

This module knows only files and tensors; `torch_support.py` knows models and optimizers.
"""

import ctypes
import json
import os
import queue
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from blake3 import blake3
from safetensors import SafetensorError, safe_open
from torch import Tensor

from romul_actors.errors import CheckpointError
from romul_workers.checkpoints.hashing import Written
from romul_workers.tensors.packing import TYPES, Json, Packer, octets, unpack
from romul_workers.tensors.parts import NEW, NOTHING, PARTS_KEY, clear, part_name, parts_of, share

HEADER_KEY = "romul"
CHUNK = 1 << 24
"""Largest number of bytes in one chunk."""
BATCH = 1 << 22
"""Bytes of chunks that are written and hashed together. With smaller batches, the waits of the
writing and the hashing thread for each other took longer than everything else."""
MOST_AT_ONCE = 512
"""Most chunks in one batch; the system's limit for one write is 1024."""
AHEAD = 4
"""Most batches that are written but not hashed yet."""
SYNC_FILE_RANGE_WRITE = 2
"""From linux/fs.h: start to write a file's pages to the disk, without waiting for the end."""
_ORDER = {kind: rank for rank, kind in enumerate(TYPES)}


def write(
    path: Path, content: Mapping[str, Any], parent: Path | None = None, *, checked: bool = True
) -> dict[str, Written]:
    """Write nested tables, lists, numbers, texts and tensors.

    Tensors that are the same memory are written once. Tensors that are the same in `parent` may be
    linked from there, as a part (`parts.py`) beside the file. The file is not flushed to the disk,
    but the system starts to write a large one at once, so that a later flush takes less time.

    Args:
        path: the file.
        content: what to write.
        parent: folder of a checkpoint with a file of the same name.
        checked: whether the parent's files were hashed; if not, those to be linked are hashed now.

    Returns:
        The file and its parts, by name.

    Raises:
        TaskError: a value in `content` cannot be written; the message says which.
        OSError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = Packer(tensors).pack(content, "")
    clear(path.parent)
    shared = NOTHING
    if parent is not None:
        shared = share(path.parent, path.name, tensors, parent, checked=checked)
    written, listed = dict(shared.linked), dict(shared.tensors)
    if shared.unchanged:
        # In a file of their own: they may stay unchanged, and the next trial can then link it.
        apart = path.with_name(NEW)
        part = _write_tensors(apart, {name: tensors[name] for name in shared.unchanged}, {})
        apart.rename(path.with_name(part_name(part)))
        written[part_name(part)], listed[part_name(part)] = part, shared.unchanged
    elsewhere = {name for names in listed.values() for name in names}
    metadata = {HEADER_KEY: json.dumps(skeleton)}
    if listed:
        metadata[PARTS_KEY] = json.dumps(listed)
    rest = {name: tensor for name, tensor in tensors.items() if name not in elsewhere}
    written[path.name] = _write_tensors(path, rest, metadata)
    return written


def _write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Written:
    """Write one safetensors file."""
    ordered = sorted(tensors.items(), key=lambda named: _ORDER[named[1].dtype])
    header: dict[str, Json] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _Hashed(path) as out:
        out.put(memoryview(struct.pack("<Q", len(text)) + text))
        for _, tensor in ordered:
            row: Any = octets(tensor).numpy()
            view = memoryview(row)
            for start in range(0, len(view), CHUNK):
                out.put(view[start : start + CHUNK])
        return out.finish()


def read(path: Path) -> Any:
    """Read what `write` has written.

    The tensors are mapped from the files (mmap): copy them before you change them or remove the
    files.

    Raises:
        CheckpointError: a file cannot be read, or `write` did not write it.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            skeleton = json.loads(metadata[HEADER_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for part, names in parts_of(metadata).items():
            with safe_open(path.with_name(part), framework="pt", device="cpu") as file:
                tensors |= {name: file.get_tensor(name) for name in names}
        return unpack(skeleton, tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path}: cannot be restored: {error}") from error


class _Hashed:
    """A file that is hashed while it is written; a large one is hashed in a thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = blake3()
        self._batch: list[memoryview] = []
        self._gathered = 0
        self._ahead: queue.Queue[Sequence[memoryview] | None] = queue.Queue(AHEAD)
        self._ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._file.close()

    def put(self, chunk: memoryview) -> None:
        self._batch.append(chunk)
        self._gathered += len(chunk)
        if self._gathered >= BATCH or len(self._batch) >= MOST_AT_ONCE:
            self._pass_on()

    def finish(self) -> Written:
        if self._thread is None:
            self._update(self._batch)
            self._write()
        else:
            self._pass_on()
        self._end()
        stat = os.fstat(self._file.fileno())
        return Written(stat.st_size, self._hash.hexdigest(), stat.st_mtime_ns)

    def _pass_on(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="hash", daemon=True)
            self._thread.start()
            growing = os.dup(self._file.fileno()), self._ends
            threading.Thread(target=_begin_to_flush, args=growing, daemon=True).start()
        self._ahead.put(tuple(self._batch))
        self._write()
        self._ends.put(self._file.tell())

    def _write(self) -> None:
        batch, self._batch, self._gathered = self._batch, [], 0
        while batch:
            done = os.writev(self._file.fileno(), batch)
            while batch and done >= len(batch[0]):
                done -= len(batch.pop(0))
            if done:
                batch[0] = batch[0][done:]

    def _follow(self) -> None:
        while (chunks := self._ahead.get()) is not None:
            self._update(chunks)

    def _update(self, chunks: Sequence[memoryview]) -> None:
        for chunk in chunks:
            self._hash.update(chunk)

    def _end(self) -> None:
        self._ends.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._ahead.put(None)
            self._thread.join()


def _begin_to_flush(file: int, ends: queue.SimpleQueue[int | None]) -> None:
    """Make the system write a growing file to the disk; run this in a thread.

    These calls may block on a slow disk, so the task's own thread must not make them.

    Args:
        file: the file's descriptor; closed here.
        ends: the length written so far, in bytes, each time it grows; None: the file is complete.
    """
    start = 0
    try:
        sync_file_range = ctypes.CDLL(None).sync_file_range
        sync_file_range.argtypes = ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
        while (end := ends.get()) is not None:
            sync_file_range(file, start, end - start, SYNC_FILE_RANGE_WRITE)
            start = end
    except AttributeError:
        # Not Linux: the later flush writes everything.
        return
    finally:
        os.close(file)
