"""Give stored results the keys of the current code, if a sample of them can be reproduced.

    python benchmarks/rekey.py docs/experiments/develop-8.jsonl
    python benchmarks/rekey.py docs/experiments/cifar-twin-cpu.jsonl --data FOLDER
    python benchmarks/rekey.py docs/experiments/develop-8.jsonl --base main~3

The key of a line contains a fingerprint of the code that produced the result. Use this program
after a change that moved or renamed code but changed no result. It runs a random sample of the
file's lines again: at least 10 lines (for `romul bench` also at least 5 %), and at least one for
each problem, optimizer and conditions. If all results are the same bit for bit, each line gets the
current key and names the commit that holds it under its old key. Otherwise the file is not changed,
and the lines that differ are named. Prints one JSON line.

On another kind of processor, the last digits of losses may differ even with the same code. Then
give `--base COMMIT`, the commit whose code made the lines' keys: the sample is compared with the
results of that code on this machine instead of the stored ones.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from romul_actors.errors import ExperimentError, RomulError
from romul_sim.bench.rekeying import LEAST, SHARE, KeyOf, PlayAgain, rekey
from romul_sim.bench.results import read_lines
from romul_sim.bench.runs import SUITE, RunLine, job_of, key, play_all


def commit_of(path: Path) -> str:
    """The commit that last changed a file.

    Raises:
        ExperimentError: the file has changes that are not committed.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(path.resolve().parent), *arguments, "--", path.name],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ExperimentError(f"{path}: {done.stderr.strip()}: give --commit")
        return done.stdout.strip()

    commit = git("log", "-1", "--format=%h")
    if not commit or git("status", "--porcelain"):
        raise ExperimentError(f"{path}: not committed: commit it first, or give --commit")
    return commit


def of_suite(given: Namespace) -> tuple[KeyOf, PlayAgain]:
    """Functions that give lines of `romul bench` their keys, and that run them again."""

    def key_of(line: RunLine) -> str:
        return key(job_of(line, given.suite))

    def again(lines: Sequence[RunLine]) -> Iterator[RunLine]:
        jobs = {key_of(line): job_of(line, given.suite) for line in lines}
        yield from play_all(jobs, given.processes)

    return key_of, again


def of_populations(given: Namespace) -> tuple[KeyOf, PlayAgain]:
    """The same functions for lines of `benchmarks/populations.py`."""
    import populations  # noqa: PLC0415  (needs torch)

    return populations.key_of, partial(populations.play_again, given)


AGAIN = """
import json, sys
from argparse import Namespace
from pathlib import Path
sys.path.insert(0, "benchmarks")
import rekey
kind, given, lines = json.load(sys.stdin)
given["data"] = given["data"] and Path(given["data"])
key_of, again = getattr(rekey, kind)(Namespace(**given))
stored = {key_of(line): line["key"] for line in lines}
for line in again(lines):
    print(json.dumps({**line, "key": stored[line["key"]]}))
"""
"""Runs lines in a folder with another commit's files; each line keeps its key."""


def played_by(commit: str, kind: str, given: Namespace) -> PlayAgain:
    """A function that runs lines with the code of a commit, on this machine.

    Args:
        commit: a commit of this repository.
        kind: name of the function in this module for the file's kind of lines.
        given: the argument of that function.
    """
    root = Path(__file__).resolve().parents[1]
    options = {name: getattr(given, name) for name in ("suite", "processes", "at_once")}
    options["data"] = None if given.data is None else str(given.data.resolve())

    def again(lines: Sequence[RunLine]) -> Iterator[RunLine]:
        with tempfile.TemporaryDirectory(prefix="romul-rekey-") as scratch:
            git = ["git", "-C", str(root), "archive", commit]
            try:
                files = subprocess.run(git, capture_output=True, check=True).stdout  # noqa: S603
                with tarfile.open(fileobj=io.BytesIO(files)) as archive:
                    archive.extractall(scratch, filter="data")
                paths = os.pathsep.join(str(Path(scratch, part)) for part in ("", "workers", "sim"))
                done = subprocess.run(  # noqa: S603
                    [sys.executable, "-c", AGAIN],
                    input=json.dumps([kind, options, list(lines)]),
                    cwd=scratch,
                    env={**os.environ, "PYTHONPATH": paths},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
            except subprocess.CalledProcessError as error:
                raise ExperimentError(f"{commit}: its code cannot be run: {error}") from error
        yield from map(json.loads, done.stdout.splitlines())

    return again


def main() -> None:
    """Read the arguments, run the sample, and print what was done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument(
        "--commit", help="commit that holds the lines. Default: the file's latest commit."
    )
    parser.add_argument("--base", help="commit whose code gives the expected results")
    parser.add_argument("--share", type=float, help="share of the lines to run again")
    parser.add_argument("--least", type=int, default=LEAST, help="fewest lines to run again")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of lines")
    parser.add_argument(
        "--processes", type=int, help="number of processes. Default: the number of cores."
    )
    parser.add_argument("--suite", default=SUITE, help="module of the problems of `romul bench`")
    parser.add_argument("--data", type=Path, help="for populations: folder with both data sets")
    parser.add_argument("--at-once", type=int, help="for populations: networks in parallel")
    given = parser.parse_args()
    try:
        networks = any("device" in line for line in read_lines(given.file))
        kind = of_populations if networks else of_suite
        key_of, play_again = kind(given)
        base = None if given.base is None else played_by(given.base, kind.__name__, given)
        share = (0.0 if networks else SHARE) if given.share is None else given.share
        done = rekey(
            given.file,
            key_of,
            play_again,
            commit=given.commit or commit_of(given.file),
            expected=base,
            share=share,
            least=given.least,
            seed=given.seed,
        )
    except (RomulError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(json.dumps({"file": str(given.file), **asdict(done)}))


if __name__ == "__main__":
    main()
