"""Workers as a Slurm job array: requeued if a node is lost, and before their time is up."""

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from romul_actors.launch import Fleet, FleetError, LaunchError

log = logging.getLogger("romul.launch")

KILL_WAIT_S = 30
"""Seconds from Slurm's SIGTERM to its SIGKILL, unless its KillWait says otherwise."""
MARGIN_S = 30
"""Slurm announces the end of the time this many seconds before the workers' grace period."""

_SCRIPT = """\
#!/bin/bash
# Workers of ROMUL: a job array. A job goes back to the queue if its node is preempted or its time
# is nearly up. Passwords come from the environment of sbatch.
#SBATCH --job-name=romul-worker
#SBATCH --array=1-{workers}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{more}#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=romul-worker-%A_%a.log
#SBATCH --export=ALL
#SBATCH --signal=B:USR1@{signal_s}

# If the node is preempted, Slurm signals the worker itself. If the time is nearly up, it signals
# this script, since srun would end the worker at once.
again=
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1
trap : TERM INT
srun --ntasks=1 {command} &
step=$!
# A signal ends a wait before the worker has ended.
while kill -0 "$step" 2>/dev/null; do
  wait "$step"
  status=$?
done
[ -z "$again" ] || exec scontrol requeue "$SLURM_JOB_ID"
exit "$status"
"""


def script(
    fleet: Fleet, *, time: str | None = None, options: Sequence[str] = (), program: str = "romul"
) -> str:
    """Write the batch script.

    Args:
        fleet: the workers.
        time: time limit of a job in Slurm's format (2:00:00); None for the partition's own.
        options: additional options for sbatch, such as --partition=spot.
        program: the command on the nodes.

    Raises:
        FleetError: an option or the time is invalid.
    """
    if fleet.grace_s > KILL_WAIT_S:
        log.warning(
            "--grace is %g s, but scancel kills a worker after Slurm's KillWait, %d s by default: "
            "see `scontrol show config`",
            fleet.grace_s,
            KILL_WAIT_S,
        )
    more = [*options]
    if fleet.gpus:
        more.append(f"--gpus-per-task={fleet.gpus}")
    if time is not None:
        more.append(f"--time={time}")
    for option in more:
        # A line break would start a new line of the script.
        if not option.startswith("--") or not option.isprintable():
            raise FleetError(f"{option!r} is not an option for sbatch: give --NAME=VALUE")
    return _SCRIPT.format(
        workers=fleet.workers,
        cpus=fleet.cpus,
        more="".join(f"#SBATCH {option}\n" for option in more),
        signal_s=int(fleet.grace_s) + MARGIN_S,
        command=shlex.join([*shlex.split(program), "worker", *fleet.arguments]),
    )


def submit(text: str, fleet: Fleet) -> str:
    """Submit a script to Slurm.

    Returns:
        The job's number.

    Raises:
        LaunchError: sbatch is not installed, or it refuses the script.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise LaunchError("no sbatch on the PATH: run this where jobs are submitted")
    done = subprocess.run(  # noqa: S603
        [program, "--parsable"],
        input=text,
        env={**os.environ, **fleet.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LaunchError(f"sbatch: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]
