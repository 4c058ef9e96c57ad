"""Stored results under today's keys: a sample is played again and must come out bit for bit.

    python benchmarks/rekey.py docs/experiments/develop-8.jsonl
    python benchmarks/rekey.py docs/experiments/cifar-twin-cpu.jsonl --data FOLDER

A line's key holds a fingerprint of the code that its result came from. After a change that moved or
renamed code, and no decision, this plays a random sample of a file's lines again: of those of
`romul bench` 5 %, of those of `benchmarks/populations.py` none but the least; never fewer than 10
lines, and at least one of each problem, optimizer and conditions. If all of them come out as they
are stored, every line gets today's key and a note of the commit that holds it under its old one.
Else the file keeps its lines, and those that came out otherwise are named. Prints one JSON line.
"""

import argparse
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from romul_actors.errors import ExperimentError, RomulError
from romul_sim.bench import SUITE, RunLine, job_of, key, play_all
from romul_sim.rekeying import LEAST, SHARE, KeyOf, PlayAgain, rekey
from romul_sim.results import read_lines


def commit_of(path: Path) -> str:
    """The commit that last changed a file.

    Raises:
        ExperimentError: no commit holds the file as it is.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(path.resolve().parent), *arguments, "--", path.name],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ExperimentError(f"{path}: {done.stderr.strip()}: say --commit")
        return done.stdout.strip()

    commit = git("log", "-1", "--format=%h")
    if not commit or git("status", "--porcelain"):
        raise ExperimentError(f"{path}: it is not committed as it is: commit it, or say --commit")
    return commit


def of_suite(given: Namespace) -> tuple[KeyOf, PlayAgain]:
    """What gives lines of `romul bench` their keys, and what plays them again."""

    def key_of(line: RunLine) -> str:
        return key(job_of(line, given.suite))

    def again(lines: Sequence[RunLine]) -> Iterator[RunLine]:
        jobs = {key_of(line): job_of(line, given.suite) for line in lines}
        yield from play_all(jobs, given.processes)

    return key_of, again


def of_populations(given: Namespace) -> tuple[KeyOf, PlayAgain]:
    """The same for lines of `benchmarks/populations.py`."""
    import populations  # noqa: PLC0415  (needs torch)

    return populations.key_of, partial(populations.play_again, given)


def main() -> None:
    """Read the arguments, play the sample, and print what was done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("--commit", help="that holds the lines; else the file's last one")
    parser.add_argument("--share", type=float, help="of the lines, that is played again")
    parser.add_argument("--least", type=int, default=LEAST, help="lines that are played again")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of lines")
    parser.add_argument("--processes", type=int, help="on the CPU; else all cores")
    parser.add_argument("--suite", default=SUITE, help="module of the problems of `romul bench`")
    parser.add_argument("--data", type=Path, help="for populations: folder of both data sets")
    parser.add_argument("--at-once", type=int, help="for populations: networks side by side")
    given = parser.parse_args()
    try:
        networks = any("device" in line for line in read_lines(given.file))
        key_of, play_again = (of_populations if networks else of_suite)(given)
        share = (0.0 if networks else SHARE) if given.share is None else given.share
        done = rekey(
            given.file,
            key_of,
            play_again,
            commit=given.commit or commit_of(given.file),
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
