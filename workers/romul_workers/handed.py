"""A function that a Python program handed to workers of its own, by a file of this user's.

`romul.run` writes a folder with two files: the function, pickled, and a task module that loads it
from here. The workers that it starts are given that folder's path. Nothing of it goes through the
store or any network; a file that another user owns or may change is refused.
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
    """What is handed over.

    Attributes:
        functions: the task's `train` and `setup` (or None), and what they use of the program's
            `__main__`, by name; pickled.
        path: where the program finds its modules, for those that the functions import.
        sources: lines by file, of code that lies in none, such as a notebook's cells; tracebacks
            show them.
    """

    functions: bytes
    path: Sequence[str]
    sources: Mapping[str, Sequence[str]]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps the files of code, which cloudpickle leaves out: tracebacks name them.

    Attributes:
        files: those that it met.
        main: functions and classes of the program's `__main__` that it met, by name.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.files: set[str] = set()
        self.main: dict[str, Any] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce code as cloudpickle does, with its file."""
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
        folder: made if need be; only this user can read it.
        train: the task's function; closures, lambdas and functions of a notebook can be.
        setup: its `setup`, if it has one.

    Raises:
        TaskError: a function holds something that cannot go to another process; the message
            says what.
    """
    try:
        with _by_value(train), _by_value(setup), io.BytesIO() as pickled:
            pickler = _Pickler(pickled)
            # What the functions hold of `__main__` is known once they are pickled: it comes last.
            pickler.dump((train, setup, pickler.main))
            functions = pickled.getvalue()
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise TaskError(
            f"{_name(train)} cannot be handed to a worker's process: {error}. It holds something "
            "that belongs to this process (an open file, a lock, a connection): make that inside "
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
        file: what was written.
        digest: SHA-256 of it.

    Raises:
        TaskError: it is another user's, or was changed.
    """
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as given:
        found = os.fstat(given.fileno())
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise TaskError(
                f"{file}: another user owns it or may change it; it is not read: begin the run "
                "anew in a folder of your own"
            )
        body = given.read()
    if hashlib.sha256(body).hexdigest() != digest:
        raise TaskError(
            f"{file}: it is not what was written with its task module: the same call "
            "again writes both anew"
        )
    handed: Handed = pickle.loads(body)  # noqa: S301  (this user's own file, see above)
    sys.path += [place for place in handed.path if place not in sys.path]
    # A run that an older version began has none.
    for name, lines in getattr(handed, "sources", {}).items():
        linecache.cache[name] = (sum(map(len, lines)), None, [*lines], name)
    # A run that an older version began has two alone.
    train, setup, *main = pickle.loads(handed.functions)  # noqa: S301
    _stand_in_main(dict(*main))
    return train, setup


def _stand_in_main(names: Mapping[str, Any]) -> None:
    """Let `pickle`, which names what a program defined, find it in this process and its forks.

    The process's own code does not see the new `__main__`: it keeps its names.
    """
    if names:
        main = ModuleType("__main__")
        vars(main).update({**vars(sys.modules["__main__"]), **names})
        sys.modules["__main__"] = main


def _source(train: Callable[..., Any]) -> str:
    """The folder of a function's code; of a notebook, which has no file, where it runs."""
    try:
        file = Path(inspect.getsourcefile(train) or "")
    except TypeError:
        file = Path()
    return str((file.parent if file.is_file() else Path()).absolute())


@contextlib.contextmanager
def _by_value(function: Callable[..., Any] | None) -> Iterator[None]:
    """Take the code of a function along, if another process would not find its module."""
    name = getattr(function, "__module__", None) or "__main__"
    module = sys.modules.get(name)
    top = name.partition(".")[0]
    # What lives in __main__ goes by value anyway.
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
