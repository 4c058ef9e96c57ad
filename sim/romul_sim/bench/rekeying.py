"""Gives stored results the keys of the current code, if the code still produces the same results.

A key contains a fingerprint of the code that produced a result. Code that was only moved or renamed
has another fingerprint, although no result changes. Therefore a sample of the lines is run again.
All lines get new keys only if each run of the sample gives the stored result bit for bit (or, on
another kind of machine, the result that the former code gives there). Each line then names the
commit that holds it under its old key.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.random import default_rng

from romul_actors.errors import ExperimentError, RomulError
from romul_sim.bench.results import Results
from romul_sim.bench.runs import RunLine

SHARE = 0.05
"""Share of the lines that are run again."""
LEAST = 10
"""Smallest number of lines that are run again."""
NOTE = "rekeyed_from"
"""Field of a line with a new key: the commit that holds the line under its first key."""
_NOT_OF_THE_RUN = ("key", NOTE)
_KIND = ("problem", "optimizer", "population", "steps", "conditions", "device")
"""Fields that may affect which code a run uses; each combination is sampled."""

KeyOf = Callable[[RunLine], str]
PlayAgain = Callable[[Sequence[RunLine]], Iterator[RunLine]]


class RekeyError(RomulError, ValueError):
    """The lines cannot get new keys; the message names the runs whose results differ."""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What was done to a file.

    Attributes:
        lines: number of lines that got a new key.
        sample: number of these that were run again.
        current: number of lines that already had the key of the current code.
    """

    lines: int
    sample: int
    current: int


def rekey(
    path: Path,
    key_of: KeyOf,
    play_again: PlayAgain,
    *,
    commit: str,
    expected: PlayAgain | None = None,
    share: float = SHARE,
    least: int = LEAST,
    seed: int = 0,
) -> Rekeyed:
    """Give the lines of a results file current keys, if a sample of them gives the same results.

    Args:
        path: the file. It is locked meanwhile, and changed only if the whole sample agrees.
        key_of: returns the key that the current code gives to the run of a line.
        play_again: runs lines again, and returns the new lines with their keys, in any order.
        commit: the commit that holds the lines under their old keys.
        expected: runs lines with the former code, under their old keys; None: the expected results
            are those that are stored.
        share: share of the lines that are run again.
        least: smallest number of lines that are run again.
        seed: seed of the choice.

    Raises:
        RekeyError: the result of a run differs, a run cannot be repeated, or the file has two
            different results of one run.
        ExperimentError: the file is not a results file, or is in use.
    """
    if not path.is_file():
        raise ExperimentError(f"results {path}: there is no such file")
    with Results(path) as results:
        by_new = _by_new_key(path, list(results.lines.values()), key_of)
        old = {key: line for key, line in by_new.items() if line["key"] != key}
        chosen = sample(list(old.values()), share, least, seed)
        names = {line["key"] for line in chosen}
        _check(
            path,
            {k: line for k, line in old.items() if line["key"] in names},
            play_again,
            expected,
        )
        results.lines = by_new | {key: noted(line, key, commit) for key, line in old.items()}
    return Rekeyed(len(old), len(chosen), len(by_new) - len(old))


def sample(lines: Sequence[RunLine], share: float, least: int, seed: int) -> list[RunLine]:
    """Choose lines at random: at least one of each problem, optimizer and conditions.

    Args:
        lines: the lines to choose from.
        share: share of the lines to choose.
        least: smallest number of lines to choose, if there are that many.
        seed: seed of the choice, which does not depend on the order of `lines`.
    """
    ordered = sorted(lines, key=lambda line: str(line["key"]))
    shuffled = [ordered[i] for i in default_rng(seed).permutation(len(ordered))]
    first: dict[tuple[object, ...], RunLine] = {}
    for line in shuffled:
        first.setdefault(tuple(line.get(name) for name in _KIND), line)
    chosen = {line["key"]: line for line in first.values()}
    wanted = max(least, math.ceil(share * len(ordered)))
    for line in shuffled:
        if len(chosen) >= wanted:
            break
        chosen.setdefault(line["key"], line)
    return list(chosen.values())


def noted(line: RunLine, key: str, commit: str) -> RunLine:
    """A line under another key, with the commit; an earlier commit in the line is kept."""
    return {**line, "key": key, NOTE: line.get(NOTE, commit)}


def differences(stored: RunLine, played: RunLine) -> list[str]:
    """The fields in which two lines of a run differ, with both values, as texts."""
    names = dict.fromkeys([*stored, *played])
    found = []
    for name in names:
        before, after = (json.dumps(line.get(name)) for line in (stored, played))
        if name not in _NOT_OF_THE_RUN and before != after:
            found.append(f"{name} is {after}, not {before}")
    return found


def _by_new_key(path: Path, lines: Sequence[RunLine], key_of: KeyOf) -> dict[str, RunLine]:
    """One line of each run, by its new key; a line that has that key already is preferred."""
    found: dict[str, RunLine] = {}
    for line in lines:
        try:
            key = key_of(line)
        except (RomulError, ValueError, KeyError, ImportError) as error:
            raise RekeyError(f"{_run(line)}: it can no longer be played: {error!r}") from error
        twin = found.get(key, line)
        if differences(twin, line):
            raise RekeyError(_refusal(path, [_named(twin, line)], "two lines of one run"))
        found[key] = line if line["key"] == key else twin
    return found


def _check(
    path: Path,
    chosen: Mapping[str, RunLine],
    play_again: PlayAgain,
    expected: PlayAgain | None,
) -> None:
    """Run lines, given by their new keys, again and compare the results.

    Raises:
        RekeyError: a result differs, or a run cannot be repeated.
    """
    try:
        if expected is not None:
            before = {line["key"]: line for line in expected(list(chosen.values()))}
            chosen = {key: before[line["key"]] for key, line in chosen.items()}
        played = {line["key"]: line for line in play_again(list(chosen.values()))}
    except (RomulError, ValueError, KeyError) as error:
        raise RekeyError(f"{path}: a run of the sample cannot be played: {error}") from error
    wrong = [
        _named(line, played[key]) if key in played else f"{_run(line)}: it was not played"
        for key, line in chosen.items()
        if key not in played or differences(line, played[key])
    ]
    if wrong:
        raise RekeyError(_refusal(path, wrong, f"{len(wrong)} of {len(chosen)} lines"))


def _run(line: RunLine) -> str:
    return f"{line['problem']}, {line['optimizer']}, seed {line['seed']}"


def _named(stored: RunLine, played: RunLine) -> str:
    return f"{_run(stored)}: {'; '.join(differences(stored, played))}"


def _refusal(path: Path, wrong: Sequence[str], what: str) -> str:
    rows = "\n".join(f"  {row}" for row in sorted(wrong))
    return f"{path}: {what} came out differently; no line has a new key:\n{rows}"
