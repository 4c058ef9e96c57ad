"""Checks a suite given to `romul bench` before hours of work.

The suite is a user's module, so any exception that it raises becomes an ExperimentError.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import from_values
from romul_sim.bench.runs import SUITE, BenchJob, key, suite

_PARTS = ("SUITE", "DEVELOP", "REPORT")
_FIELDS = ("space", "steps", "step", "test", "identity")


def halves(module: str) -> dict[str, list[str]]:
    """Import a suite, and return the names of its problems: "develop", "report" and "all".

    The module may also be in the current folder, which is searched after the installed packages.

    Args:
        module: name of the suite's module.

    Raises:
        ExperimentError: the module cannot be imported, or lacks a required name.
    """
    if module != SUITE and not {"", str(Path.cwd())} & {*sys.path}:
        sys.path.append(str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ExperimentError(
            f"suite {module!r} cannot be imported: {_described(error)}"
        ) from error
    missing = [part for part in _PARTS if not hasattr(found, part)]
    if missing:
        raise ExperimentError(
            f"suite {module!r} has no {missing[0]}: it needs SUITE (problems by name), DEVELOP and "
            "REPORT (names of problems; none: empty)"
        )
    try:
        develop, report = list(found.DEVELOP), list(found.REPORT)
        unknown = [name for name in develop + report if name not in found.SUITE]
    except TypeError as error:
        raise ExperimentError(
            f"suite {module!r}: SUITE must be problems by name, DEVELOP and REPORT names: {error}"
        ) from error
    if unknown:
        raise ExperimentError(
            f"suite {module!r}: SUITE has no problem {unknown[0]!r}, which DEVELOP or REPORT names"
        )
    return {"develop": develop, "report": report, "all": develop + report}


def check(module: str, problems: Sequence[str]) -> None:
    """Make problems, and check that each has everything that a run needs.

    Args:
        module: name of the suite's module, which must be imported.
        problems: names of the problems.

    Raises:
        ExperimentError: a problem cannot be made, lacks an attribute, or has an invalid space.
    """
    for name in problems:
        where = f"problem {name!r} of {module}"
        try:
            problem = suite(module)[name]
        except (Exception, SystemExit) as error:
            raise ExperimentError(f"{where} cannot be made: {_described(error)}") from error
        missing = [field for field in _FIELDS if not hasattr(problem, field)]
        if missing:
            raise ExperimentError(
                f"{where} has no {missing[0]}: see romul_sim.suite.problem.Problem"
            )
        declared = {"name": "bench", "task": "bench"}
        from_values({**declared, "steps": problem.steps, "space": problem.space}, where)
        try:
            key(BenchJob(name, "random", 4, problem.steps, 0, suite=module))
        except (Exception, SystemExit) as error:
            raise ExperimentError(f"{where}: no key can be made: {_described(error)}") from error


def _described(error: BaseException) -> str:
    """An error in one line, with the file and line that raised it."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError | SyntaxError):
        # Their messages name the place already.
        return what
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}: {what}" if frames else what
