"""An LSTM language model similar to AWD-LSTM.

Source: Merity, Keskar & Socher (2018), "Regularizing and Optimizing LSTM Language Models". The
numbers in parentheses below are sections of that paper.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

State = list[tuple[Tensor, Tensor]]
"""Hidden and cell state of each layer, each of shape (1, batch, units)."""

EVALUATED = 70
"""Words of each stream that are evaluated at a time; this affects memory, not results."""
NO_TARGET = -100
DROPOUTS = (
    "embedding_dropout",
    "input_dropout",
    "hidden_dropout",
    "output_dropout",
    "weight_drop",
)
SIZES = ("bptt", "layers", "hidden", "embedding", "batch")


@dataclass(frozen=True)
class Settings:
    """Size and training of a network; each field may be a hyperparameter or a constant.

    Attributes:
        learning_rate: learning rate of SGD for a segment of `bptt` words.
        weight_decay: L2 penalty on all weights.
        clip: largest norm of the gradient.
        bptt: mean length of a segment, in words.
        embedding_dropout: share of the vocabulary that is zeroed in a segment (4.3).
        input_dropout: dropout of the embedding's units, with one mask per segment (4.2).
        hidden_dropout: the same between layers.
        output_dropout: the same after the last layer.
        weight_drop: dropout of the hidden-to-hidden weights, with one mask per segment (2).
        ar: weight of activation regularization, alpha in the paper (4.6).
        tar: weight of temporal activation regularization, beta in the paper (4.6).
        average: whether the mean of the weights over the step's updates is evaluated (3). There is
            no non-monotonic trigger: averaging begins with the PBT step.
        layers: number of LSTM layers.
        hidden: units of each layer but the last.
        embedding: units of the embedding and of the last layer, which share one matrix (4.4).
        batch: number of streams that are trained in parallel.
    """

    learning_rate: float = 30.0
    weight_decay: float = 1.2e-6
    clip: float = 0.25
    bptt: int = 70
    embedding_dropout: float = 0.1
    input_dropout: float = 0.4
    hidden_dropout: float = 0.25
    output_dropout: float = 0.4
    weight_drop: float = 0.5
    ar: float = 2.0
    tar: float = 1.0
    average: bool = False
    layers: int = 2
    hidden: int = 1024
    embedding: int = 512
    batch: int = 20

    def __post_init__(self) -> None:
        for name in DROPOUTS:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not at least 0 and below 1")
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is below 1")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Settings":
        """Make settings from hyperparameters and constants by name; others keep the default.

        Raises:
            ValueError: a name is unknown, or a value is out of range.
        """
        kinds = {name: type(default) for name, default in asdict(cls()).items()}
        if unknown := sorted(set(values) - set(kinds)):
            raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(kinds)}")
        return cls(**{name: kinds[name](value) for name, value in values.items()})


class LanguageModel(nn.Module):
    """Predicts the next word.

    Args:
        words: size of the vocabulary.
        settings: sizes and dropout rates.
    """

    def __init__(self, words: int, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.embedding = nn.Embedding(words, settings.embedding)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        units = [settings.embedding, *[settings.hidden] * (settings.layers - 1), settings.embedding]
        self.layers = nn.ModuleList(nn.LSTM(inputs, outputs) for inputs, outputs in pairwise(units))
        self.bias = nn.Parameter(torch.zeros(words))

    def start(self, batch: int) -> State:
        """The state before the first word of a text."""
        like = self.bias
        return [
            (
                like.new_zeros(1, batch, layer.hidden_size),
                like.new_zeros(1, batch, layer.hidden_size),
            )
            for layer in self._lstms()
        ]

    def forward(self, words: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Read one segment of the text.

        Args:
            words: word numbers, shape (length, batch).
            state: the state before the segment.

        Returns:
            The last layer's output with and without dropout, shape (length, batch, embedding), and
            the state after the segment.
        """
        settings = self.settings
        x = self._embed(words)
        x = locked_dropout(x, settings.input_dropout, training=self.training)
        after: State = []
        raw = x
        for i, layer in enumerate(self._lstms()):
            raw, reached = self._recur(layer, x, state[i])
            after.append(reached)
            last = i == settings.layers - 1
            rate = settings.output_dropout if last else settings.hidden_dropout
            x = locked_dropout(raw, rate, training=self.training)
        return x, raw, after

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits of the next words: (length, batch, embedding) to (length * batch, words)."""
        return functional.linear(outputs.flatten(0, 1), self.embedding.weight, self.bias)

    def loss(self, words: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """The training loss: cross-entropy, activation and temporal regularization.

        Args:
            words: word numbers, shape (length, batch).
            targets: the next word of each, same shape.
            state: the state before the segment.

        Returns:
            The loss, a scalar, and the state after the segment.
        """
        outputs, raw, after = self(words, state)
        # The product with the vocabulary is most of the arithmetic, and bfloat16 is exact enough
        # for a gradient. The LSTM stays in TF32, because cuDNN's has no bfloat16.
        with torch.autocast("cuda", torch.bfloat16, enabled=words.is_cuda):
            logits = self.logits(outputs)
        loss = functional.cross_entropy(logits.float(), targets.flatten())
        if self.settings.ar:
            loss = loss + self.settings.ar * outputs.square().mean()
        if self.settings.tar and len(raw) > 1:
            loss = loss + self.settings.tar * (raw[1:] - raw[:-1]).square().mean()
        return loss, after

    def _lstms(self) -> list[nn.LSTM]:
        return [layer for layer in self.layers if isinstance(layer, nn.LSTM)]

    def _embed(self, words: Tensor) -> Tensor:
        """Embeddings of words; during training some words of the vocabulary are zeroed (4.3)."""
        x = functional.embedding(words, self.embedding.weight)
        if not self.training or not self.settings.embedding_dropout:
            return x
        kept = functional.dropout(
            x.new_ones(self.embedding.num_embeddings, 1), self.settings.embedding_dropout
        )
        return x * functional.embedding(words, kept)

    def _recur(
        self, layer: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Apply one layer; during training with dropped hidden-to-hidden weights (2)."""
        if not self.training or not self.settings.weight_drop:
            output, reached = layer(x, state)
            return output, reached
        from_input, from_hidden, *biases = layer.parameters()
        dropped = functional.dropout(from_hidden, self.settings.weight_drop)
        weights = [from_input, dropped, *biases]
        # cuDNN needs the weights of a layer in one piece, in this order; otherwise it copies them
        # and warns.
        flat = torch.cat([weight.flatten() for weight in weights])
        pieces = torch.split(flat, [weight.numel() for weight in weights])
        views = [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
        output, hidden, cell = torch.lstm(
            x,
            state,
            views,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=True,
            bidirectional=False,
            batch_first=False,
        )
        return output, (hidden, cell)


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of the network of a `state_dict`, by their names in `Settings`."""
    layers = sum(name.endswith("weight_hh_l0") for name in weights)
    sizes = {"layers": layers, "embedding": weights["embedding.weight"].shape[1]}
    if layers > 1:
        sizes["hidden"] = weights["layers.0.weight_hh_l0"].shape[1]
    return sizes


def locked_dropout(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Dropout with one mask for the whole segment (Gal & Ghahramani 2016).

    Args:
        x: shape (length, batch, units).
        rate: probability that a unit is zeroed.
        training: whether to apply dropout.
    """
    if not training or not rate:
        return x
    return x * functional.dropout(x.new_ones(1, *x.shape[1:]), rate)


def streams(text: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Cut a text into streams of equal length; up to batch - 1 words are left out.

    Args:
        text: word numbers, shape (n,).
        batch: number of streams.

    Returns:
        The words and the next word of each, both of shape (length, batch).

    Raises:
        ValueError: the text is too short.
    """
    length = (len(text) - 1) // batch
    if length < 1:
        raise ValueError(f"a text of {len(text)} words cannot be cut into {batch} streams")
    words = text[: length * batch].view(batch, length).t().contiguous()
    targets = text[1 : length * batch + 1].view(batch, length).t().contiguous()
    return words, targets


@torch.no_grad()
def evaluate(model: LanguageModel, text: Tensor, batch: int) -> float:
    """Mean cross-entropy of all words but the first, in nats; its exponential is the perplexity.

    Args:
        model: the model; it is left in evaluation mode.
        text: word numbers, shape (n,), n > 1.
        batch: number of streams that are evaluated in parallel; each begins with an empty state.
    """
    model.eval()
    n = len(text) - 1
    batch = min(batch, n)
    length = math.ceil(n / batch)
    # The last stream is padded with words that have no target.
    missing = length * batch - n
    words = functional.pad(text[:-1], (0, missing)).view(batch, length).t().contiguous()
    targets = functional.pad(text[1:], (0, missing), value=NO_TARGET)
    targets = targets.view(batch, length).t().contiguous()
    state = model.start(batch)
    sums = []
    for begin in range(0, length, EVALUATED):
        outputs, _, state = model(words[begin : begin + EVALUATED], state)
        wanted = targets[begin : begin + EVALUATED].flatten()
        sums.append(
            functional.cross_entropy(
                model.logits(outputs), wanted, ignore_index=NO_TARGET, reduction="sum"
            )
        )
    return float(torch.stack(sums).cpu().double().sum()) / n
