"""The command line from an interpreter that has imported it already.

Python needs two thirds of a second to import the command line, and the tests start it some hundred
times. Here a server process imports it once and forks for each command: still a process of its
own, with its own arguments, environment, output, signals and exit code. What is about the start
itself (hash seeds, module folders, a user's own `romul run`) is run by `COLD`.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from romul_actors.cli import main
from romul_actors.cli.commands import COMMANDS, module_of

COLD = [sys.executable, "-m", "romul_actors.cli"]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [__name__, "romul_actors.cli.app"]
    + [
        f"romul_actors.cli.commands.{module_of(name)}"
        for commands in COMMANDS.values()
        for name in commands
    ]
)


def _main(arguments, environment, out, err, folder, ready):
    """In the new process: be the command."""
    os.setsid()
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["romul", *arguments]
    ready.close()
    main()


class Command:
    """One command as a process, with the interface of `subprocess.Popen`.

    Args:
        arguments: of `romul`.
        environment: all of it.
        out, err: files for what it prints.
        folder: where it runs.
    """

    def __init__(self, arguments, environment, out, err, folder=""):
        self.args = list(arguments)
        self.log, self.errors = Path(out), Path(err)
        ready, theirs = _CONTEXT.Pipe(duplex=False)
        folder = folder or Path.cwd()
        given = (self.args, dict(environment), str(out), str(err), str(folder), theirs)
        self._process = _CONTEXT.Process(target=_main, args=given)
        self._process.start()
        self.pid = self._process.pid
        theirs.close()
        # From here on it has its own process group, so that the group can be ended as a whole.
        with ready, contextlib.suppress(EOFError):
            ready.recv_bytes()

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def call(arguments, environment, seconds=None):
    """Run a command to its end.

    Returns:
        What `subprocess.run` would: code, output and errors as text.
    """
    with tempfile.TemporaryDirectory(prefix="romul-warm-") as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        process = Command(arguments, environment, out, err)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, code, out.read_text(), err.read_text())
