"""The CIFAR task on small data in the published formats: split, recipe, training, pauses."""

import importlib
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from romul_actors.errors import CheckpointError, TaskError
from romul_actors.protocol.experiment import load
from romul_workers.child.loop import _seed
from romul_workers.child.trainer import ChildTrainer
from romul_workers.schedule import Schedule, Stretch
from romul_workers.tasks import cifar, digits
from romul_workers.tasks.cifar_data import LAYOUTS, VARIABLE
from romul_workers.tasks.cifar_recipe import Recipe, Settings, recipe_of, settings_of
from romul_workers.tasks.wide_resnet import WideResNet
from romul_workers.torch_support import load as load_state
from romul_workers.trainer import Failure
from romul_workers.trial import Context, Paused, Trial
from tests.trials import TRIAL, declare

from .cifar_files import SMALL10, SMALL100, write

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
BATCHES = 9
"""Number of minibatches of 20 in 180 training images (of 200)."""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Small data sets that the environment names; returns constants of the smallest network."""
    for layout in (SMALL10, SMALL100):
        monkeypatch.setitem(LAYOUTS, layout.name, layout)
        write(layout, tmp_path / "data")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    return {"depth": 10, "width": 1, "batch_size": 20}


def everything(**changes):
    """A recipe in which everything draws random numbers."""
    drawn = {"dropout": 0.3, "mixup": 0.5, "operations": 2, "magnitude": 5.0, "cutout": 7}
    return {**drawn, "learning_rate": 0.05, "label_smoothing": 0.1, **changes}


def attempt(folder, context, data, *, stop=2.0, seed=7, values=None, **more):
    folder.mkdir()
    trial = Trial(
        id="0-0",
        hyperparameters=everything() if values is None else values,
        checkpoint=folder,
        stop=stop,
        seed=seed,
        step=0,
        context=context,
        state=data,
        **{"parent": None, "start": 0.0, **more},
    )
    _seed(trial.seed)
    return cifar.train(trial)


class After:
    """A stop event that is set after a number of queries."""

    def __init__(self, times):
        self.left = times

    def is_set(self):
        self.left -= 1
        return self.left <= 0


def checkpoint(folder):
    return load_state(folder)


def same(one, other):
    """Whether two checkpoints are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("data_set", ["cifar10", "cifar100"])
def test_the_split_is_the_same_each_time_and_shares_no_image(small, data_set):
    settings = settings_of({**small, "data_set": data_set})
    data, again = (cifar.prepare(settings, CPU) for _ in range(2))
    assert (len(data.train), len(data.validation)) == (180, 20)
    assert len(data.test) == (60 if data_set == "cifar10" else 100)
    assert data.classes == LAYOUTS[data_set].classes
    assert torch.equal(data.validation.images, again.validation.images)
    images = [part.images for part in (data.train, data.validation, data.test)]
    n = sum(len(part) for part in images)
    assert len(torch.unique(torch.cat(images).flatten(1), dim=0)) == n
    pixels = data.train.images.double()
    assert torch.allclose(data.mean.flatten().double(), pixels.mean((0, 2, 3)), rtol=1e-5)
    spread = pixels.std((0, 2, 3), correction=0)
    assert torch.allclose(data.deviation.flatten().double(), spread, rtol=1e-5)


def test_only_the_first_images_are_used_where_that_is_asked_for(small):
    limits = {"train_images": 50, "validation_images": 7, "test_images": 9}
    all_of_it = cifar.prepare(settings_of(small), CPU)
    data = cifar.prepare(settings_of({**small, **limits}), CPU)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50, 7, 9]
    assert torch.equal(data.validation.images, all_of_it.validation.images[:7])
    with pytest.raises(TaskError, match="batch_size 51: must be from 1 to the 50 images"):
        cifar.prepare(settings_of({**small, **limits, "batch_size": 51}), CPU)


def test_networks_have_as_many_weights_as_in_the_paper():
    for depth, width, millions in ((16, 4, 2.7), (40, 4, 8.9), (28, 10, 36.5)):
        model = WideResNet(depth, width, 10)
        assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(
            millions, abs=0.051
        )
    model = WideResNet(10, 2, 100, 0.4)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    model.set_dropout(0.2)
    rates = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.2] * 3
    with pytest.raises(ValueError, match="depth 12: must be 6 n"):
        WideResNet(12, 1, 10)
    with pytest.raises(ValueError, match="width 0"):
        WideResNet(10, 0, 10)


