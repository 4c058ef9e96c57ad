"""Penn Treebank: a one-layer LSTM language model with tied weights and eight hyperparameters.

`ptb-small` has 100,000 training tokens and 2,000 words, and is meant for a GPU. `ptb-twin` is so
small that a population takes seconds on one core. Gradients are explicit: a batch of LSTMs then
needs two products per token and direction, and on a GPU a whole update is one captured graph. Names
and sizes are frozen, so that results stay comparable.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from batched import streams
from batched.task import Task, Values, Weights, descend
from romul_workers.tasks.ptb_data import read_corpus

_START, _WORDS, _INPUT, _STATE, _OUTPUT = range(100, 105)
"""Streams of random numbers; lower numbers are for the weights."""
_EVALUATED = 35
"""Number of tokens of a text that are evaluated at a time."""
_WARM_UPS = 3


@dataclass(frozen=True)
class Sizes:
    """The sizes that define a problem.

    Attributes:
        words: size of the vocabulary; its last word stands for all rarer ones.
        hidden: width of embedding and state.
        tokens: number of tokens for training, validation and test.
        texts: number of pieces of the training text that are read in parallel.
        length: number of tokens of each piece in an update.
        fast: whether a GPU computes products in bfloat16; for a twin it computes as a CPU does.
    """

    words: int
    hidden: int
    tokens: tuple[int, int, int]
    texts: int
    length: int
    fast: bool = False


Parts = Mapping[str, Tensor]
"""Tokens, shape (texts, n), by the name of the part."""

SIZES: Mapping[str, Sizes] = {
    "ptb-small": Sizes(2000, 128, (100_000, 20_000, 20_000), 20, 35, fast=True),
    "ptb-twin": Sizes(500, 32, (6_000, 4_000, 8_000), 20, 10),
}


SPACE: Mapping[str, Mapping[str, Any]] = {
    "learning_rate": {"type": "float", "min": 0.03, "max": 100.0, "scale": "log"},
    "clip": {"type": "float", "min": 0.02, "max": 2.0, "scale": "log"},
    "weight_decay": {"type": "float", "min": 1e-8, "max": 1e-2, "scale": "log"},
    "momentum": {"type": "float", "min": 0.0, "max": 0.95},
    "drop_words": {"type": "float", "min": 0.0, "max": 0.5},
    "drop_input": {"type": "float", "min": 0.0, "max": 0.8},
    "drop_state": {"type": "float", "min": 0.0, "max": 0.8},
    "drop_output": {"type": "float", "min": 0.0, "max": 0.8},
}


class _Scanned(NamedTuple):
    """Results of an LSTM's forward pass for the backward pass; gates are after activation."""

    outputs: Tensor
    gates: Tensor
    cells: Tensor
    last: tuple[Tensor, Tensor]


