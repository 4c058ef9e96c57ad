"""The benchmarks, as small as they go: their figures are for whoever runs them at full size."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from romul_workers.tasks import digits
from romul_workers.trial import Context

FOLDER = Path(__file__).parents[2] / "benchmarks"


def bench(name, *options):
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("barrier --population 8 --seeds 2 --problems luck", {"population": 8, "seeds": 2}),
        (
            "digits --device cpu --seeds 2 --steps 1 --optimizers romul",
            {"seeds_won": {}, "steps": 1},
        ),
        ("decisions --population 8 --seconds 0.1 --rounds 1", {"population": 8, "rounds": 1}),
        ("end_to_end --workers 4 --steps 12 --peer-steps 0", {"workers": 4}),
        ("screens --slots 8 --steps 2", {"slots": 8}),
        ("simulator --machines 8 --days 0.1 --only romul", {"machines": 8, "invariants_broken": 0}),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_benchmark_prints_one_json_line(command, told):
    done = bench(*command.split())
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    printed = json.loads(line)
    assert printed["benchmark"] == command.split()[0]
    assert {key: printed[key] for key in told} == told


def test_too_few_workers_are_refused_in_words():
    done = bench("end_to_end", "--workers=2")
    assert done.returncode == 2
    assert "--workers: 4 at least" in done.stderr


@pytest.fixture
def batched(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("batched_digits")


def network(weights, b):
    """The task's own network, with the weights of the b-th of many."""
    made = digits.Net(0.0)
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


def test_many_networks_are_trained_as_each_would_be_alone(batched):
    torch.manual_seed(0)
    data = digits.setup(Context("digits", "cpu", {}))
    # One batch of images, so that their order does not matter.
    few = digits.Part(data.train.images[:20], data.train.labels[:20])
    trainer = batched.Trainer(digits.Data(few, data.validation, data.test))
    networks = batched.Networks.new(2, trainer.device)
    alone = [network(networks.weights, b) for b in range(2)]
    values = [
        {"learning_rate": rate, "momentum": momentum, "weight_decay": 0.01, "dropout": 0.0}
        | {"label_smoothing": smoothing, "input_noise": 0.0, "noise_kind": "uniform", "shift": 0}
        for rate, momentum, smoothing in ((0.3, 0.5, 0.1), (0.1, 0.9, 0.0))
    ]
    before, _ = trainer.evaluate(networks, data.validation)
    trainer.train(networks, values, epochs=10)
    after, _ = trainer.evaluate(networks, data.validation)
    for b, (model, chosen) in enumerate(zip(alone, values, strict=True)):
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=chosen["learning_rate"],
            momentum=chosen["momentum"],
            weight_decay=chosen["weight_decay"],
        )
        for _ in range(10):
            optimizer.zero_grad()
            functional.cross_entropy(
                model(few.images), few.labels, label_smoothing=chosen["label_smoothing"]
            ).backward()
            optimizer.step()
        loss = functional.cross_entropy(model(data.validation.images), data.validation.labels)
        assert after[b].item() == pytest.approx(loss.item(), rel=1e-4)
        assert abs(after[b] - before[b]) > 0.01


def test_each_network_has_shifts_and_noise_of_its_own(batched):
    torch.manual_seed(0)
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(3, 400, 8, 8)
    moved = batched.augment(
        image,
        torch.tensor([0, 2, 0]),
        torch.tensor([0.0, 0.0, 0.5]).view(3, 1, 1, 1),
        torch.tensor([True, True, False]).view(3, 1, 1, 1),
    )
    assert torch.equal(moved[0], image[0])
    around = {float(8 * y + x + 1) for y in range(2, 7) for x in range(2, 7)}
    assert set(moved[1, :, 4, 4].tolist()) == around
    assert 0.45 < (moved[2] - image[2]).abs().max() <= 0.5
