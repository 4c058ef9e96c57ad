"""Imports a task's module and finds its function, in the child process.

The first line of an error message says what is wrong and what to do; a traceback may follow.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from romul_actors import plugins
from romul_actors.core.events import MAX_TEXT
from romul_actors.errors import RomulError

MAX_TRACEBACK = 6_000
"""Longest traceback in a message, in characters; the end of a longer one is kept."""
MOST_FOLDERS = 3
"""Most searched folders that a message names."""
_PACKAGE = Path(__file__).parents[1]
_SHIPPED_TASKS = _PACKAGE / "tasks"


class TaskImportError(RomulError):
    """The task cannot be imported, or has no such function."""


def find_task(name: str, function: str) -> tuple[ModuleType, Callable[[Any], object]]:
    """Import a module, and find the task's function in it.

    Raises:
        TaskImportError: there is no such module, importing it fails, or it has no such function.
            The first line of the message says which, where, and what to do.
    """
    module = import_task(name)
    train = getattr(module, function, None)
    if not callable(train):
        raise TaskImportError(_no_function(module, name, function))
    return module, train


def import_task(name: str) -> ModuleType:
    """Import a task's module.

    Raises:
        TaskImportError: there is no such module, or importing it fails. The first line of the
            message says which, where, and what to do.
    """
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise TaskImportError(_no_module(error.name)) from None
        raise TaskImportError(described(error)) from None
    except Exception as error:  # noqa: BLE001  (whatever the task's own code raises)
        raise TaskImportError(described(error)) from None


def _import(name: str) -> ModuleType:
    """Import a module; if there is none of that name, look for a plugin of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        added: ModuleType | None = plugins.find("tasks", name)
        if added is None:
            raise
        return added


def described(error: BaseException) -> str:
    """An error as text: file, line and message in the first line, then the traceback."""
    trace = _from_the_task_on(error)
    own = [f for f in traceback.extract_tb(trace) if not _is_machinery(f.filename)]
    file, line = (own[-1].filename, own[-1].lineno) if own else ("", None)
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
        what = f"{type(error).__name__}: {error.msg}"
        if error.text and error.text.strip():
            what += f": {error.text.strip()}"
    text = _formatted(error, trace)[-MAX_TRACEBACK:]
    first = hiding(sys.path, text) or (f"{file}:{line}: {what}" if file else what)
    return f"{first[: MAX_TEXT - MAX_TRACEBACK - 2]}\n\n{text}"


def task_traceback(error: BaseException) -> str:
    """The traceback from the task's first frame on; all of it, if no frame is the task's."""
    return _formatted(error, _from_the_task_on(error) or error.__traceback__)


def _formatted(error: BaseException, trace: TracebackType | None) -> str:
    return "".join(traceback.format_exception(type(error), error, trace)).strip()


def _from_the_task_on(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_machinery(file: str) -> bool:
    """Whether a frame belongs to the code that imports and calls the task."""
    path = Path(file)
    own = path.is_relative_to(_PACKAGE) and not path.is_relative_to(_SHIPPED_TASKS)
    return "importlib" in file or own


def hiding(folders: Iterable[str], text: str) -> str:
    """A message if a file in a searched folder hides a standard module that the error is about.

    Args:
        folders: where Python searches for modules.
        text: the traceback.

    Returns:
        The message; "" if there is no such file.
    """
    standard = str(Path(os.__file__).parent)
    for folder in dict.fromkeys(folders):
        if not folder or folder == standard:
            continue
        for file in sorted(Path(folder).glob("*.py")):
            named = f"module '{file.stem}'" in text or f"from '{file.stem}'" in text
            if named and file.stem in sys.stdlib_module_names:
                return f"{file} hides Python's own module {file.stem!r}: give the file another name"
    return ""


def _no_module(name: str) -> str:
    outer, _, last = name.rpartition(".")
    folders = [folder for folder in sys.path if folder and Path(folder).is_dir()]
    if outer:
        hint = f"; a function of it is {outer}:{last}"
        return f"No module named {name!r}: {outer} has none of that name{hint}"
    for here in (Path.cwd() / f"{last}.py", Path.cwd() / last / "__init__.py"):
        if here.exists():
            only = "its folder is searched only if it is named (`--path`)"
            return f"No module named {name!r}: there is {here}, but {only}"
    there = {file.stem for folder in folders for file in Path(folder).glob("*.py")}
    near = get_close_matches(last, sorted(there), n=1)
    if near:
        return f"No module named {name!r}: did you mean {near[0]!r}?"
    installed = (sys.prefix, sys.base_prefix)
    theirs = [f for f in folders if not any(Path(f).is_relative_to(place) for place in installed)]
    own = theirs or ["the packages"]
    hint = "`romul run` looks beside the experiment's file, other commands have --path"
    return f"No module named {name!r}: it is not in {', '.join(own[:MOST_FOLDERS])}; {hint}"


def _no_function(module: ModuleType, name: str, function: str) -> str:
    there = getattr(module, function, None)
    if there is not None:
        return f"{name}: {function} is of type {type(there).__name__}, and not a function"
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
        if not key.startswith("_")
    ]
    near = get_close_matches(function, own, n=1) or own[:1]
    file = getattr(module, "__file__", None)
    where = f" ({file})" if file else ""
    hint = (
        f': is it {near[0]!r}? Then write task = "{name}:{near[0]}"'
        if near
        else f": write def {function}(trial) there"
    )
    return f"{name} has no function {function!r}{where}{hint}"[:MAX_TEXT]
