"""Nested tables, lists, numbers, texts and tensors as JSON, with the tensors put aside under names.

A tensor's name is its place in the tables: what was called so in one checkpoint is called so in the
next one.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from romul_actors.errors import TaskError
from romul_workers.torch_version import check_torch

# Before the first use of what an older torch lacks.
check_torch(torch.__version__)

# Names of the safetensors format; types of the same length beside each other keep all aligned.
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
                if all(type(item) in _PLAIN for item in value):
                    # As the state of a generator is: hundreds of numbers.
                    return {kind: list(value)}
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
        if tensor.dtype not in TYPES or tensor.layout != torch.strided or tensor.is_quantized:
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


def unpack(value: Json, tensors: Mapping[str, Tensor]) -> Any:
    """The values that `Packer.pack` made into JSON."""
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"table": items, "versions": kept}:
            state = OrderedDict((key, unpack(item, tensors)) for key, item in items)
            # The name that torch gives it.
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
    """A tensor's bytes as a row of numbers on the CPU: itself, not a copy, where that can be."""
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
