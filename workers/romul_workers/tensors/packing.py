"""Converts nested tables, lists, numbers and texts to JSON, with tensors kept apart by name.

A tensor's name is its path in the tables, so a tensor has the same name in all checkpoints.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from romul_actors.errors import TaskError
from romul_workers.tensors.version import check_torch

# Before the first use of a feature that an older torch lacks.
check_torch(torch.__version__)

# Names in the safetensors format, in the order in which tensors are written: falling size keeps
# all of them aligned.
TYPES = {
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
_PLAIN = (int, float, str, bool, type(None))
Json = Any


class Packer:
    """Converts values to JSON that records their types.

    Args:
        tensors: where the tensors are put, by name.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._names: dict[tuple[Any, ...], str] = {}

    def pack(self, value: object, place: str) -> Json:
        """Convert one value; `place` is its path, for names of tensors and for errors."""
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
                # A module's state dict has version numbers here, which loading reads.
                return (
                    {"table": items}
                    if kept is None
                    else {"table": items, "versions": self.pack(kept, f"{place}._metadata")}
                )
            case list() | tuple():
                kind = "tuple" if isinstance(value, tuple) else "list"
                if all(type(item) in _PLAIN for item in value):
                    # Fast path: the state of a generator has hundreds of numbers.
                    return {kind: list(value)}
                return {kind: [self.pack(item, f"{place}.{i}") for i, item in enumerate(value)]}
            case _:
                raise TaskError(
                    f"{place}: a {type(value).__name__} cannot be saved in a checkpoint; "
                    "numbers, strings, lists, dicts and tensors can"
                )

    def _key(self, key: object, place: str) -> Json:
        if isinstance(key, str | int):
            return key
        raise TaskError(f"{place}: the key {key!r} is neither a string nor an integer")

    def _tensor(self, tensor: Tensor, place: str) -> str:
        if tensor.dtype not in TYPES or tensor.layout != torch.strided or tensor.is_quantized:
            kind = f"{tensor.dtype}, {tensor.layout}"
            raise TaskError(
                f"{place}: a tensor of this kind cannot be saved in a checkpoint: {kind}"
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


def unpack(value: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Convert JSON of `Packer.pack` back to values."""
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"table": items, "versions": kept}:
            state = OrderedDict((key, unpack(item, tensors)) for key, item in items)
            # torch stores them under this name.
            state.__dict__["_metadata"] = unpack(kept, tensors)
            return state
        case {"table": items}:
            return {key: unpack(item, tensors) for key, item in items}
        case {"tuple": items}:
            return tuple(_unpack_all(items, tensors))
        case {"list": items}:
            return _unpack_all(items, tensors)
        case _:
            return value


def _unpack_all(items: Sequence[Json], tensors: Mapping[str, Tensor]) -> list[Any]:
    return [unpack(item, tensors) if isinstance(item, dict) else item for item in items]


def octets(tensor: Tensor) -> Tensor:
    """A tensor's bytes, shape (n,), uint8, on the CPU; without a copy if possible."""
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
