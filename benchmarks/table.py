"""Run all benchmarks, and print a table of the figures and their goals.

    python benchmarks/table.py                                   # about ten minutes on two cores
    python benchmarks/table.py --full --page docs/performance.md    # all rounds, and a page

Each benchmark runs in its own process, one after the other. If one fails, the table says why, and
the others still run. The figures hold for this machine; goals that are ratios compare with a peer
or a ceiling of the same run. The exit status is 1 if a benchmark failed, but not if a goal was
missed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent
LONGEST_S = 1800

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a benchmark.

    Attributes:
        what: description with the unit.
        key: keys that lead to it in the benchmark's line, separated by dots.
        goal: the goal; None: there is none.
        most: whether the goal is an upper limit; otherwise it is a lower limit.
    """

    what: str
    key: str
    goal: float | None = None
    most: bool = True

    def value(self, line: Line) -> float:
        """The figure in a benchmark's line.

        Raises:
            KeyError: the line does not have it.
        """
        found: Any = line
        for part in self.key.split("."):
            found = found[part]
        return float(found)

    def met(self, value: float) -> bool | None:
        """Whether a value meets the goal; None: there is no goal."""
        if self.goal is None:
            return None
        return value <= self.goal if self.most else value >= self.goal


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark: its commands and the figures to show.

    Attributes:
        short, full: its commands, without `python benchmarks/`.
        figures: figures for each line of its output, in order; further lines are not shown.
    """

    short: str
    full: str
    figures: Sequence[Sequence[Figure]]

    def command(self, kind: Literal["short", "full"]) -> str:
        """Its short or full command."""
        return self.full if kind == "full" else self.short


def checkpoint(megabytes: int, *, goals: bool = True) -> list[Figure]:
    """The figures of a line of `checkpoints.py`."""
    saved, restored, warm, frozen = (1.1, 0.5, 0.05, 0.15) if goals else (None,) * 4
    return [
        Figure(
            f"{megabytes} MB checkpoint: save to report, ratio to a plain write",
            "ours_ratio",
            saved,
        ),
        Figure("restore from the page cache, ratio to the same", "restore_ratio", restored),
        Figure("warm restore, ratio to the same", "warm restore_ratio", warm),
        Figure("share of the bytes if 9 of 10 weights are frozen", "frozen_share", frozen),
    ]


def overhead(seconds: str, goal: float | None) -> list[Figure]:
    """The figures of a line of `overhead.py`."""
    return [
        Figure(f"overhead of a trial of {seconds}, %", "overhead_percent", goal),
        Figure("overhead of a plain loop with torch, %", "plain_percent"),
    ]


def latency(workers: int, p50: float, p99: float) -> list[Figure]:
    """The figures of a line of `latency.py`, with upper limits in milliseconds."""
    return [
        Figure(f"report to next lease, {workers} workers: median, ms", "p50_ms", p50),
        Figure("the same, 99th percentile, ms", "p99_ms", p99),
        Figure("an echo instead: median, ms", "ceiling_p50_ms"),
    ]


BENCHES = (
    Bench(
        "startup.py --rounds 5",
        "startup.py --rounds 11",
        [
            [
                Figure("`import romul`, s", "import_romul_s", 0.15),
                Figure("`import numpy`, s", "import_numpy_s"),
                Figure("`romul --help`, s", "help_s", 0.3),
                Figure(
                    "worker start to first trial, task with torch, s",
                    "worker_ready_s",
                    1.5,
                ),
                Figure("the same without torch, s", "worker_ready_without_torch_s"),
                Figure("`import torch`, s", "import_torch_s"),
            ]
        ],
    ),
    # Small checkpoints vary more, so they have more rounds.
    Bench(
        "checkpoints.py --megabytes 1 64 --rounds 15",
        "checkpoints.py --megabytes 1 64 --rounds 25",
        [checkpoint(1, goals=False), checkpoint(64)],
    ),
    Bench(
        "checkpoints.py --megabytes 512 --rounds 3",
        "checkpoints.py --megabytes 512 --rounds 5",
        [checkpoint(512)],
    ),
    Bench(
        "overhead.py --seconds 1 --trials 10",
        "overhead.py --seconds 1 --trials 30",
        [overhead("1 s", 2.0)],
    ),
    Bench(
        "latency.py --workers 64 --rounds 2",
        "latency.py --workers 64 16 4 1 --rounds 5",
        [latency(64, 5.0, 20.0)],
    ),
    Bench(
        "end_to_end.py --steps 125 --rounds 3",
        "end_to_end.py --steps 125 --rounds 5",
        [
            [
                Figure("no-op trials/s, 8 workers", "romul.trials_per_s"),
                Figure("ratio to Ray Tune's PBT", "ratio_to_ray_tune", 30.0, most=False),
            ]
        ],
    ),
    Bench(
        "decisions.py --slots 100 256 10000 --rounds 3",
        "decisions.py --slots 100 256 10000 --rounds 5",
        [
            [Figure("decisions/s, 100 slots", "decisions_per_s")],
            [
                Figure("decisions/s, 256 slots", "decisions_per_s"),
                Figure(
                    "by CPU time, ratio to a bare script", "cpu_ratio_to_ceiling", 0.25, most=False
                ),
            ],
            [Figure("CPU time of a decision, 10,000 slots, ratio to 100", "cost_to_first", 2.0)],
        ],
    ),
    Bench(
        "simulator.py --days 1",
        "simulator.py --days 4",
        [
            [
                Figure("simulated trials/s", "trials_a_second", 10_000.0, most=False),
                Figure("Syne Tune's simulator, results/s", "syne_tune_results_a_second"),
            ]
        ],
    ),
    Bench(
        "memory.py --metrics 2 --read-back 8",
        "memory.py --metrics 2 --read-back 8",
        [
            [
                Figure("Redis: bytes per finished trial", "trial", 900.0),
                Figure("Redis: bytes per slot", "slot"),
            ]
        ],
    ),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    what: str
    value: str
    goal: str
    met: str
    command: str


def measured(bench: Bench, kind: Literal["short", "full"]) -> tuple[list[Row], bool]:
    """Run a benchmark, and return its rows and whether it succeeded."""
    command = bench.command(kind)
    name, *options = command.split()
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, str(FOLDER / name), *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        return [Row("no figure", f"after {LONGEST_S} s", "", "failed", command)], False
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return [Row("no figure", last[:200], "", "failed", command)], False
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return rows(bench, command, lines), True


def rows(bench: Bench, command: str, lines: Sequence[Line]) -> list[Row]:
    """The rows of a benchmark's lines."""
    found = []
    for figures, line in zip(bench.figures, lines, strict=False):
        for figure in figures:
            try:
                value = figure.value(line)
            except (KeyError, TypeError):
                # A peer is not installed, or this machine cannot measure the figure.
                found.append(Row(figure.what, "not measured", _goal(figure), "", command))
                continue
            met = {True: "yes", False: "no", None: ""}[figure.met(value)]
            found.append(Row(figure.what, f"{value:.4g}", _goal(figure), met, command))
    return found


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    return f"{'at most' if figure.most else 'at least'} {figure.goal:g}"