def test_it_learns_and_goes_on_from_a_parent(small, tmp_path):
    context = Context("e", "cpu", small)
    data = cifar.setup(context)
    values = {"learning_rate": 0.02, "momentum": 0.8, "weight_decay": 1e-4}
    first = attempt(tmp_path / "a", context, data, values=values)
    assert first.keys() == {"val_loss", "val_accuracy", "test_accuracy"}
    more = {"parent": tmp_path / "a", "start": 2.0, "stop": 4.0, "seed": 8}
    second = attempt(tmp_path / "b", context, data, values=values, **more)
    assert second["val_loss"] < first["val_loss"] < np.log(10)
    # Colours tell the classes.
    assert second["val_accuracy"] > 0.8
    assert second["test_accuracy"] > 0.8
    [group] = checkpoint(tmp_path / "b")["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.02, 0.8, True)
    assert checkpoint(tmp_path / "b")["model"]["norm.num_batches_tracked"] == 4 * BATCHES


def test_constants_and_defaults_are_the_searchs_own_whatever_the_parent_had(small, tmp_path):
    old = {**small, "learning_rate": 0.5, "weight_decay": 0.25}
    values = {"momentum": 0.0}
    context = Context("old", "cpu", old)
    attempt(tmp_path / "a", context, cifar.setup(context), stop=1.0, values=values)
    context = Context("new", "cpu", {**small, "learning_rate": 0.125, "weight_decay": 0.0})
    of_parent = {"parent": tmp_path / "a", "start": 1.0}
    attempt(tmp_path / "b", context, cifar.setup(context), values={"momentum": 0.5}, **of_parent)
    [group] = checkpoint(tmp_path / "b")["optimizer"]["param_groups"]
    fields = {"lr": 0.125, "momentum": 0.5, "weight_decay": 0.0, "nesterov": True}
    assert {field: group[field] for field in fields} == fields


@pytest.mark.parametrize("batches", [1, 4, BATCHES - 1])
def test_a_trial_cut_short_within_an_epoch_ends_as_if_it_never_had_been(small, tmp_path, batches):
    context = Context("e", "cpu", small)
    data = cifar.setup(context)
    whole = attempt(tmp_path / "whole", context, data)
    paused = attempt(tmp_path / "part", context, data, _stopping=After(batches))
    assert paused == Paused(batches / BATCHES)
    # Random numbers that other code draws in between do not matter.
    torch.rand(100)
    go_on = {"parent": tmp_path / "part", "start": paused.at}
    rest = attempt(tmp_path / "rest", context, data, resumed=True, **go_on)
    assert rest == whole
    assert same(checkpoint(tmp_path / "rest"), checkpoint(tmp_path / "whole"))
    # Without the random state, or with another order of the images, it would be another training.
    assert attempt(tmp_path / "other", context, data, **go_on) != whole
    assert attempt(tmp_path / "seed", context, data, resumed=True, seed=6, **go_on) != whole


def test_a_trial_may_be_cut_short_twice_and_not_after_its_end(small, tmp_path):
    context = Context("e", "cpu", small)
    data = cifar.setup(context)
    whole = attempt(tmp_path / "whole", context, data, stop=1.0)
    parent, at = None, 0.0
    for i in range(2):
        paused = attempt(
            tmp_path / str(i),
            context,
            data,
            stop=1.0,
            parent=parent,
            start=at,
            resumed=parent is not None,
            _stopping=After(3),
        )
        parent, at = tmp_path / str(i), paused.at
    assert at == 6 / BATCHES
    more = {"parent": parent, "start": at, "resumed": True, "stop": 1.0}
    assert attempt(tmp_path / "rest", context, data, _stopping=After(3), **more) == whole


@pytest.mark.parametrize("stop", [0.5, 2.3])
def test_a_budget_may_be_a_part_of_an_epoch(small, tmp_path, stop):
    context = Context("e", "cpu", small)
    data = cifar.setup(context)
    attempt(tmp_path / "a", context, data, stop=stop)
    [counts] = {
        int(value)
        for name, value in checkpoint(tmp_path / "a")["model"].items()
        if name.endswith("num_batches_tracked")
    }
    assert counts == round(stop * BATCHES)
    with pytest.raises(TaskError, match=r"budget 0\.01: less than a minibatch"):
        attempt(tmp_path / "b", context, data, stop=0.01)


def test_should_stop_is_not_read_after_the_last_minibatch(small, tmp_path):
    context = Context("e", "cpu", small)
    # Half an epoch is rounded down to 4 minibatches of 9: progress says less than the whole.
    asked = After(4)
    attempt(tmp_path / "a", context, cifar.setup(context), stop=0.5, _stopping=asked)
    assert asked.left == 1


def test_each_image_is_seen_once_an_epoch_whatever_was_before(small):
    data = cifar.prepare(settings_of(small), CPU)
    seen = dict(cifar.minibatches(data, 0, 3 * BATCHES, seed=5))
    for epoch in range(3):
        batches = [seen[epoch * BATCHES + i] for i in range(BATCHES)]
        assert sorted(torch.cat(batches).tolist()) == list(range(180))
    assert not torch.equal(seen[0], seen[BATCHES])
    rest = dict(cifar.minibatches(data, 13, 20, seed=5))
    assert list(rest) == list(range(13, 20))
    assert all(torch.equal(chosen, seen[number]) for number, chosen in rest.items())


def test_an_augmented_image_is_moved_mirrored_and_partly_hidden(small):
    data = cifar.prepare(settings_of(small), CPU)
    images = data.train.images[:100]
    plain = (images.float() - data.mean) / data.deviation
    nothing = Recipe(crop=0, flip=False)
    assert torch.equal(cifar.augment(images, data, nothing), plain)
    torch.manual_seed(0)
    mirrored = cifar.augment(images, data, Recipe(crop=0))
    flipped = (mirrored == plain.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored[~flipped], plain[~flipped])
    assert 30 < flipped.sum() < 70
    moved = cifar.augment(images, data, Recipe(crop=2, flip=False))
    black = (0.0 - data.mean) / data.deviation
    padded = black.expand(100, 3, 36, 36).clone()
    padded[:, :, 2:34, 2:34] = plain
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1).permute(0, 2, 3, 1, 4, 5)
    found = (windows == moved[:, None, None]).flatten(3).all(3)
    assert found.flatten(1).sum(1).tolist() == [1] * 100
    assert found.sum(0).count_nonzero() == 25
    for side in (1, 6, 7):
        hidden = cifar.augment(images, data, Recipe(crop=0, flip=False, cutout=side)) == 0.0
        areas = hidden.all(1).flatten(1).sum(1)
        assert areas.max() == side * side
        assert torch.equal(hidden.any(1), hidden.all(1))


