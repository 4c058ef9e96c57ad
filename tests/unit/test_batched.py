"""Networks trained in one batch are trained as each would be alone."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from romul_actors.protocol.experiment import Experiment
from romul_workers.tasks import digits as digits_task

FOLDER = Path(__file__).parents[2] / "benchmarks"
DIGITS_SPACE = {
    "learning_rate": {"type": "float", "min": 0.0, "max": 1.0},
    "momentum": {"type": "float", "min": 0.0, "max": 1.0},
    "noise_kind": {"type": "categorical", "choices": ["gaussian", "uniform"]},
}


@pytest.fixture(scope="module", autouse=True)
def _path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def module(name):
    return importlib.import_module(f"batched.{name}")


def numbers(**values):
    return {name: torch.tensor(each, dtype=torch.float64) for name, each in values.items()}


def keys(n):
    key = module("streams").key
    return torch.tensor([key(3, slot, 0, 1) for slot in range(n)], dtype=torch.int32)


def cifar(*, fast=False):
    """A task of random images, float64."""
    sizes = module("cifar").Sizes(8, (4, 4), 8, (40, 50, 50), 8, fast=fast)
    generator = torch.Generator().manual_seed(0)

    def part(n):
        labels = torch.randint(0, 10, (n,), generator=generator)
        images = torch.randn((n, 8, 8, 3), generator=generator, dtype=torch.float64)
        return images + labels[:, None, None, None] / 5.0, labels

    parts = {"train": part(40), "validation": part(50), "test": part(50)}
    return module("cifar").Cifar(sizes, parts, torch.device("cpu"), torch.float64)


def ptb():
    """A task of random words, float64."""
    sizes = module("ptb").Sizes(20, 8, (600, 400, 400), 4, 5)
    generator = torch.Generator().manual_seed(0)
    parts = {
        name: torch.randint(0, 20, (4, n), generator=generator)
        for name, n in (("train", 150), ("validation", 100), ("test", 100))
    }
    return module("ptb").Ptb(sizes, parts, torch.device("cpu"), torch.float64)


def experiment(space, seed, *, population=4, steps=2, optimizer="truncation"):
    return Experiment.model_validate(
        {
            "name": "batched",
            "task": "batched",
            "space": space,
            "population": population,
            "steps": steps,
            "seed": seed,
            "optimizer": optimizer,
        }
    )


def test_numbers_depend_on_key_iteration_and_stream_alone():
    streams = module("streams")
    many, alone = keys(50), keys(50)[7:8]
    one = torch.tensor(1, dtype=torch.int32)
    drawn = streams.uniform(many, one, 5, 400, dtype=torch.float64)
    assert torch.equal(drawn[7:8], streams.uniform(alone, one, 5, 400, dtype=torch.float64))
    others = [
        streams.uniform(many, one + 1, 5, 400, dtype=torch.float64),
        streams.uniform(many, one, 6, 400, dtype=torch.float64),
        drawn.roll(1, 0),
        drawn.roll(1, 1),
    ]
    for other in others:
        correlation = torch.corrcoef(torch.stack((drawn.flatten(), other.flatten())))[0, 1]
        assert abs(correlation) < 0.03  # 20,000 pairs: four standard errors
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(1 / 12, abs=0.003)
    normal = streams.normal(many, one, 5, 400, dtype=torch.float64)
    assert normal.mean().item() == pytest.approx(0.0, abs=0.03)
    assert normal.var().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("make", [cifar, ptb])
def test_a_run_does_not_depend_on_what_else_is_in_the_batch(make):
    engine, task = module("engine"), make()
    runs = [experiment(task.space, seed) for seed in range(3)]
    together = engine.play(task, runs)
    for run, ended in zip(runs, together, strict=True):
        [alone] = engine.play(task, [run])
        assert alone.trial == ended.trial
        assert alone.curve == pytest.approx(ended.curve, rel=1e-6)
        assert alone.test == pytest.approx(ended.test, rel=1e-6)
        assert alone.test_last == pytest.approx(ended.test_last, rel=1e-6)
    assert len({ended.test for ended in together}) == 3


def test_runs_of_several_batches_come_in_order():
    engine, task = module("engine"), ptb()
    runs = [experiment(task.space, seed, steps=1) for seed in range(3)]
    assert list(engine.play_all(task, runs, at_once=8, processes=0)) == engine.play(task, runs)


def test_a_network_that_diverges_fails_and_the_others_go_on():
    engine, task = module("engine"), cifar()
    task.space = {
        **task.space,
        "learning_rate": {"type": "float", "min": 0.1, "max": 1e6, "scale": "log"},
    }
    run = experiment(task.space, 0, population=8, steps=3).model_copy(update={"max_attempts": 1})
    [ended] = engine.play(task, [run])
    assert len(ended.curve) == 3
    assert ended.validation < 3.0


@pytest.mark.parametrize("fast", [False, True])
def test_cifar_is_trained_as_torch_trains_one_network(fast):
    task = cifar(fast=fast)
    assert task.one_by_one == fast
    values = numbers(
        learning_rate=[0.1, 0.03], momentum=[0.5, 0.9], weight_decay=[0.01, 0.1],
        dropout=[0.0, 0.0], label_smoothing=[0.1, 0.0], cutout=[0, 0], shift=[0, 0],
        colour=[0.0, 0.0], flip=[0.0, 0.0],
    )  # fmt: skip
    weights = task.new(keys(2))
    momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    models = [_cifar_network(weights, b) for b in range(2)]
    images, labels = task.parts["train"]
    streams = module("streams")
    orders = streams.bits(keys(2), task.scalar(), 100, 40).argsort(dim=1, stable=True)
    task.train(weights, momenta, values, keys(2))
    for b, model in enumerate(models):
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=values["learning_rate"][b].item(),
            momentum=values["momentum"][b].item(),
            weight_decay=values["weight_decay"][b].item(),
        )
        for chosen in orders[b].split(8):
            optimizer.zero_grad()
            logits = model(images[chosen].permute(0, 3, 1, 2))
            smoothing = values["label_smoothing"][b].item()
            functional.cross_entropy(logits, labels[chosen], label_smoothing=smoothing).backward()
            optimizer.step()
        seen, wanted = task.parts["validation"]
        loss = functional.cross_entropy(model(seen.permute(0, 3, 1, 2)), wanted)
        assert task.validate(weights)[b].item() == pytest.approx(loss.item(), rel=1e-6)


def _cifar_network(weights, b):
    model: Any = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10),
    ).double()  # fmt: skip
    with torch.no_grad():
        for place, name, inputs in ((0, "conv0", 3), (3, "conv1", 4)):
            kernel = weights[f"{name}.w"][b].T.reshape(4, 3, 3, inputs).permute(0, 3, 1, 2)
            model[place].weight.copy_(kernel)
            model[place].bias.copy_(weights[f"{name}.b"][b, 0])
        pixels = weights["hidden.w"][b].T.reshape(8, 2, 2, 4).permute(0, 3, 1, 2)
        model[7].weight.copy_(pixels.reshape(8, 16))
        model[9].weight.copy_(weights["out.w"][b].T)
        for place, name in ((7, "hidden"), (9, "out")):
            model[place].bias.copy_(weights[f"{name}.b"][b, 0])
    return model


def test_gradients_of_the_language_model_are_those_of_autograd():
    task = ptb()
    values = numbers(
        learning_rate=[1.0] * 3, clip=[0.5] * 3, weight_decay=[0.001] * 3, momentum=[0.5] * 3,
        drop_words=[0.2] * 3, drop_input=[0.3] * 3, drop_state=[0.4] * 3, drop_output=[0.25] * 3,
    )  # fmt: skip
    iteration, weights = task.scalar(2), task.new(keys(3))
    seen, wanted = task._tokens(keys(3), iteration)
    masks = task.masks(values, keys(3), iteration)
    generator = torch.Generator().manual_seed(1)
    state, cells = torch.randn((2, 3, 4, 8), generator=generator, dtype=torch.float64)
    gradients, last_state, last_cells = task.gradients(weights, seen, wanted, (state, cells), masks)
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    total = torch.zeros((), dtype=torch.float64)
    for b in range(3):
        loss, h, c = _said(leaves, b, seen[b], wanted[b], state[b], cells[b], masks)
        total = total + loss
        assert torch.allclose(last_state[b], h)
        assert torch.allclose(last_cells[b], c)
    expected = torch.autograd.grad(total, list(leaves.values()))
    for name, gradient in zip(leaves, expected, strict=True):
        assert torch.allclose(gradients[name], gradient, rtol=1e-9, atol=1e-12), name
        assert gradient.abs().max() > 1e-3


def _said(weights, b, seen, wanted, state, cells, masks):
    """Mean cross-entropy of one LSTM, token by token, and its last state and cells."""
    of_words, of_input, of_state, of_output = (mask[b] for mask in masks)
    words = weights["words"][b]
    read = words[seen] * of_words[seen][..., None] * of_input
    loss = 0.0
    for t in range(seen.shape[1]):
        both = torch.cat((read[:, t], state * of_state), -1)
        i, f, o, new = (both @ weights["cell"][b] + weights["gates"][b]).chunk(4, -1)
        cells = torch.sigmoid(f + 1.0) * cells + torch.sigmoid(i) * torch.tanh(new)
        state = torch.sigmoid(o) * torch.tanh(cells)
        logits = (state * of_output[:, 0]) @ words.T + weights["out"][b]
        loss = loss + functional.cross_entropy(logits, wanted[:, t]) / seen.shape[1]
    return loss, state, cells


def test_clipping_momentum_and_decay_are_those_of_torch():
    task_module = module("task")
    values = numbers(learning_rate=[0.3], momentum=[0.8], weight_decay=[0.05], clip=[0.7])
    generator = torch.Generator().manual_seed(2)
    weights = {"a": torch.randn((1, 3, 2), generator=generator, dtype=torch.float64)}
    alone = nn.Parameter(weights["a"][0].clone())
    optimizer = torch.optim.SGD([alone], lr=0.3, momentum=0.8, weight_decay=0.05)
    momenta = {"a": torch.zeros_like(weights["a"])}
    for scale in (5.0, 0.1, 2.0):
        gradient = scale * torch.randn((1, 3, 2), generator=generator, dtype=torch.float64)
        task_module.descend(weights, momenta, {"a": gradient}, values)
        alone.grad = gradient[0].clone()
        nn.utils.clip_grad_norm_([alone], 0.7)
        optimizer.step()
        assert torch.allclose(weights["a"][0], alone.detach(), rtol=1e-9)


def network(weights, b):
    """The network of the digits task, with the weights of network b of the batch."""
    made: Any = digits_task.Net(0.0).double()
    first, second, third, fourth = (made.layers[i] for i in (0, 2, 6, 9))
    with torch.no_grad():
        first.weight.copy_(weights["conv1.w"][b].T.reshape(16, 3, 3, 1).permute(0, 3, 1, 2))
        second.weight.copy_(weights["conv2.w"][b].T.reshape(32, 3, 3, 16).permute(0, 3, 1, 2))
        pixels = weights["dense1.w"][b].T.reshape(64, 4, 4, 32).permute(0, 3, 1, 2)
        third.weight.copy_(pixels.reshape(64, 512))
        fourth.weight.copy_(weights["dense2.w"][b].T)
        for layer, name in zip(
            (first, second, third, fourth), ("conv1", "conv2", "dense1", "dense2"), strict=True
        ):
            layer.bias.copy_(weights[f"{name}.b"][b, 0])
    return made


def test_digits_are_trained_as_the_task_trains_one_network():
    task = module("digits").Digits(DIGITS_SPACE, torch.device("cpu"), torch.float64)
    task.epochs = 10
    # One batch of images, so that their order does not matter.
    data = task.data
    few = digits_task.Part(data.train.images[:20].double(), data.train.labels[:20])
    task.data = digits_task.Data(few, data.validation, data.test)
    weights = task.new(keys(2))
    momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    alone = [network(weights, b) for b in range(2)]
    values = numbers(
        learning_rate=[0.3, 0.1], momentum=[0.5, 0.9], weight_decay=[0.01] * 2,
        dropout=[0.0] * 2, label_smoothing=[0.1, 0.0], input_noise=[0.0] * 2,
        noise_kind=[1.0] * 2, shift=[0.0] * 2,
    )  # fmt: skip
    before = task.validate(weights)
    task.train(weights, momenta, values, keys(2))
    after = task.validate(weights)
    for b, model in enumerate(alone):
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=values["learning_rate"][b].item(),
            momentum=values["momentum"][b].item(),
            weight_decay=0.01,
        )
        for _ in range(10):
            optimizer.zero_grad()
            smoothing = values["label_smoothing"][b].item()
            functional.cross_entropy(
                model(few.images), few.labels, label_smoothing=smoothing
            ).backward()
            optimizer.step()
        seen = data.validation.images.double()
        loss = functional.cross_entropy(model(seen), data.validation.labels)
        assert after[b].item() == pytest.approx(loss.item(), rel=1e-6)
        assert abs(after[b] - before[b]) > 0.01


def test_each_network_has_shifts_and_noise_of_its_own():
    image = torch.arange(1.0, 65.0, dtype=torch.float64).view(1, 1, 8, 8).expand(3, 400, 8, 8)
    values = numbers(shift=[0, 2, 0], input_noise=[0.0, 0.0, 0.5], noise_kind=[0, 0, 1])
    iteration = torch.zeros((), dtype=torch.int32)
    moved = module("digits").augment(image, values, keys(3), iteration)
    assert torch.equal(moved[0], image[0])
    around = {float(8 * y + x + 1) for y in range(2, 7) for x in range(2, 7)}
    assert set(moved[1, :, 4, 4].tolist()) == around
    assert 0.45 < (moved[2] - image[2]).abs().max() <= 0.5


def test_images_are_shifted_cut_flipped_and_coloured_within_bounds():
    task = cifar()
    images = torch.ones((1, 8, 8, 3), dtype=torch.float64)
    images[:, :, 0] = 2.0
    chosen = torch.zeros((4, 300), dtype=torch.long)
    values = numbers(
        shift=[0, 0, 0, 8], cutout=[0, 16, 0, 0], flip=[0.5, 0, 0, 0], colour=[0, 0, 0.5, 0]
    )
    seen = task.augment(images, chosen, values, keys(4), task.scalar())
    flipped = (seen[0, :, 0, 7, 0] == 2.0).double().mean().item()
    assert flipped == pytest.approx(0.5, abs=0.1)
    holes = (seen[1] == 0.0).all(-1).double().sum((1, 2))
    assert holes.max() == 16  # a square of 16 pixels of 32 is one of 4 of 8
    assert holes.min() >= 1
    assert seen[2].min() >= 1.0 * 0.5 - 0.5
    assert seen[2].max() <= 2.0 * 1.5 + 0.5
    assert seen[2].std() > 0.1
    # Shifted by up to two of eight pixels: what moves in from outside is black.
    assert set((seen[3, :, 4, :, 0] == 0.0).double().sum(-1).tolist()) == {0.0, 1.0, 2.0}
