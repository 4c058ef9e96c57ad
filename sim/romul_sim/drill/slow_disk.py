"""`python -m romul_sim.drill.slow_disk worker`: `romul worker` on a slow disk.

Each flush of this process is delayed, so that faults strike while a checkpoint is being stored. The
task's own process is not affected.
"""

import os
import runpy
import time

FLUSH_S = 0.25

_flush = os.fsync


def _flush_slowly(handle: int) -> None:
    time.sleep(FLUSH_S)
    _flush(handle)


if __name__ == "__main__":
    os.fsync = _flush_slowly  # type: ignore[assignment]
    runpy.run_module("romul_actors.cli", run_name="__main__")