@pytest.mark.parametrize("alpha", [1e-5, 1e-4, 0.01, 1.0])
def test_shares_of_mixed_images_have_the_deviation_of_their_distribution(alpha):
    _seed(0)
    drawn = np.array([cifar.share_of_the_first(alpha) for _ in range(4000)])
    assert np.all((drawn >= 0.0) & (drawn <= 1.0))
    assert drawn.std() == pytest.approx((4.0 * (2.0 * alpha + 1.0)) ** -0.5, rel=0.05)


def test_a_network_of_nans_has_no_accuracy(small):
    data = cifar.prepare(settings_of(small), CPU)
    model = cifar.network(data, Recipe())
    torch.nn.init.constant_(next(model.parameters()), math.nan)
    assert not np.isfinite(cifar.evaluate(model, data, data.validation)).any()
    digit = digits.Net(0.0)
    torch.nn.init.constant_(next(digit.parameters()), math.nan)
    of_digits = digits.setup(Context("e", "cpu", {})).validation
    assert not np.isfinite(digits._evaluate(digit, of_digits)).any()


def test_two_images_are_mixed_with_their_labels(small, monkeypatch):
    """If half of each is mixed, the loss is the mean of the losses of both labels."""
    data = cifar.prepare(settings_of(small), CPU)
    inputs = []

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.arange(10.0))

        def forward(self, images):
            inputs.append(images)
            return self.logits.expand(len(images), 10)

    model = Constant()
    monkeypatch.setattr(cifar, "share_of_the_first", lambda _: 0.25)
    before = torch.optim.SGD(model.parameters(), lr=1.0)
    chosen = torch.arange(20)
    cifar.learn(model, before, data, chosen, Recipe(crop=0, flip=False, mixup=1.0))
    plain = (data.train.images[:20].float() - data.mean) / data.deviation
    [mixed] = inputs
    partners = [
        next(j for j in range(20) if torch.allclose(mixed[i], 0.25 * plain[i] + 0.75 * plain[j]))
        for i in range(20)
    ]
    assert sorted(partners) == list(range(20))
    labels = data.train.labels[:20]
    targets = 0.25 * torch.eye(10)[labels] + 0.75 * torch.eye(10)[labels[partners]]
    gradient = torch.softmax(torch.arange(10.0), 0) - targets.mean(0)
    assert torch.allclose(model.logits.detach(), torch.arange(10.0) - gradient, atol=1e-5)


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({"data_set": "mnist"}, r"data_set 'mnist': must be one of \['cifar10', 'cifar100'\]"),
        ({"precision": "fp16"}, "precision 'fp16'"),
        ({"train_images": -10}, "train_images -10"),
        ({"batchsize": 3}, r"constants that this task does not have: \['batchsize'\]"),
    ],
)
def test_a_wrong_constant_is_an_error(constants, words):
    with pytest.raises(TaskError, match=words):
        settings_of(constants)


