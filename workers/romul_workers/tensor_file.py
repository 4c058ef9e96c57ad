"""Tensors in a file, without pickle: written in one pass, hashed on the way, read by mmap.

The file is a safetensors file: any program that knows the format reads its tensors. What is around
the tensors (tables, lists, numbers, texts) is JSON in its header, under the key `romul`.

It knows files and tensors only; what a model or an optimizer is stands in `torch_support.py`.
"""

import json
import os
import queue
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from torch import Tensor

from romul_actors.errors import CheckpointError, TaskError
from romul_workers.hashing import Written

HEADER_KEY = "romul"
CHUNK = 1 << 24
"""So many bytes are written, and hashed, at a time."""
AHEAD = 4
"""So many chunks may be written that are not yet hashed."""
# Names of the safetensors format; types of the same length beside each other keep all aligned.
_TYPES = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = {kind: rank for rank, kind in enumerate(_TYPES)}
Json = Any


def write(path: Path, content: Mapping[str, Any]) -> Written:
    """Write nested tables, lists, numbers, texts and tensors, and flush them to the disk.

    Tensors that are the same place in memory are written once.

    Raises:
        TaskError: something in `content` is none of these; the message says where.
        OSError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _Packer(tensors).pack(content, "")
    ordered = sorted(tensors.items(), key=lambda named: _ORDER[named[1].dtype])
    header: dict[str, Json] = {"__metadata__": {HEADER_KEY: json.dumps(skeleton)}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _Hashed(path) as out:
        out.put(memoryview(struct.pack("<Q", len(text)) + text))
        for _, tensor in ordered:
            for chunk in _chunks(tensor):
                out.put(chunk)
        return out.finish()


def read(path: Path) -> Any:
    """Read what `write` has written; tensors lie in the file (mmap), not in memory.

    They must be copied before the file goes or before they are changed.

    Raises:
        CheckpointError: the file cannot be read, or is not such a file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            skeleton = json.loads((file.metadata() or {})[HEADER_KEY])
            return _unpack(skeleton, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path}: cannot be restored: {error}") from error


def _chunks(tensor: Tensor) -> Iterator[memoryview]:
    """A tensor's bytes, CHUNK at a time."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    if not flat.numel():
        return
    octets: Any = flat.view(torch.uint8).numpy()
    view = memoryview(octets)
    for start in range(0, len(view), CHUNK):
        yield view[start : start + CHUNK]


class _Hashed:
    """A file that is hashed, by a thread of its own, while it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = blake3()
        self._ahead: queue.Queue[memoryview | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._follow, name="hash", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._file.close()

    def put(self, chunk: memoryview) -> None:
        self._ahead.put(chunk)
        while chunk:
            chunk = chunk[self._file.write(chunk) :]

    def finish(self) -> Written:
        # The disk and the hash both take a while: at the same time.
        os.fsync(self._file.fileno())
        self._end()
        stat = os.fstat(self._file.fileno())
        return Written(stat.st_size, self._hash.hexdigest(), stat.st_mtime_ns)

    def _follow(self) -> None:
        while (chunk := self._ahead.get()) is not None:
            self._hash.update(chunk)

    def _end(self) -> None:
        if self._thread.is_alive():
            self._ahead.put(None)
            self._thread.join()


class _Packer:
    """Values as JSON that says what each was; tensors are put aside under names.

    Args:
        tensors: where they are put.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._names: dict[tuple[Any, ...], str] = {}

    def pack(self, value: object, place: str) -> Json:
        """One value; `place` is its path, for names and errors."""
        match value:
            case None | bool() | int() | float() | str():
                return value
            case Tensor():
                return {"tensor": self._tensor(value, place)}
            case Mapping():
                items = [
                    [
                        self._key(key, place),
                        self.pack(item, f"{place}.{key}" if place else str(key)),
                    ]
                    for key, item in value.items()
                ]
                kept = getattr(value, "_metadata", None)
                # What a module's state says of its versions, which loading looks at.
                return (
                    {"table": items}
                    if kept is None
                    else {"table": items, "versions": self.pack(kept, f"{place}._metadata")}
                )
            case list() | tuple():
                kind = "tuple" if isinstance(value, tuple) else "list"
                return {kind: [self.pack(item, f"{place}.{i}") for i, item in enumerate(value)]}
            case _:
                raise TaskError(
                    f"{place}: a {type(value).__name__} cannot be kept in a checkpoint; "
                    "numbers, texts, lists, tables and tensors can"
                )

    def _key(self, key: object, place: str) -> Json:
        if isinstance(key, str | int):
            return key
        raise TaskError(f"{place}: the key {key!r} is neither a text nor a whole number")

    def _tensor(self, tensor: Tensor, place: str) -> str:
        if tensor.dtype not in _TYPES or tensor.layout != torch.strided or tensor.is_quantized:
            kind = f"{tensor.dtype}, {tensor.layout}"
            raise TaskError(
                f"{place}: a tensor of this kind cannot be kept in a checkpoint: {kind}"
            )
        same = (
            tensor.device,
            tensor.data_ptr(),
            tensor.dtype,
            tuple(tensor.shape),
            tensor.stride(),
        )
        if same in self._names and tensor.numel():
            return self._names[same]
        name = place
        while name in self._tensors:
            # A key may hold a dot.
            name += "'"
        self._names[same] = name
        self._tensors[name] = tensor
        return name


def _unpack(value: Json, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"table": items, "versions": kept}:
            state = OrderedDict((key, _unpack(item, tensors)) for key, item in items)
            # The name that torch gives it.
            state.__dict__["_metadata"] = _unpack(kept, tensors)
            return state
        case {"table": items}:
            return {key: _unpack(item, tensors) for key, item in items}
        case {"tuple": items}:
            return tuple(_unpack(item, tensors) for item in items)
        case {"list": items}:
            return [_unpack(item, tensors) for item in items]
        case _:
            return value
