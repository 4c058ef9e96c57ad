"""The suite's data: tables and images from scikit-learn, and English text from Python's manual.

Nothing is downloaded. The splits are fixed. Each data set is loaded once per process, when it is
first used. This module needs scikit-learn: pip install 'romul[torch]'.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import default_rng

from romul_actors.errors import TaskError
from romul_sim.suite.problem import Array

SPLIT_SEED = 20


@dataclass(frozen=True)
class Part:
    """One part of the data: inputs, shape (n, d), and labels or targets, shape (n,)."""

    x: Array
    y: Array


@dataclass(frozen=True)
class Split:
    """A fixed split, and the SHA-256 of its data."""

    train: Part
    validation: Part
    test: Part
    identity: str


def fingerprint(*parts: object) -> str:
    """SHA-256, hexadecimal, of arrays and of the texts (`repr`) of other values."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype.str}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        else:
            found.update(repr(part).encode())
    return found.hexdigest()


def _load(name: str) -> tuple[Array, Array]:
    """Load a data set of scikit-learn by the name of its loader.

    Raises:
        TaskError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets  # noqa: PLC0415
    except ImportError:
        raise TaskError(
            "the suite's data comes with scikit-learn, which is not installed: "
            "pip install 'romul[torch]'"
        ) from None
    x, y = getattr(datasets, name)(return_X_y=True)
    return np.asarray(x, dtype=np.float64), np.asarray(y)


def _rows(n: int, n_train: int, n_validation: int) -> tuple[Array, Array, Array]:
    order = default_rng(SPLIT_SEED).permutation(n)
    train, validation, test = np.split(order, [n_train, n_train + n_validation])
    return train, validation, test


@lru_cache
def classes(name: str, n_train: int, n_validation: int, mislabelled: float) -> Split:
    """Split a classification set; replace a share of the training labels by random ones."""
    x, y = _load(name)
    train, validation, test = _rows(len(y), n_train, n_validation)
    rng = default_rng(SPLIT_SEED + 1)
    labels = y.copy()
    wrong = train[rng.random(n_train) < mislabelled]
    labels[wrong] = rng.integers(int(y.max()) + 1, size=len(wrong))
    identity = fingerprint(x, labels, train, validation, test)
    scaled = _standard(x, train) if name != "load_digits" else (x / 16.0).astype(np.float32)
    return _parts(scaled, labels.astype(np.int64), (train, validation, test), identity)


@lru_cache
def targets(name: str, n_train: int, n_validation: int) -> Split:
    """Split a regression set; standardise inputs and targets by the training part."""
    x, y = _load(name)
    train, validation, test = rows = _rows(len(y), n_train, n_validation)
    identity = fingerprint(x, y, train, validation, test)
    return _parts(_standard(x, train), _standard(y[:, None], train)[:, 0], rows, identity)


def _standard(x: Array, train: Array) -> Array:
    scale = x[train].std(0)
    standard = (x - x[train].mean(0)) / np.where(scale > 0.0, scale, 1.0)
    return np.asarray(standard, dtype=np.float32)


def _parts(x: Array, y: Array, rows: tuple[Array, Array, Array], identity: str) -> Split:
    train, validation, test = (Part(x[chosen], y[chosen]) for chosen in rows)
    return Split(train, validation, test, identity)


# -- text -----------------------------------------------------------------------------------------

ALPHABET = " abcdefghijklmnopqrstuvwxyz.,()"
"""The letters that are kept; all other characters become a space."""

N_WORDS = 200
"""Size of the vocabulary: the most frequent words, and word 0 for all others."""


@dataclass(frozen=True)
class Text:
    """Codes of letters or words for training, validation and test, and the text's SHA-256."""

    train: Array
    validation: Array
    test: Array
    identity: str


@lru_cache
def _paragraphs() -> tuple[tuple[str, ...], str]:
    """The paragraphs of Python's manual, in a fixed random order, and the text's SHA-256."""
    from pydoc_data.topics import topics  # noqa: PLC0415

    whole = "\n\n".join(topics[name] for name in sorted(topics)).lower()
    kept = [
        " ".join(re.sub(r"[^a-z.,()]+", " ", paragraph).split())
        for paragraph in whole.split("\n\n")
    ]
    # Short paragraphs are code, tables and headings.
    kept = sorted({paragraph for paragraph in kept if len(paragraph) > _SHORTEST})
    order = default_rng(SPLIT_SEED).permutation(len(kept))
    return tuple(kept[i] for i in order), fingerprint(whole)


_SHORTEST = 80


@lru_cache
def letters() -> Text:
    """Letters: 24,000 for training, shape (n,), and 80 validation and 400 test streams.

    The streams have the shape (61, n_streams).
    """
    paragraphs, identity = _paragraphs()
    text = " ".join(paragraphs)
    codes = np.array([ALPHABET.index(letter) for letter in text[:60_000]])
    train, validation, test = np.split(codes, [24_000, 24_000 + 61 * 80])
    test = test[: 61 * 400]
    identity = fingerprint(identity, codes)
    return Text(train, validation.reshape(80, 61).T, test.reshape(400, 61).T, identity)


@lru_cache
def words() -> Text:
    """Words, commas and stops: 6,000 for training, 1,000 for validation, 6,000 for test.

    Each part has the shape (n,).
    """
    paragraphs, identity = _paragraphs()
    found = re.findall(r"[a-z]+|[.,]", " ".join(paragraphs))
    counts = Counter(found)
    known = sorted(counts, key=lambda word: (-counts[word], word))[: N_WORDS - 1]
    code = {word: i for i, word in enumerate(known, 1)}
    codes = np.array([code.get(word, 0) for word in found[:13_000]])
    train, validation, test = np.split(codes, [6_000, 7_000])
    return Text(train, validation, test, fingerprint(identity, codes))