@pytest.mark.parametrize(
    "values",
    [
        {"dropout": 1.0},
        {"label_smoothing": -0.1},
        {"magnitude": 11.0},
        {"cutout": -1},
        {"crop": -1},
    ],
)
def test_a_hyperparameter_out_of_range_is_an_error(values):
    with pytest.raises(TaskError, match=next(iter(values))):
        recipe_of({}, values)


def test_a_hyperparameter_wins_over_a_constant_and_an_unknown_one_is_an_error():
    assert recipe_of({"crop": 3, "depth": 10}, {"crop": 2}).crop == 2
    assert Recipe() == recipe_of({}, {})
    with pytest.raises(TaskError, match=r"hyperparameters .* does not have: \['width'\]"):
        recipe_of({}, {"width": 2})


def test_a_network_of_another_size_cannot_go_on(small, tmp_path):
    context = Context("e", "cpu", small)
    data = cifar.setup(context)
    attempt(tmp_path / "a", context, data, stop=0.2)
    wider = Context("e", "cpu", {**small, "width": 2})
    with pytest.raises(CheckpointError, match="cannot be restored"):
        attempt(tmp_path / "b", wider, cifar.setup(wider), parent=tmp_path / "a")
    wrong = Context("e", "cpu", {**small, "depth": 11})
    with pytest.raises(TaskError, match="depth 11"):
        attempt(tmp_path / "c", wrong, cifar.setup(wrong))


@pytest.mark.parametrize("name", ["cifar", "cifar-small"])
def test_the_examples_say_what_the_task_knows(name):
    experiment = load(ROOT / "examples" / f"{name}.toml")
    settings = settings_of(experiment.constants)
    assert (settings.depth, settings.width) == ((16, 4) if name == "cifar" else (10, 1))
    for end in ("min", "max"):
        recipe_of(
            experiment.constants,
            {key: getattr(spec, end) for key, spec in experiment.space.items()},
        )


async def test_a_worker_without_the_data_says_what_to_do(tmp_path):
    """The task runs in a real child process."""
    experiment = declare(
        "learning_rate",
        task="romul_workers.tasks.cifar",
        constants={"data": str(tmp_path / "nowhere")},
        checkpoints=str(tmp_path / "checkpoints"),
    )
    asked = replace(TRIAL, hyperparameters={"learning_rate": 0.1}, seed=7)
    trainer = ChildTrainer(tmp_path / "scratch", [])
    ending = await trainer.train(experiment, asked)
    await trainer.close()
    assert isinstance(ending, Failure)
    assert ending.reason == "task"
    assert "nowhere: there is no such folder or archive: " in ending.message
    assert "cifar-10-batches-py/ or cifar-10-python.tar.gz" in ending.message


