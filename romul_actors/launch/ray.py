"""Workers as tasks on a running Ray cluster: Ray finds the GPUs and restarts lost workers.

If a node is preempted, only its worker is lost: Ray runs the task on another node as soon as there
is one. ROMUL must be installed on the nodes.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.launch import Fleet, LaunchError
from romul_actors.local.processes import die_with_parent

log = logging.getLogger("romul.launch")

CONNECT_S = 5.0
LOOK_S = 1.0
PAUSE_S = 5.0
"""Pause before a worker that ended by itself is restarted."""


def work(arguments: Sequence[str], environment: Mapping[str, str], grace_s: float) -> int:
    """The task on a node: run a worker until the task is cancelled.

    Returns:
        The worker's exit code.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "romul_actors.cli", "worker", *arguments],
        # CUDA_VISIBLE_DEVICES is Ray's, and stands in the task's own environment.
        env={**os.environ, **environment},
        preexec_fn=die_with_parent,  # noqa: PLW1509  (nothing else runs in the child yet)
        start_new_session=True,
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        # This is how Ray cancels a task.
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _check(address: str) -> None:
    """Check that something listens at the address, since Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise LaunchError(f"no Ray cluster at {address}: {error}") from None


def _hint() -> str:
    # Ray does not use its token for a given host, and then reports only that it failed.
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return ""
    return " (if it requires a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or its file)"


class RayWorkers:
    """Workers on a Ray cluster.

    Args:
        fleet: the workers.
        address: the cluster's address: auto, HOST:PORT or ray://HOST:PORT.

    Raises:
        LaunchError: Ray is not installed, or there is no cluster at that address.
    """

    def __init__(self, fleet: Fleet, address: str = "auto") -> None:
        try:
            import ray  # noqa: PLC0415
        except ImportError:
            raise LaunchError("ray is not installed: pip install 'romul[ray]'") from None
        self._ray: Any = ray
        _check(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            text = " ".join(str(error).split())
            raise LaunchError(f"no Ray cluster at {address}: {text}{_hint()}") from None
        self._fleet = fleet
        # A lost node is not a fault of the task, so there is no limit on retries.
        self._task = ray.remote(work).options(
            num_cpus=fleet.cpus,
            num_gpus=fleet.gpus,
            max_retries=-1,
            scheduling_strategy="SPREAD",
            name="romul-worker",
        )

    def _start(self) -> Any:
        fleet = self._fleet
        return self._task.remote(
            list(fleet.arguments), dict(fleet.environment), fleet.grace_s + PAUSE_S
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the workers running until `stop` is set, then end them in order."""
        running = [self._start() for _ in range(self._fleet.workers)]
        log.info("%d workers requested from Ray", len(running))
        try:
            while not stop.is_set():
                ended, running = await asyncio.to_thread(self._wait, running)
                for task in ended:
                    log.warning(
                        "a worker ended (%s); restart in %g s", self._how_it_ended(task), PAUSE_S
                    )
                if ended:
                    await asyncio.sleep(PAUSE_S)
                    running += [self._start() for _ in ended]
        finally:
            await asyncio.shield(asyncio.to_thread(self._end, running))

    def _wait(self, running: list[Any]) -> tuple[list[Any], list[Any]]:
        ended, others = self._ray.wait(running, num_returns=len(running), timeout=LOOK_S)
        return list(ended), list(others)

    def _how_it_ended(self, task: Any) -> str:
        """How a task ended."""
        try:
            return f"exit code {self._ray.get(task)}"
        except self._ray.exceptions.RayError as error:
            # The first line of the task's own error only names the task. If the node lacks a
            # module, the last line names it.
            if (cause := getattr(error, "cause", None)) is not None:
                last = str(cause).rstrip().rpartition("\n")[2]
                return f"{type(cause).__name__}: {last}"
            return str(error).partition("\n")[0]

    def _end(self, running: list[Any]) -> None:
        for task in running:
            # This includes tasks that wait for a machine.
            self._ray.cancel(task, force=False)
        self._ray.wait(running, num_returns=len(running), timeout=self._fleet.grace_s + 2 * PAUSE_S)
        self._ray.shutdown()