def table(found: Sequence[Row]) -> str:
    """The table in Markdown, aligned for reading as plain text."""
    head = ("figure", "value", "goal", "met")
    cells = [head, *((row.what, row.value, row.goal, row.met) for row in found)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * n for n in widths) + " |", *lines[1:]])


APART = "\n## Measured apart\n"
"""The heading that begins the part of the page that is written by hand."""


def by_hand(page: str) -> str:
    """The part of a page that is written by hand."""
    _, heading, text = page.partition(APART)
    return heading + text


def page(parts: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """The text of docs/performance.md, from the rows of each command."""
    begun = time.strftime("%Y-%m-%d")
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    text = [
        "# Performance",
        "",
        f"Written by `benchmarks/table.py --page` on {begun}: {machine}.",
        "Values are medians. Ratios compare with a peer or a ceiling of the same run, and mean",
        "more than the other figures, which depend on the machine. Goals are this project's own;",
        "figures without a goal are there for comparison. `make bench` prints the table.",
        '`make bench-full` rewrites this page, except for the section "Measured apart".',
    ]
    for command, found in parts:
        text += ["", f"`python benchmarks/{command}`", "", table(found)]
    return "\n".join([*text, ""])


def main() -> int:
    """Run all benchmarks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="run all rounds and sizes")
    parser.add_argument("--only", help="run only benchmarks whose command contains this text")
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    kind: Literal["short", "full"] = "full" if given.full else "short"
    parts: list[tuple[str, Sequence[Row]]] = []
    sound = True
    for bench in BENCHES:
        command = bench.command(kind)
        if given.only and given.only not in command:
            continue
        print(f"python benchmarks/{command}", file=sys.stderr, flush=True)
        found, ended = measured(bench, kind)
        parts.append((command, found))
        sound &= ended
    print(table([row for _, found in parts for row in found]))
    if given.page is not None:
        kept = by_hand(given.page.read_text(encoding="utf-8")) if given.page.exists() else ""
        given.page.write_text(page(parts) + kept, encoding="utf-8")
        print(f"written: {given.page}", file=sys.stderr)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
