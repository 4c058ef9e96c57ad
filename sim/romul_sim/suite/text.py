"""Text: language models of letters and of words, on the English of Python's manual."""

from functools import partial

import numpy as np
from numpy.random import Generator

from romul_sim.suite import data
from romul_sim.suite.networks import Layout, Mlp, classification, cross_entropy, drop
from romul_sim.suite.problem import (
    STEPS,
    Array,
    Problem,
    State,
    Values,
    capped,
    linear,
    log,
    whole,
)
from romul_sim.suite.training import Rule, descend, untrained

KIND = "text"
CAP = 8.0
"""Cross-entropy of a letter or word, in nats, above which only its logarithm grows."""

_STREAMS = 16
_LETTERS_A_STEP = 160
"""Number of letters of each stream that one step trains on."""


class Recurrent:
    """A recurrent net of tanh units (Elman 1990): letters (t, b) to logits of the next ones."""

    def __init__(self, n_letters: int, n_hidden: int) -> None:
        """Make a network with these numbers of letters and units."""
        self.n_letters, self.n_hidden = n_letters, n_hidden
        self.layout = Layout(
            (n_letters, n_hidden),
            (n_hidden, n_hidden),
            (n_hidden,),
            (n_hidden, n_letters),
            (n_letters,),
        )

    def states(self, flat: Array, letters: Array, start: Array) -> Array:
        """Hidden states, shape (t + 1, b, n_hidden), from `start`, shape (b, n_hidden)."""
        inward, recurrent, bias = self.layout.views(flat)[:3]
        driven = inward[letters] + bias
        found = np.empty((len(letters) + 1, *start.shape), dtype=flat.dtype)
        found[0] = start
        for t, drive in enumerate(driven):
            np.tanh(found[t] @ recurrent + drive, out=found[t + 1])
        return found

    def loss(self, flat: Array, letters: Array) -> float:
        """Mean cross-entropy of letters (t + 1, b), each predicted from the previous ones."""
        start = np.zeros((letters.shape[1], self.n_hidden), dtype=flat.dtype)
        hidden = self.states(flat, letters[:-1], start)[1:].reshape(-1, self.n_hidden)
        outward, bias = self.layout.views(flat)[3:]
        return cross_entropy(hidden @ outward + bias, letters[1:].ravel())

    def gradient(
        self, flat: Array, letters: Array, start: Array, dropout: float, rng: Generator
    ) -> tuple[Array, Array]:
        """Gradient of the mean cross-entropy, shape (size,), and the last hidden state.

        Backpropagation is truncated to the given letters (Williams & Peng 1990).
        """
        _, recurrent, _, outward, bias = self.layout.views(flat)
        found = np.empty_like(flat)
        to_inward, to_recurrent, to_bias, to_outward, to_logits = self.layout.views(found)
        states = self.states(flat, letters[:-1], start)
        n = letters[1:].size
        mask = drop((n, self.n_hidden), dropout, rng)
        hidden = states[1:].reshape(n, -1) * mask
        error = classification(letters[1:].ravel())(hidden @ outward + bias)
        np.matmul(hidden.T, error, out=to_outward)
        error.sum(0, out=to_logits)
        errors = ((error @ outward.T) * mask).reshape(states[1:].shape)
        slopes = 1.0 - states[1:] * states[1:]
        back = np.zeros_like(start)
        for t in range(len(errors) - 1, -1, -1):
            errors[t] += back
            errors[t] *= slopes[t]
            back = errors[t] @ recurrent.T
        flat_errors = errors.reshape(n, -1)
        np.matmul(_one_hot(letters[:-1].ravel(), self.n_letters, flat).T, flat_errors, to_inward)
        np.matmul(states[:-1].reshape(n, -1).T, flat_errors, out=to_recurrent)
        flat_errors.sum(0, out=to_bias)
        return found, states[-1]


def _one_hot(codes: Array, n: int, like: Array) -> Array:
    return np.asarray(codes[:, None] == np.arange(n), dtype=like.dtype)


