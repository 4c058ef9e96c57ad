"""Stored results under the keys of today's code, where today's code still leads to them.

A key holds a fingerprint of the code that a result came from. Code that was only moved or renamed
makes other keys, although no result changes; a fingerprint cannot distinguish the two. So a sample
of the lines is played again: only if each of them comes out bit for bit as it is stored (or, on
another kind of machine, as the former code plays it there) do all lines get new keys, with a note
of the commit that holds them under their old ones.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.random import default_rng

from romul_actors.errors import ExperimentError, RomulError
from romul_sim.bench import RunLine
from romul_sim.results import Results

SHARE = 0.05
"""Share of the lines that is played again."""
LEAST = 10
"""Lines that are played again at least."""
NOTE = "rekeyed_from"
"""Field of a line that has got a new key: the commit that holds it under its first one."""
_NOT_OF_THE_RUN = ("key", NOTE)
_KIND = ("problem", "optimizer", "population", "steps", "conditions", "device")
"""Fields that may make a difference to what code a run came from; each combination is sampled."""

KeyOf = Callable[[RunLine], str]
PlayAgain = Callable[[Sequence[RunLine]], Iterator[RunLine]]


class RekeyError(RomulError, ValueError):
    """Lines that do not get new keys; the message names those that come out otherwise."""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What was done to a file.

    Attributes:
        lines: how many got a new key.
        sample: how many of them were played again.
        current: how many had the key of today's code before.
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
    """Give the lines of a results file today's keys, if a sample of them comes out the same.

    Args:
        path: the file; it is locked meanwhile, and changed only if the whole sample agrees.
        key_of: the key that today's code gives to the run of a line.
        play_again: plays the runs of lines; new lines with their keys, in any order.
        commit: that holds the lines under their old keys.
        expected: plays them with the former code, under the keys that they have; None: they should
            come out as they are stored.
        share: of the lines, that is played again.
        least: how many are played again at least, if there are so many.
        seed: of the choice.

    Raises:
        RekeyError: a line came out otherwise, cannot be played, or is there twice with different
            results.
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
        lines: those to choose from.
        share: how many of them, as a share.
        least: how many at least, if there are so many.
        seed: of the choice; the same lines in any order are the same choice.
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
    """A line under another key; a note of an earlier commit stays."""
    return {**line, "key": key, NOTE: line.get(NOTE, commit)}


def differences(stored: RunLine, played: RunLine) -> list[str]:
    """Fields of a run in which two lines differ, as JSON, with both values."""
    names = dict.fromkeys([*stored, *played])
    found = []
    for name in names:
        before, after = (json.dumps(line.get(name)) for line in (stored, played))
        if name not in _NOT_OF_THE_RUN and before != after:
            found.append(f"{name} is {after}, not {before}")
    return found


def _by_new_key(path: Path, lines: Sequence[RunLine], key_of: KeyOf) -> dict[str, RunLine]:
    """One line of each run by its new key: the one that has that key already, if there is one."""
    found: dict[str, RunLine] = {}
    for line in lines:
        try:
            key = key_of(line)
        except (RomulError, ValueError, KeyError, ImportError) as error:
            raise RekeyError(f"{_run(line)}: it cannot be played any more: {error!r}") from error
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
    """Play lines again, which are given by their new keys."""
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
    return f"{path}: {what} came out otherwise; no line has got a new key:\n{rows}"
