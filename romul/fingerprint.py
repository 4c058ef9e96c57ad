"""Fingerprints of functions: they tell whether two calls were given the same function.

A fingerprint is computed from code and plain values only, in a fixed order. So unchanged code has
the same fingerprint in every process, and each time a notebook cell runs.
"""

import dis
import functools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from inspect import getattr_static
from operator import itemgetter
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    EllipsisType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

FORMAT = 2
"""Version of the computation. Fingerprints of different versions cannot be compared."""
PLAIN = (int, float, complex, str, bytes, type(None), EllipsisType, range, PurePath)
NAMED = (type, FunctionType, BuiltinFunctionType)
HOLDERS = (
    *(MethodType, staticmethod, classmethod, property, functools.cached_property),
    *(functools.partial, functools.partialmethod, type(functools.lru_cache(len))),
)
"""Types that wrap functions or values. Only their attributes in `HELD` are read."""
HELD = ("__func__", "__self__", "__wrapped__", "fget", "fset", "fdel", "func", "args", "keywords")
GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
"""Instructions that read a global name. Other names in a code object are attributes."""
MOST, DEEPEST = 20_000, 60
"""Maximal number of values and maximal depth; beyond them only types are read, so that large data
does not delay a call. Plain values in a list of plain values are not counted."""


def fingerprint(train: Callable[..., Any], setup: Callable[..., Any] | None) -> str:
    """A text that changes when the functions change, but not when they move within a file.

    It covers functions, classes and objects of the user's own modules that the code refers to by
    name, plain values in them, and lists, dictionaries and sets of these. Everything else counts
    only by its name: installed packages, modules (`helpers.f`), arrays and tensors.
    """
    reader = _Reader({_module(train), _module(setup)})
    reader.read((train, setup))
    return reader.digest()


