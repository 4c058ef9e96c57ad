"""Train the Penn Treebank task's network with one fixed schedule; measure perplexity and time.

    python benchmarks/ptb_lstm.py --data FOLDER --limit 330

This program uses the task's own code, on a GPU if there is one. It prints one JSON line: perplexity
on validation and test, epochs and seconds. Progress is printed on stderr. The learning rate is
constant, then falls like a cosine to a fiftieth. The weights are averaged over the last fifth of
the training. The schedule covers `--epochs` or the time of `--limit`, whichever ends first. The
last weights and their mean are both evaluated, and the better one on validation is reported.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch

from romul_workers.tasks.ptb_data import FOLDER_VARIABLE, Corpus, data_folder, read_corpus
from romul_workers.tasks.ptb_model import LanguageModel, Settings, evaluate
from romul_workers.tasks.ptb_training import Training

SETTINGS = Settings(
    learning_rate=25.0,
    embedding_dropout=0.1,
    input_dropout=0.4,
    hidden_dropout=0.25,
    output_dropout=0.4,
    weight_drop=0.5,
    ar=2.0,
    tar=1.0,
    layers=2,
    hidden=1024,
    embedding=512,
    batch=40,
)
CONSTANT_UNTIL = 0.4
LAST_RATE = 0.02
AVERAGED_FROM = 0.8
EVAL_BATCH = 10
EPOCHS = 80
"""Number of epochs if neither `--epochs` nor `--limit` is given."""
SPARE_S = 2.0
"""Reserve at the end of the limit, in seconds."""
EVALUATIONS = 5.0
"""Time reserved for evaluations at the end, in evaluations of the validation text: two of it, two
of the test text."""


@dataclass(frozen=True)
class Plan:
    """The limits of the training.

    Attributes:
        epochs: largest number of epochs; infinity: as many as the time allows.
        limit_s: seconds for everything from `start_s` on; None: no limit.
        start_s: start time by `time.perf_counter`.
    """

    epochs: float
    limit_s: float | None
    start_s: float

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start_s

    def progress(self, epoch: int, reserve_s: float) -> float:
        """Share of the training that is done, from 0 to 1."""
        of_epochs = epoch / self.epochs
        if self.limit_s is None:
            return of_epochs
        return min(1.0, max(of_epochs, self.elapsed_s() / max(self.limit_s - reserve_s, 1e-9)))

    def has_room(self, epoch_s: float, reserve_s: float) -> bool:
        """Whether another epoch of that length ends in time."""
        return self.limit_s is None or self.elapsed_s() + epoch_s + reserve_s <= self.limit_s


def rate_at(progress: float) -> float:
    """Factor of the learning rate after a share of the training."""
    if progress < CONSTANT_UNTIL:
        return 1.0
    falling = (progress - CONSTANT_UNTIL) / (1.0 - CONSTANT_UNTIL)
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * min(falling, 1.0)))


def train(training: Training, corpus: Corpus, plan: Plan, tell: Callable[[str], None]) -> int:
    """Train until the plan ends it.

    Returns:
        Epochs trained.

    Raises:
        FloatingPointError: training diverged.
    """
    base = training.settings
    averaging = False
    epoch, epoch_s, evaluation_s = 0, 0.0, 0.0
    while epoch < plan.epochs:
        reserve_s = SPARE_S + EVALUATIONS * evaluation_s
        if epoch and not plan.has_room(epoch_s, reserve_s):
            break
        begin_s = plan.elapsed_s()
        progress = plan.progress(epoch, reserve_s)
        rate = base.learning_rate * rate_at(progress)
        training.model.settings = replace(base, learning_rate=rate)
        if progress >= AVERAGED_FROM and not averaging:
            training.start_average()
            averaging = True
        stop = (epoch + 1) * training.rows
        while training.place < stop:
            training.update(stop)
        if corpus.train.is_cuda:
            torch.cuda.synchronize()
        trained_s = plan.elapsed_s()
        loss = evaluate(training.model, corpus.valid, EVAL_BATCH)
        evaluation_s = plan.elapsed_s() - trained_s
        epoch_s = plan.elapsed_s() - begin_s
        epoch += 1
        tell(
            f"epoch {epoch}: validation perplexity {perplexity(loss):.2f}, learning rate "
            f"{rate:.3g}, {epoch_s:.2f} s, {plan.elapsed_s():.1f} s in all"
        )
        if not math.isfinite(loss):
            raise FloatingPointError(f"training diverged in epoch {epoch}: lower learning_rate")
    training.model.settings = base
    return epoch


def perplexity(loss: float) -> float:
    """Perplexity of a loss in nats."""
    return math.exp(min(loss, 700.0))


def figures(training: Training, corpus: Corpus) -> dict[str, float]:
    """Perplexities with the current weights."""
    parts = {"val_perplexity": corpus.valid, "test_perplexity": corpus.test}
    return {
        name: round(perplexity(evaluate(training.model, text, EVAL_BATCH)), 3)
        for name, text in parts.items()
    }


def chosen_settings(changes: list[str]) -> Settings:
    """The benchmark's settings with the changes of `--set NAME=VALUE`.

    Raises:
        ValueError: a change is invalid.
    """
    values = asdict(SETTINGS)
    for change in changes:
        name, _, value = change.partition("=")
        if isinstance(values.get(name), bool) or name not in values:
            raise ValueError(f"--set {change}: there is no number of that name")
        values[name] = type(values[name])(float(value))
    return Settings.of(values)


def arguments() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", default="", help=f"folder of the texts. Default: {FOLDER_VARIABLE}."
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--epochs", type=int, help=f"most epochs. Default: {EPOCHS}, or no limit with --limit."
    )
    parser.add_argument("--limit", type=float, help="seconds for everything except imports")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=int, default=0, help="words to keep of each text; 0: all")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting"
    )
    return parser.parse_args()


def main() -> None:
    """Train, evaluate, print."""
    start_s = time.perf_counter()
    chosen = arguments()
    if chosen.epochs is not None and chosen.epochs < 1:
        sys.exit("--epochs: must be at least 1")
    on_gpu = torch.cuda.is_available()
    device = ("cuda" if on_gpu else "cpu") if chosen.device == "auto" else chosen.device
    try:
        settings = chosen_settings(chosen.set)
        limits = dict.fromkeys(("train", "valid", "test"), chosen.words)
        corpus = read_corpus(data_folder(chosen.data), limits).to(device)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    torch.manual_seed(chosen.seed)
    model = LanguageModel(len(corpus.vocabulary), settings).to(device)
    training = Training(model, Training.new_optimizer(model), corpus.train)
    most = chosen.epochs or (EPOCHS if chosen.limit is None else math.inf)
    plan = Plan(most, chosen.limit, start_s)

    def tell(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    try:
        epochs = train(training, corpus, plan, tell)
    except FloatingPointError as error:
        sys.exit(str(error))
    last = figures(training, corpus)
    with training.averaged():
        mean = figures(training, corpus)
    best = min(last, mean, key=lambda found: found["val_perplexity"])
    line = {
        "benchmark": "ptb_lstm",
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "torch": torch.__version__,
        "epochs": epochs,
        "seconds": round(plan.elapsed_s(), 1),
        **best,
        "weights": "mean" if best is mean else "last",
        "last": last,
        "mean": mean,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "words": {part: len(getattr(corpus, part)) for part in limits},
        "settings": asdict(settings),
        "seed": chosen.seed,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
