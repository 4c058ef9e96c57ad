"""Exit codes that scripts can rely on."""

from romul_actors.errors import (
    ExperimentExistsError,
    RomulError,
    StoreError,
    UnknownExperimentError,
    UnknownTrialError,
    UnknownWorkerError,
)

EXPERIMENT_FAILED = 1
DECLARATION = 2
STORE = 3
UNKNOWN = 4
EXISTS = 5
INTERRUPTED = 130

HELP = (
    "Exit codes: 0 success; 1 the experiment failed; 2 wrong usage, declaration or path; "
    "3 the server cannot be used; 4 no such experiment, slot, trial or worker; "
    "5 it already exists; 130 interrupted."
)

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownExperimentError, UNKNOWN),
    (UnknownTrialError, UNKNOWN),
    (UnknownWorkerError, UNKNOWN),
    (ExperimentExistsError, EXISTS),
    (StoreError, STORE),
    (ValueError, DECLARATION),
)


def exit_code(error: RomulError) -> int:
    """Exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), EXPERIMENT_FAILED)
