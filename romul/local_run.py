"""The folder of a local run: which search it holds, and whether a call may go on with it."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from romul_actors.errors import ExperimentExistsError, UnknownExperimentError
from romul_actors.local.redis_server import check_idle
from romul_actors.protocol.experiment import Experiment

CALL, RUN = "call.json", "run.json"
PLAIN = (int, float, str, bool, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Task:
    """What trains, and where workers find it.

    Attributes:
        name: "module" or "module:function".
        paths: folders of modules.
        fingerprint: differs where the code does.
    """

    name: str
    paths: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A local run's folder.

    Attributes:
        folder: the folder.
        experiment: the declaration, with its place for checkpoints.
        task: what trains.
        workers: how many.
    """

    folder: Path
    experiment: Experiment
    task: Task
    workers: int

    def begin(self, *, resume: bool, fresh: bool) -> None:
        """Make the folder ready for this call.

        Raises:
            ExperimentExistsError: it holds another search; the message says what to do.
            UnknownExperimentError: `resume`, and there is nothing to go on with.
            StoreError: a run is under way there.
        """
        name = self.experiment.name
        if resume and fresh:
            raise ExperimentExistsError("resume=True goes on and fresh=True begins anew: give one")
        exists = (self.folder / RUN).exists()
        if resume and not exists:
            raise UnknownExperimentError(f"{self.folder}: no run there to go on with")
        if exists:
            check_idle(self.folder)
            if fresh:
                shutil.rmtree(self.folder)
            else:
                self._check_same(name, resume=resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def _check_same(self, name: str, *, resume: bool) -> None:
        """Make sure that the folder holds this very search."""
        beginning = "another name, or fresh=True to remove that run and begin anew"
        try:
            before = json.loads((self.folder / CALL).read_text())
        except FileNotFoundError:
            raise ExperimentExistsError(
                f"{self.folder} holds a run of `romul run`, which --resume goes on with; here "
                f"choose {beginning}"
            ) from None
        ours = _comparable(self.experiment.model_dump(mode="json"))
        theirs = _comparable(before["experiment"])
        other = [
            f"{key} was {theirs.get(key)!r}, and is {ours.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        if [*ours] == [*theirs] and len(other) == 1 and ours["steps"] > theirs["steps"]:
            raise ExperimentExistsError(
                f"{self.folder} holds the same search of {theirs['steps']} steps: "
                f"romul.extend({name!r}, steps={ours['steps']}) goes on with it; or choose "
                f"{beginning}"
            )
        if other:
            raise ExperimentExistsError(
                f"{self.folder} holds another search of that name ({'; '.join(other)}): choose "
                f"{beginning}"
            )
        if before["fingerprint"] != self.task.fingerprint and not resume:
            raise ExperimentExistsError(
                f"{self.folder} holds the same search with another function: resume=True goes on "
                f"with {name!r} and the new function; or choose {beginning}"
            )

    def _write(self) -> None:
        module = self.experiment.module
        call = {
            "experiment": self.experiment.model_dump(mode="json"),
            "fingerprint": self.task.fingerprint,
        }
        (self.folder / CALL).write_text(json.dumps(call, indent=1) + "\n")
        # So that `romul run --resume` goes on with it too.
        run = {
            "experiments": [self.experiment.name],
            "workers": self.workers,
            "allow": [module],
            "paths": list(self.task.paths),
        }
        (self.folder / RUN).write_text(json.dumps(run, indent=1) + "\n")


def note_steps(folder: Path, steps: int) -> None:
    """Write down that a run was extended: the call that goes on with it has so many steps."""
    file = folder / CALL
    if file.exists():
        call = json.loads(file.read_text())
        call["experiment"]["steps"] = steps
        file.write_text(json.dumps(call, indent=1) + "\n")


def _comparable(declaration: Mapping[str, Any]) -> Mapping[str, Any]:
    """A declaration without what follows from where the folder lies."""
    return {key: value for key, value in declaration.items() if key != "checkpoints"}


def fingerprint(train: Callable[..., Any], setup: Callable[..., Any] | None) -> str:
    """A text that differs where the code of the functions does, not where they stand in a file.

    Functions and plain constants of the same module that they use are looked at too; what they
    import is not.
    """
    digest = sha256()
    for function in (train, setup):
        for part in _parts(function, set()):
            digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, PLAIN):
        yield repr(value)
    function = value if isinstance(value, FunctionType) else getattr(value, "func", None)
    if not isinstance(function, FunctionType):
        yield str(getattr(value, "__qualname__", type(value)))
        return
    if id(function) in seen:
        return
    seen.add(id(function))
    names: set[str] = set()
    yield from _code(function.__code__, names)
    for name in sorted(names):
        used = function.__globals__.get(name)
        ours = isinstance(used, FunctionType) and used.__module__ == function.__module__
        if ours or isinstance(used, PLAIN):
            yield from _parts(used, seen)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    for default in function.__defaults__ or ():
        yield from _parts(default, seen)


def _code(code: CodeType, names: set[str]) -> Iterator[str]:
    names.update(code.co_names)
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant, names)
        else:
            yield repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
