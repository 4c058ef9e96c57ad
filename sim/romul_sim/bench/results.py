"""The bench's results file: JSON lines, one for each run, with which a later call can continue.

A line is appended when a run ends. At the end the file is rewritten in canonical order, so the same
runs give the same bytes, however often they were interrupted.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from romul_actors.errors import ExperimentError
from romul_sim.bench.runs import RunLine

ORDER = ("problem", "optimizer", "population", "conditions", "steps", "seed", "key")
"""Fields by which the lines are sorted."""


class Results:
    """A results file in use: a context manager that locks the file.

    Attributes:
        lines: finished runs by key.
        dropped: whether the last line was incomplete, and was dropped.
    """

    def __init__(self, path: Path | None) -> None:
        """Open no file yet; without a path the lines are kept only in memory."""
        self.path = path
        self.lines: dict[str, RunLine] = {}
        self.dropped = False
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Lock and read the file.

        Raises:
            ExperimentError: another process uses the file, or a line is not a run.
        """
        if self.path is None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            whole, _, rest = self._file.read().rpartition("\n")
            self.lines = _parsed(whole, self.path)
        except BlockingIOError:
            self._file.close()
            raise ExperimentError(
                f"results {self.path}: in use by another process: wait for it, or name another file"
            ) from None
        except ExperimentError:
            self._file.close()
            raise
        if rest:
            self.dropped = True
            self._file.truncate(len(f"{whole}\n".encode()) if whole else 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the file in canonical order, even after an interruption."""
        if self.path is None or self._file is None:
            return
        new = self.path.with_name(f"{self.path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.write("".join(_text(line) for line in in_order(self.lines.values())))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        self._file.close()

    def append(self, line: RunLine) -> None:
        """Add a finished run."""
        self.lines[line["key"]] = line
        if self._file is not None:
            self._file.write(_text(line))
            self._file.flush()


def read_lines(path: Path) -> list[RunLine]:
    """Read the finished runs of a file, without locking or changing it.

    Raises:
        ExperimentError: a line is not a run.
        OSError: the file cannot be read.
    """
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return list(_parsed(whole, path).values())


def in_order(lines: Iterable[RunLine]) -> list[RunLine]:
    """Lines in canonical order."""
    return sorted(lines, key=lambda line: tuple(line[name] for name in ORDER))


def _text(line: RunLine) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"


def _parsed(text: str, path: Path) -> dict[str, RunLine]:
    lines: dict[str, RunLine] = {}
    for number, row in enumerate(text.split("\n") if text else [], 1):
        try:
            line = json.loads(row)
        except ValueError:
            line = None
        if not isinstance(line, Mapping) or any(name not in line for name in ORDER):
            raise ExperimentError(f"results {path}: line {number} is not a run: {row[:80]!r}")
        if lines.setdefault(line["key"], line) != line:
            raise ExperimentError(
                f"results {path}: line {number} differs from an earlier line of the same run: "
                f"{row[:80]!r}"
            )
    return lines