def letters() -> Problem:
    """Predict the next letter with a recurrent network; the gradient's horizon is tuned too."""
    text = data.letters()
    net = Recurrent(len(data.ALPHABET), 48)
    streams = text.train[: len(text.train) // _STREAMS * _STREAMS].reshape(_STREAMS, -1).T

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        if state is None:
            start = np.zeros((_STREAMS, net.n_hidden), dtype=np.float32)
            state = (untrained(net.layout.initial(rng, 1.0)), start, 0)
        trained, hidden, place = state
        horizon = values["horizon"]

        def gradient(weights: Array) -> Array:
            nonlocal hidden, place
            rows = (place + np.arange(horizon + 1)) % len(streams)
            place = (place + horizon) % len(streams)
            found, hidden = net.gradient(weights, streams[rows], hidden, values["dropout"], rng)
            return found

        after = descend(trained, _rule(net.layout, values), _LETTERS_A_STEP // horizon, gradient)
        return (after, hidden, place), loss(text.validation, (after,))

    def loss(part: Array, state: State) -> float:
        return capped(net.loss(state[0].weights, part), CAP)

    space = {
        "rate_input": log(1e-4, 100.0),
        "rate_recurrent": log(1e-5, 10.0),
        "rate_output": log(1e-4, 100.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-7, 0.1),
        "clip": log(1e-2, 100.0),
        "dropout": linear(0.0, 0.9),
        "horizon": whole(2, 32, "log"),
    }
    test = partial(loss, text.test)
    return Problem("letters-rnn", KIND, space, STEPS, step, test, text.identity)


def _rule(layout: Layout, values: Values) -> Rule:
    names = ("input", "recurrent", "recurrent", "output", "output")
    rates = layout.spread([values[f"rate_{name}"] for name in names])
    return Rule(rates, values["momentum"], values["decay"], clip=values["clip"])


class Window:
    """A neural language model (Bengio et al. 2003): embeddings of words to the next word."""

    def __init__(self, n_words: int, n_context: int, n_embedded: int, n_hidden: int) -> None:
        """Make a network with these sizes."""
        self.n_words, self.n_embedded = n_words, n_embedded
        self.hidden = Mlp(n_context * n_embedded, n_hidden, n_words)
        self.layout = Layout((n_words, n_embedded), *self.hidden.layout.shapes)
        self._embeddings = n_words * n_embedded

    def outputs(self, flat: Array, contexts: Array) -> Array:
        """Logits, shape (n, n_words), of the words after contexts (n, n_context)."""
        embedded = self.layout.views(flat)[0][contexts].reshape(len(contexts), -1)
        return self.hidden.outputs(flat[self._embeddings :], embedded, "tanh")

    def gradient(
        self, flat: Array, contexts: Array, words: Array, values: Values, rng: Generator
    ) -> Array:
        """Gradient of the cross-entropy with `smoothing`, `dropout` and `word_dropout`."""
        embedding, inward = self.layout.views(flat)[:2]
        embedded = embedding[contexts]
        mask = drop(contexts.shape, values["word_dropout"], rng)
        inputs = (embedded * mask[..., None]).reshape(len(contexts), -1)
        found = np.empty_like(flat)
        derivative = classification(words, values["smoothing"])
        found[self._embeddings :], error = self.hidden.gradients(
            flat[self._embeddings :], inputs, derivative, "tanh", values["dropout"], rng
        )
        error = (error @ inward.T).reshape(*contexts.shape, -1) * mask[..., None]
        one_hot = _one_hot(contexts.ravel(), self.n_words, flat)
        to_embedding = self.layout.views(found)[0]
        np.matmul(one_hot.T, error.reshape(-1, self.n_embedded), out=to_embedding)
        return found


_CONTEXT = 4


def words() -> Problem:
    """Predict the next of 200 words from the previous four, with 6,000 words for training."""
    text = data.words()
    net = Window(data.N_WORDS, _CONTEXT, 16, 48)
    train, validation = (_windows(part) for part in (text.train, text.validation))
    test_part = _windows(text.test)

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng, 1.0)) if state is None else state
        layers = ("embedding", "hidden", "hidden", "output", "output")
        rates, decays = (
            net.layout.spread([values[f"{what}_{layer}"] for layer in layers])
            for what in ("rate", "decay")
        )

        def gradient(weights: Array) -> Array:
            rows = rng.integers(len(train.y), size=values["batch"])
            return net.gradient(weights, train.x[rows], train.y[rows], values, rng)

        rule = Rule(rates, values["momentum"], decays, clip=10.0)
        after = descend(trained, rule, 25, gradient)
        return after, loss(validation, after)

    def loss(part: data.Part, state: State) -> float:
        return capped(cross_entropy(net.outputs(state.weights, part.x), part.y), CAP)

    kinds = ("embedding", "hidden", "output")
    space = {
        **{f"rate_{kind}": log(1e-3, 100.0) for kind in kinds},
        **{f"decay_{kind}": log(1e-7, 1e-1) for kind in kinds},
        "momentum": linear(0.0, 0.99),
        "dropout": linear(0.0, 0.9),
        "word_dropout": linear(0.0, 0.9),
        "smoothing": linear(0.0, 0.5),
        "batch": whole(8, 128, "log"),
    }
    test = partial(loss, test_part)
    return Problem("words-window", KIND, space, STEPS, step, test, text.identity)


def _windows(codes: Array) -> data.Part:
    rows = np.arange(len(codes) - _CONTEXT)[:, None] + np.arange(_CONTEXT + 1)
    windows = codes[rows]
    return data.Part(windows[:, :-1], windows[:, -1])
