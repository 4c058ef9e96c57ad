"""The suite: small real training problems for comparing optimizers.

Each problem trains a model on real data, or an agent in a simulated environment, in a few
milliseconds per step on one core, without a download. Problems are made when they are first used,
so importing this package is fast. They need scikit-learn (pip install 'romul[torch]').
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from romul_sim.suite import (
    bandit,
    control,
    images,
    pursuit,
    reconstruction,
    regulator,
    tabular,
    text,
)
from romul_sim.suite.problem import Problem

_MADE_BY: Mapping[str, tuple[str, Callable[[], Problem]]] = {
    "cart-pole": (control.KIND, control.cart_pole),
    "digits-bandit": (bandit.KIND, bandit.bandit),
    "pursuit-es": (pursuit.KIND, pursuit.pursuit),
    "regulator-pg": (regulator.KIND, regulator.regulator),
    "digits-conv": (images.KIND, images.convolutional),
    "digits-mlp": (images.KIND, images.perceptron),
    "letters-rnn": (text.KIND, text.letters),
    "words-window": (text.KIND, text.words),
    "cancer-mlp": (tabular.KIND, tabular.cancer),
    "diabetes-groups": (tabular.KIND, tabular.diabetes),
    "digits-features": (tabular.KIND, tabular.features),
    "wine-mlp": (tabular.KIND, tabular.wine),
    "digits-completion": (reconstruction.KIND, reconstruction.completion),
    "digits-denoising": (reconstruction.KIND, reconstruction.autoencoder),
}


@lru_cache
def _make(name: str) -> Problem:
    return _MADE_BY[name][1]()


class _Suite(Mapping[str, Problem]):
    """The problems by name; each is made, and its data loaded, when it is first used."""

    def __getitem__(self, name: str) -> Problem:
        if name not in _MADE_BY:
            raise KeyError(f"no problem {name!r}; there are {', '.join(_MADE_BY)}")
        return _make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_MADE_BY)

    def __len__(self) -> int:
        return len(_MADE_BY)


def _halves() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the names into two halves: names of each kind, sorted by SHA-256, alternate.

    The half that gets the first name alternates from kind to kind.
    """
    halves: tuple[list[str], list[str]] = ([], [])
    for turn, kind in enumerate(sorted({kind for kind, _ in _MADE_BY.values()})):
        names = [name for name, (its_kind, _) in _MADE_BY.items() if its_kind == kind]
        names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        for place, name in enumerate(names):
            halves[(turn + place) % 2].append(name)
    return tuple(sorted(halves[0])), tuple(sorted(halves[1]))


SUITE: Mapping[str, Problem] = _Suite()
"""All problems by name."""

DEVELOP, REPORT = _halves()
"""Names of the problems in each half: one for developing optimizers, one for reporting results."""
