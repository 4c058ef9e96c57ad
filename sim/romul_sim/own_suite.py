"""A suite as `romul bench` is given it: whether it can be played, before hours of work.

A user's module is run here, so that whatever it raises is an error in words.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import from_values
from romul_sim.bench import SUITE, BenchJob, key, suite

_PARTS = ("SUITE", "DEVELOP", "REPORT")
_FIELDS = ("space", "steps", "step", "test", "identity")


def halves(module: str) -> dict[str, list[str]]:
    """Names of the problems by half, and of both; the module is imported.

    One that is installed nowhere may lie in the current folder, whose other modules are found then,
    too, after all that is installed.

    Args:
        module: of the suite.

    Raises:
        ExperimentError: it cannot be imported, or lacks something.
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
    """Make problems, and see whether each has all that a run needs.

    Args:
        module: of the suite, imported.
        problems: names.

    Raises:
        ExperimentError: one cannot be made, lacks something, or declares a space that is none.
    """
    for name in problems:
        where = f"problem {name!r} of {module}"
        try:
            problem = suite(module)[name]
        except Exception as error:
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
            raise ExperimentError(f"{where} can be given no key: {_described(error)}") from error


def _described(error: BaseException) -> str:
    """Where and what, in one line."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError | SyntaxError):
        # Their messages say where.
        return what
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}: {what}" if frames else what
