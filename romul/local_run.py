"""The folder of a local run: which search it holds, and whether a call may continue it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romul.fingerprint import FORMAT
from romul_actors.errors import ExperimentError, ExperimentExistsError
from romul_actors.local.redis_server import check_idle, has_data
from romul_actors.local.run_file import RunFile, check_run, holds_run, make_folder, write_json
from romul_actors.protocol.differences import Changes, differences
from romul_actors.protocol.experiment import Experiment, from_json

CALL = "call.json"


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a run, and where workers find it.

    Attributes:
        name: "module" or "module:function".
        paths: folders to search for the module.
        fingerprint: changes when the code changes.
    """

    name: str
    paths: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A local run's folder.

    Attributes:
        folder: path of the folder.
        experiment: declaration of the search; its `checkpoints` is set.
        task: the task.
        workers: number of worker processes.
        gpus: number of GPUs that each worker has for itself; 0: all share those that they see.
    """

    folder: Path
    experiment: Experiment
    task: Task
    workers: int
    gpus: int = 0

    def begin(self, *, resume: bool, fresh: bool) -> Changes:
        """Prepare the folder for this call.

        With `fresh`, the previous run is moved aside. `put_back` restores it; `write` removes it.

        Args:
            resume: continue the search in the folder, with the changes of this call.
            fresh: replace the run in the folder with a new one.

        Returns:
            The changes to apply to the search. Call `write` once they have been applied.

        Raises:
            ExperimentError: `fresh` is true, but `from_run` names the run that it would replace.
            ExperimentExistsError: the folder holds another search; the message says what to do.
            UnknownExperimentError: `resume` is true, but the folder holds no search.
            StoreError: the run in the folder is still running, or the folder cannot be created.
        """
        name = self.experiment.name
        if resume and fresh:
            raise ExperimentExistsError(
                "resume=True continues a search and fresh=True starts a new one: give only one"
            )
        origin = self.experiment.from_run
        if fresh and origin is not None and origin.name == name:
            raise ExperimentError(
                f"from_run={name!r}: fresh=True would remove the run that the new one begins from: "
                "give the new run another name"
            )
        check_idle(self.folder)
        # A call that was killed before its run had begun did not restore the previous one.
        self.put_back()
        exists, changes = holds_run(self.folder), Changes()
        if resume:
            check_run(self.folder, end=" to continue")
        if exists and fresh:
            self._set_aside()
        elif exists:
            changes = self._compared(name, resume=resume)
        make_folder(self.folder)
        if not changes:
            self._note()
        return changes

    @property
    def _former(self) -> Path:
        """Where the run that this one replaces is moved to; no run can have this name."""
        return self.folder.with_name(f".{self.folder.name}.former")

    def _set_aside(self) -> None:
        """Make room for a new run. The previous one stays complete until the new one has begun."""
        if not has_data(self.folder) and not (self.folder / CALL).exists():
            name = self.experiment.name
            raise ExperimentExistsError(
                f"{self.folder} holds a run that `romul run --redis` began, and its search may "
                "still be running on that server: choose another name, or stop the search with "
                f"`romul stop {name} --redis URL` and remove the folder"
            )
        shutil.rmtree(self._former, ignore_errors=True)
        self.folder.rename(self._former)

    def put_back(self) -> None:
        """Restore the run that `begin` has moved aside, unless the new run has begun."""
        if not holds_run(self._former):
            return
        # Moved first, removed last: files that cannot be removed do not block the name.
        unbegun = self.folder.with_name(f".{self.folder.name}.unbegun")
        shutil.rmtree(unbegun, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(unbegun)
        self._former.rename(self.folder)
        shutil.rmtree(unbegun, ignore_errors=True)

    def _compared(self, name: str, *, resume: bool) -> Changes:
        """Check that the folder holds the same search, or with `resume` one that can become it."""
        beginning = "another name, or fresh=True to replace that run with a new one"
        try:
            before = json.loads((self.folder / CALL).read_text())
        except FileNotFoundError:
            raise ExperimentExistsError(
                f"{self.folder} holds a run of `romul run`, which this call cannot continue (use "
                f"`romul run --resume {name}`): choose {beginning}"
            ) from None
        steps = _steps(before)
        # `extend` does not change the declaration: the original call still continues the search.
        now = self.experiment.steps if self.experiment.steps in steps else steps[-1]
        # Read, because an older version did not store the keys that are new since.
        declared = from_json(json.dumps({**before["experiment"], "steps": now}))
        ours, theirs = _comparable(self.experiment), _comparable(declared)
        other = [
            f"{key} was {theirs.get(key)!r}, and is {ours.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        changes = Changes()
        if other:
            changes = self._changes(declared, other, beginning, resume=resume)
        # The function of a run that an older version began cannot be compared.
        known = before.get("fingerprint_format") == FORMAT
        if known and before["fingerprint"] != self.task.fingerprint and not resume:
            raise ExperimentExistsError(
                f"{self.folder} holds the same search with another function: use resume=True to "
                f"continue {name!r} with the new function, or choose {beginning}"
            )
        return changes

    def _changes(
        self,
        before: Experiment,
        other: Sequence[str],
        beginning: str,
        *,
        resume: bool,
    ) -> Changes:
        """The changes to apply to the search in the folder.

        Args:
            before: the stored declaration.
            other: descriptions of the keys that differ, for messages.
            beginning: how to start another search, for messages.
            resume: whether the user wants to apply the changes.

        Raises:
            ExperimentExistsError: `resume` is false, or the changes would make it another search.
        """
        try:
            changes = differences(before, self.experiment)
        except ExperimentError as error:
            why = str(error) if "space:" in str(error) else ""
            # `why` already describes the difference of the spaces; printing both would hide it.
            rest = [text for text in other if not (why and text.startswith("space was "))]
            message = f"{self.folder} holds another search of the same name"
            message += f" ({'; '.join(rest)})" if rest else ""
            raise ExperimentExistsError(f"{message}: choose {beginning}\n{why}".rstrip()) from None
        if not changes and not changes.kept:
            # For example, a constant of the optimizer that has its default value.
            return changes
        message = f"{self.folder} holds this search with another declaration ({'; '.join(other)})"
        if changes.kept:
            raise ExperimentExistsError(
                f"{message}: {', '.join(changes.kept)} cannot be changed: keep the old value, or "
                f"choose {beginning}"
            )
        if not resume:
            raise ExperimentExistsError(
                f"{message}: use resume=True to continue with the new one, or choose {beginning}"
            )
        return changes

    def write(self) -> None:
        """Save the declaration for the next call, and remove the run that this one replaces."""
        self._note()
        # The file that makes it a run goes first: if the rest is interrupted, `put_back` does not
        # restore an incomplete run.
        RunFile.remove(self._former)
        shutil.rmtree(self._former, ignore_errors=True)

    def _note(self) -> None:
        file, steps = self.folder / CALL, [self.experiment.steps]
        if file.exists() and steps[0] in (before := _steps(json.loads(file.read_text()))):
            steps = before
        declared = self.experiment.model_dump(mode="json")
        call = {
            "experiment": declared,
            "fingerprint": self.task.fingerprint,
            "fingerprint_format": FORMAT,
            "steps": steps,
        }
        write_json(file, call)
        # So that `romul run --resume` can continue it too.
        RunFile(
            [self.experiment.name],
            self.workers,
            [self.experiment.module],
            list(self.task.paths),
            declared=declared,
            gpus=self.gpus,
        ).write(self.folder)


def note_steps(folder: Path, steps: int) -> None:
    """Record that a run was extended, so that a call with this number of steps continues it."""
    file = folder / CALL
    if file.exists():
        call = json.loads(file.read_text())
        call["steps"] = [*_steps(call), steps]
        write_json(file, call)


def _steps(call: Mapping[str, Any]) -> list[int]:
    """Values of `steps` with which a call continues the search: the declared and extended ones."""
    return list(call.get("steps", [call["experiment"]["steps"]]))


def _comparable(declared: Experiment) -> Mapping[str, Any]:
    """A declaration without the keys that depend on the location of the folder."""
    return declared.model_dump(mode="json", exclude={"checkpoints"})