class Benchmark:
    """Runs `benchmarks/cifar_wrn.py` on the small data."""

    def __init__(self, module, monkeypatch, capsys):
        self.module, self._monkeypatch, self._capsys = module, monkeypatch, capsys

    def __call__(self, *options):
        self._monkeypatch.setattr(sys, "argv", ["cifar_wrn.py", "--device=cpu", *options])
        code = self.module.main()
        printed = self._capsys.readouterr()
        return code, json.loads(printed.out) if code == 0 else printed.err


@pytest.fixture
def benchmark(small, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return Benchmark(importlib.import_module("cifar_wrn"), monkeypatch, capsys)


TINY = ("--depth=10", "--width=1", "--batch=20")


def test_the_training_script_follows_one_cycle(benchmark):
    code, found = benchmark(*TINY, "--epochs=2.5", "--rate=0.1", "--operations=1", "--mixup=0.2")
    assert code == 0
    assert (found["network"], found["epochs"], found["batch"]) == ("WRN-10-1", 2.5, 20)
    assert found["test_accuracy"] > 0.2
    assert found["seconds"] >= found["epoch_seconds"] > 0.0
    at = benchmark.module.one_cycle(Recipe(learning_rate=0.4), 30.0)
    rates = [at(position)["learning_rate"] for position in (0.0, 3.0, 6.0, 18.0, 30.0)]
    assert rates == pytest.approx([0.04, 0.22, 0.4, 0.2, 0.0])


def test_the_training_script_replays_a_schedule_as_the_task_trains(benchmark, small, tmp_path):
    """A stretch with the trial's seed and values equals that trial, bit for bit."""
    values = {"learning_rate": 0.05, "dropout": 0.3, "cutout": 7}
    constants = {**small, "momentum": 0.7}
    stretches = [Stretch(0.0, 1.0, values)]
    schedule = Schedule(
        "e", "romul_workers.tasks.cifar", "val_loss", "minimize", "epoch", constants, stretches
    )
    schedule.write(tmp_path / "s.json")
    code, found = benchmark(f"--schedule={tmp_path / 's.json'}", "--seed=7")
    assert code == 0
    context = Context("e", "cpu", constants)
    data = cifar.setup(context)
    result = attempt(tmp_path / "a", context, data, stop=1.0, values=values)
    assert found["val_loss"] == round(result["val_loss"], 4)
    assert found["test_accuracy"] == round(result["test_accuracy"], 4)


def test_a_schedule_changes_what_the_optimizer_does_not_hold(benchmark, small):
    """Dropout, too, changes at the beginning of a stretch."""
    data = cifar.prepare(Settings(depth=10, width=1, batch_size=20), CPU)
    module = benchmark.module
    low, high = (asdict(Recipe(dropout=rate, momentum=rate + 0.1)) for rate in (0.1, 0.5))
    plan = module.Plan(data.settings, lambda position: low if position < 0.5 else high, 1.0)
    model, seconds = module.train(data, plan, 0)
    assert len(seconds) == 1
    rates = {one.p for one in model.modules() if isinstance(one, torch.nn.Dropout)}
    assert rates == {0.5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*TINY, "--data=/nowhere"), "/nowhere: there is no such folder"),
        ((*TINY, "--epochs=0.01"), "less than one of 9 minibatches"),
        ((*TINY, "--magnitude=20"), "out of its range"),
        (("--schedule=/nowhere.json",), "/nowhere.json: cannot be read"),
    ],
)
def test_the_training_script_tells_what_is_wrong(benchmark, options, words):
    code, found = benchmark(*options)
    assert code == 2
    assert words in found


# Collected only where there is a GPU: there is nothing to skip elsewhere.
if torch.cuda.is_available():

    def test_a_gpu_is_never_waited_for_within_an_epoch(small):
        data = cifar.prepare(settings_of(small), torch.device("cuda"))
        recipe = recipe_of({}, everything())
        model = cifar.network(data, recipe)
        optimizer = cifar.descent(model, recipe)
        model.train()
        cifar.learn(model, optimizer, data, torch.arange(20, device="cuda"), recipe)
        order = [chosen for _, chosen in cifar.minibatches(data, 0, BATCHES, 0)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for chosen in order:
                cifar.learn(model, optimizer, data, chosen, recipe)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert np.isfinite(cifar.evaluate(model, data, data.test)).all()
