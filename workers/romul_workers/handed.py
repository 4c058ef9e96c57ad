"""Hands a function from a Python program to the workers that it starts, in a file.

`romul.run` writes a folder with two files: the pickled function, and a task module that loads it
with `read`. The workers get the folder's path. Nothing goes through the store or a network. A file
that another user owns, or may read or change, is refused.

The files name this module, and those of older versions are read. So its name must not change.
"""

import contextlib
import hashlib
import inspect
import io
import linecache
import os
import pickle
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from romul_actors.errors import TaskError

MODULE = "romul_handed"
"""The task module in the folder."""
PICKLE = "functions.pickle"

_SOURCE = '''"""The functions that romul.run was given, as a task; written by it."""

from pathlib import Path

from romul_workers.handed import read

train, setup = read(Path(__file__).with_name({file!r}), {digest!r})
FOLDER = {source!r}
'''


@dataclass(frozen=True, slots=True)
class Handed:
    """The content of the pickle file.

    Attributes:
        functions: a pickle of the task's `train`, its `setup` (or None), and the functions and
            classes of the program's `__main__` that these use, by name.
        path: the program's `sys.path`, for the modules that the functions import.
        sources: source lines of code without a file, such as a notebook's cells, by the name in
            tracebacks.
    """

    functions: bytes
    path: Sequence[str]
    sources: Mapping[str, Sequence[str]]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps the file names of code, which cloudpickle drops, so that tracebacks name them.

    Attributes:
        files: the file names of the code that was pickled.
        main: the functions and classes of `__main__` that were pickled, by name.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.files: set[str] = set()
        self.main: dict[str, Any] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce an object as cloudpickle does; code objects keep their file name."""
        if isinstance(obj, FunctionType | type) and obj.__module__ == "__main__":
            name = obj.__qualname__
            if getattr(sys.modules["__main__"], name, None) is obj:
                self.main[name] = obj
        if not isinstance(obj, CodeType):
            return super().reducer_override(obj)
        self.files.add(obj.co_filename)
        made, parts = self.dispatch_table[CodeType](obj)
        return _in_file, (obj.co_filename, made, parts)


def _in_file(file: str, made: Callable[..., CodeType], parts: Sequence[Any]) -> CodeType:
    return made(*parts).replace(co_filename=file)


def write(folder: Path, train: Callable[..., Any], setup: Callable[..., Any] | None) -> None:
    """Write functions into a folder as a task module.

    Args:
        folder: where to write; created if it does not exist. Only this user can read it.
        train: the task's function; it may be a closure, a lambda or a function of a notebook.
        setup: the task's `setup`, if it has one.

    Raises:
        TaskError: a function holds something that cannot be sent to another process; the message
            says what.
    """
    try:
        with _by_value(train), _by_value(setup), io.BytesIO() as pickled:
            pickler = _Pickler(pickled)
            # Last: `pickler.main` is complete only after the functions are pickled.
            pickler.dump((train, setup, pickler.main))
            functions = pickled.getvalue()
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise TaskError(
            f"{_name(train)} cannot be sent to a worker's process: {error}. It holds something "
            "that belongs to this process (an open file, a lock, a connection): create that inside "
            "the function, or in `setup`"
        ) from error
    path = [str(Path(place).absolute()) for place in sys.path]
    sources = {file: linecache.getlines(file) for file in pickler.files if not Path(file).exists()}
    body = pickle.dumps(Handed(functions, path, sources))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / PICKLE
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(body)
    digest = hashlib.sha256(body).hexdigest()
    (folder / f"{MODULE}.py").write_text(
        _SOURCE.format(file=PICKLE, digest=digest, source=_source(train))
    )


def read(file: Path, digest: str) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """The functions `train` and `setup` that `write` put into a file.

    Args:
        file: the pickle file.
        digest: its SHA-256, hexadecimal.

    Raises:
        TaskError: another user owns the file or has access to it, or its content has changed.
    """
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as given:
        found = os.fstat(given.fileno())
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise TaskError(
                f"{file}: not read, because another user owns it or may read or change it: start "
                "the run again in a folder of your own"
            )
        body = given.read()
    if hashlib.sha256(body).hexdigest() != digest:
        raise TaskError(
            f"{file}: it has changed since its task module was written: make the same call again "
            "to write both files"
        )
    handed: Handed = pickle.loads(body)  # noqa: S301  (this user's own file, see above)
    sys.path += [place for place in handed.path if place not in sys.path]
    # Older versions did not write `sources`.
    for name, lines in getattr(handed, "sources", {}).items():
        linecache.cache[name] = (sum(map(len, lines)), None, [*lines], name)
    # Older versions wrote only two items.
    train, setup, *main = pickle.loads(handed.functions)  # noqa: S301
    _stand_in_main(dict(*main))
    return train, setup


def _stand_in_main(names: Mapping[str, Any]) -> None:
    """Put the program's functions and classes into `__main__`, where `pickle` looks for them.

    The new `__main__` module is seen by this process and its forks. Code that runs already keeps
    the old one.
    """
    if names:
        main = ModuleType("__main__")
        vars(main).update({**vars(sys.modules["__main__"]), **names})
        sys.modules["__main__"] = main


def _source(train: Callable[..., Any]) -> str:
    """The folder of a function's source file; the current folder if it has none."""
    try:
        file = Path(inspect.getsourcefile(train) or "")
    except TypeError:
        file = Path()
    return str((file.parent if file.is_file() else Path()).absolute())


@contextlib.contextmanager
def _by_value(function: Callable[..., Any] | None) -> Iterator[None]:
    """Pickle a function's code, and not its name, if other processes cannot import its module."""
    name = getattr(function, "__module__", None) or "__main__"
    module = sys.modules.get(name)
    top = name.partition(".")[0]
    # cloudpickle always pickles functions of __main__ by value.
    if module is None or top == "__main__" or PathFinder.find_spec(top) is not None:
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))
