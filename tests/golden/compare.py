"""Check whether a decision has changed, by comparing hashes of many histories between commits.

    make golden                  # with the file beside this module
    make golden BASE=main~3      # with that commit, run on this machine
    make golden RENEW=1          # write the file again

The hashes are what `romul lab`, `romul chaos` and `romul sim` tell with `--json`, so that any two
commits that have them can be compared, whatever lies inside.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).parent / "golden.json"
TRACES = ROOT / "sim" / "romul_sim" / "traces"
HASH = "golden_sha256"
SAME, MOVED, NOT_COMPARED = 0, 1, 2
"""Exit codes."""


class NotComparedError(Exception):
    """Nothing can be compared; the message says why."""


def sets(*, quick: bool) -> dict[str, list[str]]:
    """Commands by the first part of their entries' names; `quick`: fewer seeds, a few seconds.

    But for chaos, which plays the default optimizer, the optimizers are named: another default
    moves the entries of chaos alone.
    """
    seeds, chaos_seeds = (1, 3) if quick else (3, 20)
    both = "romul,truncation"
    commands = {
        "lab-8": ["lab", "--population=8", f"--seeds={seeds}", f"--optimizers={both}"],
        "chaos": ["chaos", f"--seeds={chaos_seeds}", "--out=runs/golden"],
    }
    if not quick:
        commands["lab-24"] = ["lab", "--population=24", f"--seeds={seeds}", "--optimizers=romul"]
    for trace in sorted(TRACES.glob("*.json*")):
        optimizers = "romul" if quick else both
        commands[f"sim-{trace.stem}"] = [
            "sim",
            f"--trace={trace}",
            f"--optimizer={optimizers}",
            # One seed alone would be printed in another form.
            "--seeds=2",
        ]
    return commands


def entries_of(name: str, output: Mapping[str, Any]) -> dict[str, str]:
    """Hashes by entry, "SET/ROW/SEED", of what a command prints.

    Raises:
        NotComparedError: it prints no hashes.
    """
    found = {}
    for row in output.get("rows", [output]):
        if HASH not in row:
            raise NotComparedError(f"`romul {name.partition('-')[0]} --json` gives no {HASH} there")
        parts = [row[key] for key in ("problem", "optimizer") if key in row]
        for seed, sha256 in row[HASH].items():
            found["/".join([name, *parts, seed])] = sha256
    return found


def hashes(tree: Path, commands: Mapping[str, list[str]]) -> dict[str, str]:
    """Hashes by entry, of the code in a folder.

    Raises:
        NotComparedError: its commands fail, or tell of no hashes.
    """
    paths = os.pathsep.join(map(str, (tree, tree / "workers", tree / "sim")))
    # One thread: the order of a sum must not depend on the number of cores.
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotComparedError(f"{' '.join(arguments)}: {done.stderr[-1000:]}")
        return done.stdout

    code = Path(call("-c", "import romul_sim; print(romul_sim.__file__)").strip())
    if not code.is_relative_to(tree):
        raise NotComparedError(f"{tree}: another installation is run there: {code}")
    found: dict[str, str] = {}
    for name, arguments in commands.items():
        output = call("-m", "romul_actors.cli", *arguments, "--json")
        found |= entries_of(name, json.loads(output))
    return found


def machine() -> dict[str, Any]:
    """What floats may depend on: Python, C library, numpy, the CPU's features, BLAS."""
    built: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = built["Build Dependencies"]["blas"]
    kernels = []
    with contextlib.suppress(ImportError):
        pools = importlib.import_module("threadpoolctl").threadpool_info()
        # OpenBLAS chooses its kernels by the CPU, or by OPENBLAS_CORETYPE.
        # Other libraries may have brought a BLAS of their own, which chooses alike.
        kernels = sorted({p.get("architecture", "") for p in pools if p["user_api"] == "blas"})
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "simd_baseline": built["SIMD Extensions"].get("baseline", []),
        "simd_found": built["SIMD Extensions"].get("found", []),
        "blas": f"{blas['name']} {blas['version']}",
        "blas_kernels": kernels,
    }


def other_machine(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """A description of how two machines differ; "" if they do not."""
    found = [
        f"{name} is {here.get(name)}, not {recorded.get(name)}"
        for name in sorted({*recorded, *here})
        if recorded.get(name) != here.get(name)
    ]
    return "; ".join(found)


def moved(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """One line for each entry that changed, is new, or is missing."""
    lines = []
    for entry in sorted({*expected, *found}):
        before, now = expected.get(entry, "none"), found.get(entry, "none")
        if before != now:
            lines.append(f"{entry}: {before[:12]} -> {now[:12]}")
    return lines


def recorded() -> dict[str, Any]:
    """The file: `machine`, and `entries` by name."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def part_of(entries: Mapping[str, str], commands: Mapping[str, list[str]]) -> dict[str, str]:
    """Those of the file's entries that some commands should give, by their seeds."""
    kept = {}
    for entry, sha256 in entries.items():
        name, *row, seed = entry.split("/")
        options = dict(option.partition("=")[::2] for option in commands.get(name, ()))
        known = (options.get("--optimizers") or options.get("--optimizer") or "").split(",")
        if (
            name in commands
            and int(seed) < int(options["--seeds"])
            and (not row or row[-1] in known)
        ):
            kept[entry] = sha256
    return kept


def renew() -> None:
    """Rewrite the file for this machine."""
    entries = hashes(ROOT, sets(quick=False))
    found = {"machine": machine(), "entries": dict(sorted(entries.items()))}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


@contextlib.contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit; it is removed again.

    Raises:
        NotComparedError: there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="romul-golden-") as scratch:
        tree = (Path(scratch) / "tree").resolve()
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", str(tree), commit],
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            raise NotComparedError(f"{commit}: {added.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def expected_from(base: str | None) -> dict[str, str]:
    """What should come out: of a commit run here, or of the file.

    Raises:
        NotComparedError: the commit has no hashes, or the file is of another machine.
    """
    if base is not None:
        with tree_of(base) as tree:
            return hashes(tree, sets(quick=False))
    content = recorded()
    if why := other_machine(content["machine"], machine()):
        raise NotComparedError(
            f"{FILE.name} was written on another machine: {why}. "
            "`make golden BASE=COMMIT` compares with a commit run on this one"
        )
    entries: dict[str, str] = content["entries"]
    return entries


def main() -> int:
    """Compare or renew, and print the result."""
    parser = argparse.ArgumentParser(description="Compare hashes of histories.")
    parser.add_argument("--base", help="compare with this commit, run on this machine")
    parser.add_argument("--renew", action="store_true", help="write the file again")
    given = parser.parse_args()
    if given.renew:
        renew()
        print(f"written: {FILE}: commit it alone, and say why decisions moved")  # noqa: T201
        return SAME
    against = given.base or FILE.name
    try:
        expected = expected_from(given.base)
        found = hashes(ROOT, sets(quick=False))
    except NotComparedError as error:
        print(f"not compared with {against}: {error}")  # noqa: T201
        return NOT_COMPARED
    lines = moved(expected, found)
    total = len({*expected, *found})
    print(*lines, f"{len(lines)} of {total} entries moved against {against}", sep="\n")  # noqa: T201
    return MOVED if lines else SAME


if __name__ == "__main__":
    sys.exit(main())
