"""Word-level Penn Treebank: an LSTM language model with the regularizers of AWD-LSTM to tune.

The data does not come with ROMUL: `ptb_data` says which files are needed. The budget's unit is the
epoch. A step may be a fraction of an epoch: the network's state at that point of the text is part
of the checkpoint.

The fields of `ptb_model.Settings` may be hyperparameters or constants. Constants only: data (the
folder; default: the environment variable ROMUL_PTB), train_words, valid_words, test_words (number
of words to keep of each text; 0: all), eval_batch (number of streams that are evaluated in
parallel).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from romul_actors.errors import CheckpointError, TaskError
from romul_workers.tasks.ptb_data import Corpus, data_folder, read_corpus
from romul_workers.tasks.ptb_model import LanguageModel, Settings, evaluate, sizes_of
from romul_workers.tasks.ptb_training import Training
from romul_workers.torch_support import load, load_model
from romul_workers.trial import Context, Paused, Trial

LIMITS = {"train": "train_words", "valid": "valid_words", "test": "test_words"}
EVAL_BATCH = 10
LARGEST_LOSS = 700.0
"""Limit of a loss before its exponential is taken, which would overflow at 709.8."""
OF_SETUP = {"data", "eval_batch", *LIMITS.values()}
"""Constants that are not fields of `Settings`."""


@dataclass(frozen=True)
class Data:
    """The texts on the device.

    Attributes:
        corpus: the three texts.
        eval_batch: number of streams that are evaluated in parallel.
    """

    corpus: Corpus
    eval_batch: int


def setup(context: Context) -> Data:
    """Read the texts, once per process.

    Raises:
        FileNotFoundError: the folder or a file is missing.
        ValueError: a file is invalid, or a constant is out of range.
    """
    constants = context.constants
    if (eval_batch := int(constants.get("eval_batch", EVAL_BATCH))) < 1:
        raise ValueError(f"eval_batch: {eval_batch} is below 1")
    limits = {part: int(constants.get(name, 0)) for part, name in LIMITS.items()}
    read = read_corpus(data_folder(str(constants.get("data", ""))), limits)
    return Data(read.to(context.device), eval_batch)


def train(trial: Trial) -> Mapping[str, float] | Paused:
    """Train from `trial.start` to `trial.stop` epochs; the task can pause after each update.

    Returns:
        val_loss (nats per word), val_perplexity, and test_perplexity, which a search must not use.

    Raises:
        TaskError: the budget is less than one word of each stream, or the sizes of the network
            or of the vocabulary differ from the parent's.
    """
    data: Data = trial.state
    values: dict[str, Any] = {**trial.constants, **trial.hyperparameters}
    settings = _settings(values)
    model = LanguageModel(len(data.corpus.vocabulary), settings).to(trial.device)
    optimizer = Training.new_optimizer(model)
    training = Training(model, optimizer, data.corpus.train)
    training.place = round(trial.start * training.rows)
    stop = round(trial.stop * training.rows)
    if training.place >= stop:
        raise TaskError(
            f"a budget of {trial.budget:g} epochs is less than a word of each stream: an epoch is "
            f"{training.rows} words of each of the {settings.batch}"
        )
    if settings.average:
        training.start_average()
    try:
        trial.attach(model=model, optimizer=optimizer)
    except CheckpointError:
        if trial.parent is not None:
            _refuse_other_sizes(trial.parent, settings, len(data.corpus.vocabulary))
        raise
    # Fields that are constants: the parent may come from a search with other constants.
    for group in optimizer.param_groups:
        group.update(lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if trial.parent is not None:
        training.restore(_extra(trial.parent), mean=trial.resumed)
    while training.place < stop:
        training.update(stop)
        at = training.place / training.rows
        trial.progress(at)
        if training.place < stop and trial.should_stop:
            trial.save(**training.saved())
            return trial.pause(at)
    trial.save(**training.saved())
    with training.averaged():
        val_loss = evaluate(model, data.corpus.valid, data.eval_batch)
        test_loss = evaluate(model, data.corpus.test, data.eval_batch)
    return {
        "val_loss": val_loss,
        "val_perplexity": _perplexity(val_loss),
        "test_perplexity": _perplexity(test_loss),
    }


def scored(folder: Path, values: Mapping[str, Any]) -> LanguageModel:
    """The network of a checkpoint as it was evaluated: with `average`, with the mean weights.

    Args:
        folder: folder of the checkpoint.
        values: the search's constants and the trial's hyperparameters, by name.

    Returns:
        The network, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the folder is gone, or its files are damaged or do not fit.
    """
    saved = load(folder)
    model = LanguageModel(len(saved["model"]["bias"]), _settings(values))
    load_model(folder, model)
    if (mean := _extra(folder)["mean"]) is not None:
        with torch.no_grad():
            for weight, of_mean in zip(model.parameters(), mean, strict=True):
                weight.copy_(of_mean)
    return model.eval()


def _settings(values: Mapping[str, Any]) -> Settings:
    return Settings.of({name: values[name] for name in values.keys() - OF_SETUP})


def _refuse_other_sizes(parent: Path, settings: Settings, words: int) -> None:
    """Raise a TaskError if the sizes of the network or the vocabulary differ from the parent's."""
    weights = load(parent)["model"] or {}
    if not {"bias", "embedding.weight"} <= weights.keys():
        # Another task's network.
        return
    if (of_parent := len(weights["bias"])) != words:
        raise TaskError(
            f"the parent's network knows a vocabulary of {of_parent:,} words, and the text of this "
            f"trial has {words:,}: set the constant `data` to the text that the parent "
            "was trained on, or begin the search without --with-checkpoints (`from_run` with "
            'what = "hyperparameters")'
        )
    for name, of_parent in sizes_of(weights).items():
        if (wanted := getattr(settings, name)) != of_parent:
            raise TaskError(
                f"{name}: the parent's network has {of_parent}, and this trial's is to have "
                f"{wanted}: a hyperparameter that is a size of the network needs mutable = false, "
                "so that it goes with the checkpoint; a constant must be the parent's"
            )


def _perplexity(loss: float) -> float:
    """The exponential of the loss; finite whenever the loss is, even if training diverged."""
    return math.exp(min(loss, LARGEST_LOSS)) if math.isfinite(loss) else loss


def _extra(parent: Path) -> Mapping[str, Any]:
    """The values that `trial.save` was given for the parent's checkpoint."""
    try:
        extra: Mapping[str, Any] = load(parent)["extra"]
    except KeyError as error:
        raise CheckpointError(f"{parent}: cannot be restored: it has no {error}") from error
    return extra
