"""Reads the Penn Treebank's three text files as word numbers.

The format is that of Mikolov et al. (2010): `ptb.train.txt`, `ptb.valid.txt`, `ptb.test.txt`, one
sentence per line, words separated by spaces, rare words replaced by `<unk>` and numbers by `N`.
Each end of a line counts as the word `<eos>`. The vocabulary is that of the training file.
"""

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FOLDER_VARIABLE = "ROMUL_PTB"
"""Environment variable that names the folder with the three files."""
END = "<eos>"
FILES = {"train": "ptb.train.txt", "valid": "ptb.valid.txt", "test": "ptb.test.txt"}
STANDARD = {"train": 929_589, "valid": 73_760, "test": 82_430}
"""Number of words in each file of the standard set, with ends of lines."""
STANDARD_VOCABULARY = 10_000
SHOWN = 5
"""Most unknown words that an error names."""


@dataclass(frozen=True)
class Corpus:
    """The three texts.

    Attributes:
        train, valid, test: word numbers, shape (n,), int64.
        vocabulary: the words by number, in order of falling frequency in the training file.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    vocabulary: tuple[str, ...]

    def to(self, device: str) -> "Corpus":
        """A copy with the texts on a device."""
        train, valid, test = (text.to(device) for text in (self.train, self.valid, self.test))
        return Corpus(train, valid, test, self.vocabulary)


def data_folder(named: str) -> Path:
    """The folder with the three files.

    Args:
        named: the path in the experiment; empty: use the environment variable ROMUL_PTB.

    Raises:
        FileNotFoundError: no folder is named, or it does not exist.
    """
    name = named or os.environ.get(FOLDER_VARIABLE, "")
    if not name:
        raise FileNotFoundError(
            "no folder with the Penn Treebank is named: set the constant `data` of the experiment, "
            f"or the environment variable {FOLDER_VARIABLE} of the workers, to the folder with "
            f"{_names()}"
        )
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        source = "the constant `data`" if named else FOLDER_VARIABLE
        raise FileNotFoundError(
            f"{folder}, named by {source}, is no folder on this machine: it must hold {_names()}"
        )
    return folder


def read_corpus(folder: Path, limits: Mapping[str, int] | None = None) -> Corpus:
    """Read the three files.

    Counts that differ from the standard ones cause only a warning, because a part of the text is
    allowed.

    Args:
        folder: the folder with the three files.
        limits: number of words to keep from the beginning of "train", "valid" or "test"; 0 or no
            entry: all. The vocabulary is always that of the whole training file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is empty, cut off or not a text of this format, or has words that the
            training file lacks; or a limit leaves too few words.
    """
    limits = limits or {}
    for part, limit in limits.items():
        # The first word of a text cannot be predicted, so evaluation needs two.
        if limit < 0 or (limit == 1 and part != "train"):
            raise ValueError(f"{part}_words: {limit} is neither 0, for all, nor at least 2")
    words = {part: _words(folder / name) for part, name in FILES.items()}
    counts = Counter(words["train"])
    vocabulary = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    numbers = {word: i for i, word in enumerate(vocabulary)}
    for part in ("valid", "test"):
        _check_known(folder / FILES[part], words[part], numbers)
    _warn_of_other_counts(folder, {part: len(text) for part, text in words.items()}, vocabulary)
    tensors = {}
    for part, text in words.items():
        kept = text[: limits.get(part, 0) or None]
        tensors[part] = torch.tensor([numbers[word] for word in kept])
    return Corpus(**tensors, vocabulary=vocabulary)


def _names() -> str:
    """The names of the files, with their standard counts."""
    return ", ".join(f"{name} ({STANDARD[part]:,} words)" for part, name in FILES.items())


def _words(file: Path) -> list[str]:
    """All words of a file, with `<eos>` for each end of a line."""
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        found = ", ".join(sorted(path.name for path in file.parent.iterdir())[:10]) or "nothing"
        raise FileNotFoundError(
            f"{file} is missing; the folder must hold {_names()}, and holds {found}"
        ) from error
    part = next(part for part, name in FILES.items() if name == file.name)
    wanted = (
        f"expected is UTF-8 text, one sentence a line, words separated by spaces, "
        f"{STANDARD[part]:,} words with the ends of lines"
    )
    if not content.strip():
        raise ValueError(f"{file} is empty ({len(content)} bytes): copy it again; {wanted}")
    if b"\0" in content:
        raise ValueError(f"{file} is binary: is it packed, or UTF-16? {wanted}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 at byte {error.start}: convert or copy it again; {wanted}"
        ) from error
    if not text.endswith("\n"):
        raise ValueError(
            f"{file} ends inside a line, after {text.rsplit(maxsplit=1)[-1]!r}: it was cut off. "
            f"Copy it again, or end the line if it is whole; {wanted}"
        )
    words: list[str] = []
    for number, line in enumerate(text[:-1].split("\n"), 1):
        of_line = line.split()
        if END in of_line:
            raise ValueError(
                f"{file}, line {number}: holds {END} already, which is added at each end of a "
                f"line: remove it; {wanted}"
            )
        words += of_line
        words.append(END)
    return words


def _check_known(file: Path, words: list[str], numbers: Mapping[str, int]) -> None:
    """Raise a ValueError if some words are not in the training file."""
    unknown = [word for word in dict.fromkeys(words) if word not in numbers]
    if unknown:
        shown = ", ".join(repr(word) for word in unknown[:SHOWN])
        raise ValueError(
            f"{file}: {len(unknown):,} words are not among the {len(numbers):,} of "
            f"{FILES['train']} ({shown}{' ...' if len(unknown) > SHOWN else ''}): take all three "
            "files from the same preprocessed set, in which rare words are <unk>. To train on part "
            "of the text leave the files whole, and set the constant train_words"
        )


def _warn_of_other_counts(
    folder: Path, counts: Mapping[str, int], vocabulary: tuple[str, ...]
) -> None:
    other = [
        f"{FILES[part]} has {n:,} words in place of {STANDARD[part]:,}"
        for part, n in counts.items()
        if n != STANDARD[part]
    ]
    if len(vocabulary) != STANDARD_VOCABULARY:
        other.append(f"the vocabulary has {len(vocabulary):,} in place of {STANDARD_VOCABULARY:,}")
    if other:
        warnings.warn(
            f"{folder}: {'; '.join(other)}: perplexities cannot be compared with published ones",
            stacklevel=3,
        )