class _Reader:
    """Computes a digest of the values that it reads; equal values have equal digests.

    Args:
        own: names of modules that always count as the user's own.
        outer: reader of the enclosing value, if any.
    """

    def __init__(self, own: set[str], outer: "_Reader | None" = None) -> None:
        self._own = own
        self.outer = outer
        self.seen: dict[int, tuple[int, Any]] = {}
        """Values read so far by `id`, with their numbers. The reference keeps the `id` unique."""
        self.first: int = 0 if outer is None else outer.first + len(outer.seen)
        self.count: int = 0 if outer is None else outer.count
        self.depth: int = 0 if outer is None else outer.depth
        self._sum = sha256()

    def digest(self) -> str:
        """The digest of all values read so far."""
        return self._sum.hexdigest()[:16]

    def read(self, value: Any) -> None:
        """Read a value and its contents."""
        if isinstance(value, PLAIN):
            self._note(repr(value))
            return
        if (before := self._number(value)) is not None:
            self._note(f"again {before}")
            return
        # Equal constants may be one object or several; they cannot contain cycles.
        if not isinstance(value, tuple | frozenset | CodeType):
            self.seen[id(value)] = (self.first + len(self.seen), value)
        self._note(self._name(value))
        self.count += 1
        if self.count <= MOST and self.depth < DEEPEST:
            self.depth += 1
            self._read_inside(value)
            self.depth -= 1

    def _number(self, value: Any) -> int | None:
        """The number of a value that this or an outer reader has read; None if there is none."""
        reader: _Reader | None = self
        while reader is not None:
            if (before := reader.seen.get(id(value))) is not None:
                return before[0]
            reader = reader.outer
        return None

    def _note(self, text: str) -> None:
        self._sum.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def _read_inside(self, value: Any) -> None:
        match value:
            case CodeType():
                self._note(f"{value.co_code.hex()} {value.co_varnames} {value.co_freevars}")
                self._read_all((value.co_names, value.co_consts))
            case list() | tuple():
                self._read_all(value)
            case dict():
                self._read_mapping(value)
            case set() | frozenset():
                self._read_all(sorted(self._digests_of(value)))
            case FunctionType() if self._is_own(value):
                self._read_function(value)
            case type() if self._is_own(value):
                self._read_class(value)
            case _ if isinstance(value, HOLDERS) or _wraps(value):
                self._read_all([getattr(value, name, None) for name in HELD])
        has_state = isinstance(value, SimpleNamespace | Namespace) or self._is_own(type(value))
        if has_state and not isinstance(value, NAMED):
            self._read_object(value)

    def _read_all(self, values: Iterable[Any]) -> None:
        values = list(values)
        if all(isinstance(value, PLAIN) for value in values):
            # In one step, for speed: data may be long lists of numbers.
            self._note(repr(values))
            return
        self._note(str(len(values)))
        for value in values:
            self.read(value)

    def _read_mapping(self, values: Mapping[Any, Any]) -> None:
        """Read the items of a mapping, regardless of their order."""
        by_digest = [*zip(self._digests_of(values), values.values(), strict=True)]
        by_digest.sort(key=itemgetter(0))
        self._read_all(part for pair in by_digest for part in pair)

    def _digests_of(self, values: Iterable[Any]) -> list[str]:
        """A digest of each value, independent of the other values and of their order."""
        found, count = [], 0
        for value in values:
            parts = value if isinstance(value, tuple) else (value,)
            if all(isinstance(part, PLAIN) for part in parts):
                found.append(repr(value))
                continue
            reader = _Reader(self._own, self)
            reader.read(value)
            found.append(reader.digest())
            count += reader.count - self.count
        self.count += count
        return found

    def _read_function(self, function: FunctionType) -> None:
        self._read_all((function.__code__, function.__defaults__, function.__kwdefaults__))
        self._read_all(_contents(cell) for cell in function.__closure__ or ())
        names = _globals(function.__code__) & function.__globals__.keys()
        self._read_mapping({name: function.__globals__[name] for name in names})

    def _read_class(self, read: type) -> None:
        self._read_all(read.__bases__)
        # Values of dunder names come from Python or a library, and may contain addresses.
        named = [(name, value, name.startswith("__")) for name, value in vars(read).items()]
        code = (FunctionType, *HOLDERS)
        self._read_mapping({n: v for n, v, odd in named if not odd or isinstance(v, code)})

    def _read_object(self, value: Any) -> None:
        """Read the class and the attributes of an object."""
        self.read(type(value))
        slots = {
            name: getattr(value, name)
            for base in type(value).__mro__
            for name in _slots(base)
            if not name.startswith("__") and hasattr(value, name)
        }
        self._read_mapping({**slots, **getattr(value, "__dict__", {})})

    def _name(self, value: Any) -> str:
        """The type of a value; for a value whose contents are not read, its own name."""
        if isinstance(value, ModuleType):
            return value.__name__
        named = value if isinstance(value, NAMED) and not self._is_own(value) else type(value)
        return f"{named.__module__}.{named.__qualname__}"

    def _is_own(self, named: Any) -> bool:
        """Whether a class or function belongs to the user's modules, not to a package."""
        name = str(getattr(named, "__module__", None))
        if name in self._own:
            return True
        if name.partition(".")[0] in sys.stdlib_module_names:
            return False
        file = getattr(sys.modules.get(name), "__file__", None) or ""
        return not {"site-packages", "dist-packages"} & {*Path(file).parts}


def _module(value: Any) -> str:
    """The module of a function, of the function in a `partial`, or of a class."""
    while isinstance(value, functools.partial):
        value = value.func
    return str(getattr(value, "__module__", None))


def _wraps(value: Any) -> bool:
    """Whether an object wraps a function, as a compiled function does."""
    return isinstance(getattr_static(value, "__wrapped__", None), FunctionType)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # Nothing has been assigned yet.
        return None


def _globals(code: CodeType) -> set[str]:
    """Global names that code reads, including the code of inner functions."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in GLOBAL}
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return names.union(*map(_globals, inner))


def _slots(base: type) -> Sequence[str]:
    slots = vars(base).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