class Ptb(Task):
    """Networks of one size."""

    def __init__(
        self, sizes: Sizes, parts: Parts, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        """Take the parts "train", "validation" and "test" of `sizes`."""
        fast = sizes.fast and device.type == "cuda"
        super().__init__(device, dtype, torch.bfloat16 if fast else None)
        self.space, self.sizes = SPACE, sizes
        self.parts = {name: text.to(device) for name, text in parts.items()}
        self._cell = self.compiled(_cell)
        self._cell_back = self.compiled(_cell_back)
        self._entropy = self.compiled(_entropy)
        self._excess = self.compiled(_excess)
        self._descend = self.compiled(descend)
        self._masks = self.compiled(self.masks)
        self._captured: tuple[Any, list[dict[str, Tensor]]] | None = None

    def new(self, keys: Tensor) -> Weights:
        """Uniform weights: 0.1 for the words, 1 / sqrt(hidden) for the cell."""
        words, hidden, start = self.sizes.words, self.sizes.hidden, self.scalar(-1)

        def drawn(stream: int, bound: float, *shape: int) -> Tensor:
            numbers = streams.uniform(keys, start, stream, *shape, dtype=self.dtype)
            return bound * (2.0 * numbers - 1.0)

        words_in = drawn(0, 0.1, words, hidden)
        return {
            "words": words_in,
            "cell": drawn(1, 1.0 / math.sqrt(hidden), 2 * hidden, 4 * hidden),
            "gates": words_in.new_zeros((len(keys), 1, 4 * hidden)),
            "out": words_in.new_zeros((len(keys), 1, words)),
        }

    @torch.no_grad()
    def train(self, weights: Weights, momenta: Weights, values: Values, keys: Tensor) -> None:
        """Train once through the text; each network starts at a different position."""
        shape = (len(keys), self.sizes.texts, self.sizes.hidden)
        parts = {
            "keys": keys,
            "iteration": self.scalar(),
            "state": torch.zeros(shape, dtype=self.fast, device=self.device),
            "cells": torch.zeros(shape, dtype=self.dtype, device=self.device),
        }
        text, length = self.parts["train"], self.sizes.length
        given = (weights, momenta, values, parts)
        updates = (text.shape[1] - length) // length
        if self.device.type != "cuda":
            for _ in range(updates):
                self._update(*given)
            return
        graph, held = self._captured or self._capture(*given)
        for copies, kind in zip(held, given, strict=True):
            for name, value in kind.items():
                copies[name].copy_(value)
        for _ in range(updates):
            graph.replay()
        for copies, kind in zip(held[:2], given[:2], strict=True):
            for name, value in kind.items():
                value.copy_(copies[name])

    def _capture(self, *given: Mapping[str, Tensor]) -> tuple[Any, list[dict[str, Tensor]]]:
        """Capture one update as a graph; returns it and its tensors, with the shapes of `given`."""
        held = [{name: value.clone() for name, value in kind.items()} for kind in given]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._update(*held)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update(*held)
        self._captured = graph, held
        return self._captured

    def _update(
        self, weights: Weights, momenta: Weights, values: Values, parts: dict[str, Tensor]
    ) -> None:
        """Do one update with the next tokens."""
        seen, wanted = self._tokens(parts["keys"], parts["iteration"])
        masks = self._masks(values, parts["keys"], parts["iteration"])
        gradients, state, cells = self.gradients(
            weights, seen, wanted, (parts["state"], parts["cells"]), masks
        )
        self._descend(weights, momenta, gradients, values)
        parts["state"].copy_(state)
        parts["cells"].copy_(cells)
        parts["iteration"].add_(1)

    def _tokens(self, keys: Tensor, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of each network, each of shape (B, texts, length)."""
        text, length = self.parts["train"], self.sizes.length
        of_the_step = torch.full_like(iteration, -1)
        drawn = streams.uniform(keys, of_the_step, _START, 1, dtype=self.dtype)
        first = (drawn * length).long() + iteration * length
        places = first + torch.arange(length, device=self.device)
        return text[:, places].transpose(0, 1), text[:, places + 1].transpose(0, 1)

    def masks(self, values: Values, keys: Tensor, iteration: Tensor) -> tuple[Tensor, ...]:
        """Dropout factors of words, inputs, states and outputs."""
        texts, hidden = self.sizes.texts, self.sizes.hidden

        def kept(name: str, stream: int, *shape: int) -> Tensor:
            rate = values[name].view(-1, *(1 for _ in shape))
            drawn = streams.uniform(keys, iteration, stream, *shape, dtype=self.dtype)
            return ((drawn >= rate).to(self.dtype) / (1.0 - rate)).to(self.fast)

        return (
            kept("drop_words", _WORDS, self.sizes.words),
            kept("drop_input", _INPUT, texts, 1, hidden),
            kept("drop_state", _STATE, texts, hidden),
            kept("drop_output", _OUTPUT, texts, 1, hidden),
        )

    def gradients(
        self,
        weights: Weights,
        seen: Tensor,
        wanted: Tensor,
        start: tuple[Tensor, Tensor],
        masks: tuple[Tensor, ...],
    ) -> tuple[Weights, Tensor, Tensor]:
        """Gradients of the mean cross-entropy, and the last state and cells.

        Args:
            weights: weights of B networks.
            seen: tokens, shape (B, texts, length).
            wanted: the next tokens, same shape.
            start: state and cells at the beginning, each of shape (B, texts, hidden).
            masks: dropout factors, from `masks`.
        """
        of_words, of_input, of_state, of_output = masks
        b, texts, length = seen.shape
        hidden, n = self.sizes.hidden, texts * length
        fast = {name: weight.to(self.fast) for name, weight in weights.items()}
        into, recurrent = fast["cell"][:, :hidden], fast["cell"][:, hidden:]
        flat = seen.reshape(b, n)
        rows = (flat + torch.arange(b, device=self.device)[:, None] * self.sizes.words).view(-1)
        on_token = of_words.gather(1, flat).view(b, texts, length, 1) * of_input
        read = fast["words"].view(-1, hidden)[rows].view(b, texts, length, hidden) * on_token
        read = read.view(b, n, hidden)
        inputs = torch.baddbmm(fast["gates"], read, into).view(b, texts, length, 4 * hidden)
        scanned = self._scan(inputs, recurrent, start, of_state)
        said = (scanned.outputs * of_output).view(b, n, hidden)
        logits = torch.baddbmm(fast["out"], said, fast["words"].transpose(1, 2))
        excess = self._excess(logits, wanted.reshape(b, n))

        of_words_grad = torch.bmm(excess.transpose(1, 2), said).to(self.dtype)
        back = torch.bmm(excess, fast["words"]).view(b, texts, length, hidden) * of_output
        on_gates, before = self._scan_back(back, scanned, recurrent, start, of_state)
        on_gates = on_gates.view(b, n, 4 * hidden)
        on_words = torch.bmm(on_gates, into.transpose(1, 2)).view(b, texts, length, hidden)
        on_words = (on_words * on_token).reshape(-1, hidden).to(self.dtype)
        of_words_grad.view(-1, hidden).index_add_(0, rows, on_words)
        both = torch.cat((read, before.view(b, n, hidden)), -1)
        gradients = {
            "words": of_words_grad,
            "cell": torch.bmm(both.transpose(1, 2), on_gates).to(self.dtype),
            "gates": on_gates.sum(1, keepdim=True, dtype=self.dtype),
            "out": excess.sum(1, keepdim=True, dtype=self.dtype),
        }
        return gradients, *scanned.last

    def _scan(
        self, inputs: Tensor, recurrent: Tensor, start: tuple[Tensor, Tensor], of_state: Tensor
    ) -> _Scanned:
        """Run the LSTM over `inputs`, shape (B, texts, length, 4 * hidden)."""
        state, cells = start
        outputs, gates, kept = [], [], []
        for t in range(inputs.shape[2]):
            before = torch.baddbmm(inputs[:, :, t], state * of_state, recurrent)
            state, cells, gate = self._cell(before, cells)
            outputs.append(state)
            gates.append(gate)
            kept.append(cells)
        return _Scanned(
            torch.stack(outputs, 2), torch.stack(gates), torch.stack(kept), (state, cells)
        )

    def _scan_back(
        self,
        back: Tensor,
        scanned: _Scanned,
        recurrent: Tensor,
        start: tuple[Tensor, Tensor],
        of_state: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the gates' pre-activations, and the states (after dropout) before them.

        Both have the shape (B, texts, length, ...).
        """
        on_cells = torch.zeros_like(start[1])
        on_state = torch.zeros_like(start[0])
        turned = recurrent.transpose(1, 2)
        on_gates: list[Tensor] = []
        for t in reversed(range(back.shape[2])):
            cells_before = scanned.cells[t - 1] if t else start[1]
            on_gate, on_cells = self._cell_back(
                back[:, :, t] + on_state, on_cells, scanned.gates[t], scanned.cells[t], cells_before
            )
            on_gates.append(on_gate)
            on_state = torch.bmm(on_gate, turned) * of_state
        states = torch.cat((start[0][:, :, None], scanned.outputs[:, :, :-1]), 2)
        return torch.stack(on_gates[::-1], 2), states * of_state[:, :, None]

    def validate(self, weights: Weights) -> Tensor:
        """Cross-entropy per token of the validation text, shape (B,)."""
        return self._evaluate(weights, self.parts["validation"])

    def test(self, weights: Weights) -> Tensor:
        """Cross-entropy per token of the test text, shape (B,)."""
        return self._evaluate(weights, self.parts["test"])

    @torch.no_grad()
    def _evaluate(self, weights: Weights, text: Tensor) -> Tensor:
        """Cross-entropy per token over the whole text; the state is carried along."""
        b, texts, hidden = len(weights["out"]), len(text), self.sizes.hidden
        fast = {name: weight.to(self.fast) for name, weight in weights.items()}
        into, recurrent = fast["cell"][:, :hidden], fast["cell"][:, hidden:]
        state = torch.zeros((b, texts, hidden), dtype=self.fast, device=self.device)
        cells = torch.zeros((b, texts, hidden), dtype=self.dtype, device=self.device)
        kept = torch.ones_like(state)
        loss, n = torch.zeros(b, dtype=self.dtype, device=self.device), 0
        for first in range(0, text.shape[1] - _EVALUATED, _EVALUATED):
            seen = text[:, first : first + _EVALUATED].reshape(-1)
            wanted = text[:, first + 1 : first + _EVALUATED + 1].reshape(-1)
            read = fast["words"][:, seen]
            inputs = torch.baddbmm(fast["gates"], read, into).view(b, texts, -1, 4 * hidden)
            scanned = self._scan(inputs, recurrent, (state, cells), kept)
            state, cells = scanned.last
            said = scanned.outputs.view(b, -1, hidden)
            logits = torch.baddbmm(fast["out"], said, fast["words"].transpose(1, 2))
            loss += self._entropy(logits, wanted.expand(b, -1)).to(self.dtype)
            n += len(seen)
        return loss / n


def _cell(before: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One token of an LSTM whose forget gate is open at the beginning.

    Args:
        before: pre-activations of the gates (input, forget, output, new), shape (B, texts,
            4 * hidden).
        cells: shape (B, texts, hidden).

    Returns:
        State, cells, and the gates after activation.
    """
    i, f, o, new = before.to(cells.dtype).chunk(4, -1)
    i, f, o, new = torch.sigmoid(i), torch.sigmoid(f + 1.0), torch.sigmoid(o), torch.tanh(new)
    cells = f * cells + i * new
    state = (o * torch.tanh(cells)).to(before.dtype)
    return state, cells, torch.cat((i, f, o, new), -1).to(before.dtype)


def _cell_back(
    on_state: Tensor, on_cells: Tensor, gates: Tensor, cells: Tensor, cells_before: Tensor
) -> tuple[Tensor, Tensor]:
    """The backward pass of `_cell`: gradients of the pre-activations and of the previous cells."""
    i, f, o, new = gates.to(cells.dtype).chunk(4, -1)
    on_state = on_state.to(cells.dtype)
    flat = torch.tanh(cells)
    on_cells = on_cells + on_state * o * (1.0 - flat * flat)
    on_gates = torch.cat(
        (
            on_cells * new * i * (1.0 - i),
            on_cells * cells_before * f * (1.0 - f),
            on_state * flat * o * (1.0 - o),
            on_cells * i * (1.0 - new * new),
        ),
        -1,
    )
    return on_gates.to(gates.dtype), on_cells * f


def _entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the cross-entropies, shape (B,), of logits (B, n, words) and targets (B, n)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    right = logits.gather(-1, wanted[..., None])[..., 0]
    return (torch.logsumexp(logits, -1) - right).sum(1)


def _excess(logits: Tensor, wanted: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy with respect to the logits, shape (B, n, words)."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    right = torch.arange(logits.shape[-1], device=logits.device) == wanted[..., None]
    excess = torch.softmax(exact, -1) - right.to(exact.dtype)
    return (excess / wanted.shape[1]).to(logits.dtype)


def split(sizes: Sizes, folder: Path) -> Parts:
    """Texts for training, validation and test; always the same ones.

    Args:
        sizes: number of tokens and words.
        folder: folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt.
    """
    corpus = read_corpus(folder)
    names = ("train", "validation", "test")
    texts = (corpus.train, corpus.valid, corpus.test)
    parts = {}
    for name, text, n in zip(names, texts, sizes.tokens, strict=True):
        width = n // sizes.texts
        rows = text[: width * sizes.texts].clamp(max=sizes.words - 1)
        parts[name] = rows.view(sizes.texts, width)
    return parts
