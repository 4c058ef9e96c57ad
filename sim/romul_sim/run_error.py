"""The error of a run of the bench or the laboratory: it names the run that a user's code ended."""

import traceback
from pathlib import Path
from typing import Self

from romul_actors.errors import RomulError


class RunError(RomulError):
    """A run raised an exception; the message names problem, optimizer and seed."""

    @classmethod
    def of(cls, problem: str, optimizer: str, seed: int, error: Exception | SystemExit) -> Self:
        """The error of a run.

        The message includes the traceback from the first frame outside this package on, except for
        ROMUL's own errors, whose message is sufficient.
        """
        run = f"problem {problem!r} with {optimizer}, seed {seed}"
        if isinstance(error, RomulError):
            return cls(f"{run}: {error}")
        trace, here = error.__traceback__, Path(__file__).parent
        own = (here, here / "bench")
        while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent in own:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace)).strip()
        return cls(f"{run}: {type(error).__name__}: {error}\n\n{text}")
