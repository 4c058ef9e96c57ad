"""Warm restores use tensors in memory only if these are what was saved."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3

from romul_workers.checkpoints.hashing import Written
from romul_workers.child.trainer import ChildTrainer
from romul_workers.schedule import Schedule, Stretch, train
from romul_workers.tensors.kept import WHOLE
from romul_workers.torch_support import FILE
from romul_workers.trainer import Failure
from tests.unit.test_torch_support import trial as torch_trial
from tests.unit.test_trainer import TASKS, experiment, trial


def attempt(folder, parent=None, kept=None):
    folder.mkdir()
    made = torch_trial(folder, parent, learning_rate=0.25)
    made._work.parent_kept = kept
    return made


class Net(torch.nn.Module):
    """Weights, statistics, a tied weight, and a tensor too large to be compared whole."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(40, 40)
        self.norm = torch.nn.BatchNorm1d(40)
        self.tied = torch.nn.Linear(40, 40, bias=False)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(self.norm(self.first(x)))


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "a rate in a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), foreach=False),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
}


def made(kind="SGD"):
    model = Net()
    return model, OPTIMIZERS[kind](model.parameters())


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(5, 40)).square().mean().backward()
    optimizer.step()


def hashed(*parts):
    """Hash of a state: every tensor's bytes, type and shape, and every plain value."""
    digest = blake3()

    def add(value):
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}{value.device}".encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, item in value.items():
                digest.update(repr(key).encode())
                add(item)
        elif isinstance(value, list | tuple):
            digest.update(type(value).__name__.encode())
            for item in value:
                add(item)
        else:
            digest.update(f"{type(value)}{value!r}".encode())

    for part in parts:
        add(part.state_dict())
    return digest.hexdigest()


def saved(tmp_path, kind="SGD"):
    """A trial that has saved and listed its checkpoint, with its model and its optimizer."""
    model, optimizer = made(kind)
    first = attempt(tmp_path / "a")
    first.attach(model=model, optimizer=optimizer)
    step(model, optimizer)
    first.save()
    return first, model, optimizer


def restored(folder, first, kind="SGD", into=None, *, warm=True):
    """Hash after a restore from a trial's checkpoint, and whether it was warm."""
    model, optimizer = into or made(kind)
    following = attempt(folder, first.checkpoint, first._work.kept if warm else None)
    following.attach(model=model, optimizer=optimizer)
    return hashed(model, optimizer), following._work.warm


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("same", [False, True], ids=["a new model", "the same model"])
def test_a_warm_restore_is_the_same_state_as_a_cold_one(tmp_path, kind, same):
    first, model, optimizer = saved(tmp_path, kind)
    cold = restored(tmp_path / "cold", first, kind, warm=False)
    into = (model, optimizer) if same else None
    del model, optimizer
    warm = restored(tmp_path / "warm", first, kind, into)
    assert warm == (cold[0], True)
    assert cold[1] is False


def test_a_new_model_gets_the_tensors_themselves(tmp_path):
    first, model, optimizer = saved(tmp_path)
    place = model.first.weight.data_ptr()
    momentum = optimizer.state[model.first.weight]["momentum_buffer"].data_ptr()
    # As at the end of a trial.
    first._attached = None
    del model, optimizer
    assert first._work.kept.is_alone()
    model, optimizer = made()
    attempt(tmp_path / "b", first.checkpoint, first._work.kept).attach(
        model=model, optimizer=optimizer
    )
    assert model.first.weight.data_ptr() == place
    assert model.tied.weight is model.first.weight
    assert optimizer.state[model.first.weight]["momentum_buffer"].data_ptr() == momentum


def test_a_model_that_is_still_in_use_shares_nothing_with_the_next_one(tmp_path):
    first, model, optimizer = saved(tmp_path)
    other, its = made()
    attempt(tmp_path / "b", first.checkpoint, first._work.kept).attach(model=other, optimizer=its)
    before = hashed(other, its)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
            optimizer.state[weight]["momentum_buffer"].zero_()
    assert hashed(other, its) == before


def weights_of(model):
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


def _trains_on(model, optimizer):
    step(model, optimizer)


def _steps_without_counting(model, optimizer):
    with torch.no_grad():
        optimizer.step()


def _changes_statistics(model, optimizer):
    # Neither the batch nor the write is counted anywhere.
    norm = model.norm
    torch.nn.functional.batch_norm(
        torch.randn(5, 40), norm.running_mean, norm.running_var, training=True
    )


def _changes_a_buffer(model, optimizer):
    model.norm.num_batches_tracked.add_(1)


def _changes_momenta(model, optimizer):
    next(iter(optimizer.state.values()))["momentum_buffer"].mul_(2)


def _writes_through_data(model, optimizer):
    for weight in weights_of(model):
        weight.data.mul_(1.5)


def _writes_through_numpy(model, optimizer):
    model.first.weight.detach().numpy()[...] = 1.0


def _one_small_value_through_data(model, optimizer):
    model.first.bias.data[7] += 1.0


WRITES = [
    _trains_on,
    _steps_without_counting,
    _changes_statistics,
    _changes_a_buffer,
    _changes_momenta,
    _writes_through_data,
    _writes_through_numpy,
    _one_small_value_through_data,
]


@pytest.mark.parametrize("kind", ["SGD", "fused SGD"])
@pytest.mark.parametrize("write", WRITES)
def test_after_a_write_the_files_are_read(tmp_path, kind, write):
    first, model, optimizer = saved(tmp_path, kind)
    cold, _ = restored(tmp_path / "cold", first, kind, warm=False)
    write(model, optimizer)
    assert restored(tmp_path / "warm", first, kind) == (cold, False)


def _replaces_a_parameter(model, optimizer):
    model.first.bias = torch.nn.Parameter(torch.zeros(40))


def _replaces_its_data(model, optimizer):
    model.first.weight.data = torch.zeros(40, 40)


def _changes_the_groups(model, optimizer):
    optimizer.param_groups[0].update(lr=7.0, momentum=0.1, weight_decay=3.0)


def _forgets_momenta(model, optimizer):
    optimizer.state.clear()


@pytest.mark.parametrize(
    "change", [_replaces_a_parameter, _replaces_its_data, _changes_the_groups, _forgets_momenta]
)
@pytest.mark.parametrize("same", [False, True], ids=["a new model", "the same model"])
def test_what_was_saved_stays_where_a_model_gets_something_else(tmp_path, change, same):
    first, model, optimizer = saved(tmp_path)
    cold, _ = restored(tmp_path / "cold", first, warm=False)
    change(model, optimizer)
    if same and change is _replaces_a_parameter:
        # An optimizer of the parameters that the model has now.
        optimizer = OPTIMIZERS["SGD"](model.parameters())
    into = (model, optimizer) if same else None
    assert restored(tmp_path / "warm", first, into=into) == (cold, True)


class Twice(Net):
    """A model that does more than copy when it is loaded."""

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        with torch.no_grad():
            self.norm.bias.add_(1.0)


class Untied(Net):
    """The same names, but two weights instead of the saved model's tied one."""

    def __init__(self):
        super().__init__()
        self.tied.weight = torch.nn.Parameter(torch.zeros(40, 40))


@pytest.mark.parametrize(("net", "warm"), [(Twice, False), (Untied, True)])
def test_another_kind_of_model_is_loaded_as_from_the_files(tmp_path, net, warm):
    first, *_ = saved(tmp_path)

    def fresh():
        model = net()
        return model, OPTIMIZERS["SGD"]([model.first.weight, *model.norm.parameters()])

    with pytest.raises(Exception, match="cannot be restored"):
        restored(tmp_path / "other", first, into=fresh(), warm=False)
    cold_model, warm_model = net(), net()
    attempt(tmp_path / "cold", first.checkpoint).attach(model=cold_model)
    following = attempt(tmp_path / "warm", first.checkpoint, first._work.kept)
    following.attach(model=warm_model)
    assert hashed(warm_model) == hashed(cold_model)
    assert following._work.warm is warm
    with torch.no_grad():
        warm_model.first.weight.zero_()
    assert (net is Twice) or bool(warm_model.tied.weight.any())


def test_a_write_of_one_value_past_torchs_counters_is_not_seen_but_may_be_declared(tmp_path):
    first, model, _ = saved(tmp_path)
    cold, _ = restored(tmp_path / "cold", first, warm=False)
    assert model.first.weight.numel() > WHOLE
    model.first.weight.data[0, 1] += 1.0
    following, (other, its) = attempt(tmp_path / "b", first.checkpoint, first._work.kept), made()
    following.attach(model=other, optimizer=its, warm=False)
    assert hashed(other, its) == cold
    first._work.kept.drop()


def test_what_one_save_kept_is_not_given_to_the_same_trial(tmp_path):
    first, model, optimizer = saved(tmp_path)
    parent, _ = restored(tmp_path / "cold", first, warm=False)
    following = attempt(tmp_path / "b", first.checkpoint, first._work.kept)
    following.attach(model=model, optimizer=optimizer)
    step(model, optimizer)
    following.save()
    following.attach(model=model, optimizer=optimizer)
    assert (hashed(model, optimizer), following._work.warm) == (parent, False)


def test_tensors_of_inference_mode_are_not_kept_and_are_saved(tmp_path):
    model = torch.nn.Module()
    with torch.inference_mode():
        model.register_buffer("counts", torch.ones(3))
    first = attempt(tmp_path / "a")
    first.attach(model=model)
    first.save()
    assert first._work.kept is None
    assert first._work.written[FILE] == Written.of(first.checkpoint / FILE)


@pytest.fixture
async def trainer(tmp_path):
    made = ChildTrainer(tmp_path / "scratch", [TASKS])
    yield made
    await made.close()


def declared(folder, **constants):
    return experiment(folder, "keeping", constants=constants)


async def chain(trainer, e, step, parent):
    return await trainer.train(e, trial(step=step, parent=parent.checkpoint if parent else None))


async def test_a_child_goes_on_from_what_it_saved_last_and_from_the_files_of_all_else(
    trainer, tmp_path
):
    e = declared(tmp_path)
    first = await chain(trainer, e, 0, None)
    second = await chain(trainer, e, 1, first)
    copy = await chain(trainer, e, 1, first)
    again = await chain(trainer, e, 2, copy)
    assert first.restored is None
    assert [x.restored.warm for x in (second, copy, again)] == [True, False, True]
    # The same trial from memory and from the files: the same result, and the same bytes.
    assert second.value == copy.value
    place = tmp_path / "checkpoints"
    files = [Written.of(place / x.checkpoint / FILE).blake3 for x in (second, copy)]
    assert files[0] == files[1]


@pytest.mark.parametrize(("after", "warm"), [("trains on", False), ("writes a file", True)])
async def test_what_a_task_does_after_it_saved_is_seen(trainer, tmp_path, after, warm):
    e = declared(tmp_path, after=after)
    first = await chain(trainer, e, 0, None)
    second = await chain(trainer, e, 1, first)
    assert second.restored.warm is warm
    copy = await chain(trainer, e, 1, first)
    assert (second.value, second.metrics) == (copy.value, copy.metrics)


async def test_a_task_whose_momentum_does_not_count_trains_without_its_parents(trainer, tmp_path):
    numbers = {"type": "float", "min": 0.0, "max": 1.0}
    e = experiment(tmp_path, "conditional", space={"x": numbers, "momentum": numbers})
    first = await trainer.train(e, trial(step=0, momentum=0.9))
    warm = await trainer.train(e, trial(step=1, parent=first.checkpoint))
    cold = await trainer.train(e, trial(step=1, parent=first.checkpoint))
    assert [x.restored.warm for x in (warm, cold)] == [True, False]
    assert [x.metrics["momentum"] for x in (first, warm, cold)] == [0.9, 0.0, 0.0]
    # Also with a schedule.
    stretches = [Stretch(0.0, 1.0, {"x": 0.5, "momentum": 0.9}), Stretch(1.0, 2.0, {"x": 0.5})]
    schedule = Schedule("e", "conditional", "loss", "minimize", "epoch", {}, stretches)
    again = await train(schedule, str(tmp_path / "checkpoints"), trainer)
    assert again.metrics["momentum"] == 0.0


async def test_another_process_starts_from_the_files(trainer, tmp_path):
    e = declared(tmp_path)
    first = await chain(trainer, e, 0, None)
    await trainer.close()
    second = await chain(trainer, e, 1, first)
    assert second.restored.warm is False


async def test_a_parent_that_is_gone_is_lost_though_its_tensors_are_there(trainer, tmp_path):
    e = declared(tmp_path)
    first = await chain(trainer, e, 0, None)
    await trainer.discard(e, first.checkpoint)
    ending = await chain(trainer, e, 1, first)
    assert isinstance(ending, Failure)
    assert ending.reason == "lost_parent"


def damage(file: Path, *, secretly):
    """Change a byte in the middle of a file; `secretly` keeps its modification time."""
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    if secretly:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("after", "secretly"),
    [
        pytest.param({}, False, id="its-time-of-change-shows-it"),
        pytest.param({"after": "reads its parent"}, True, id="the-task-asks-for-the-files"),
    ],
)
async def test_damage_is_noticed_before_a_task_reads_it(trainer, tmp_path, after, secretly):
    e = declared(tmp_path, **after)
    first = await chain(trainer, e, 0, None)
    damage(tmp_path / "checkpoints" / first.checkpoint / FILE, secretly=secretly)
    ending = await chain(trainer, e, 1, first)
    assert isinstance(ending, Failure)
    assert (ending.reason, "damaged" in ending.message) == ("lost_parent", True)


async def test_damage_is_noticed_where_a_write_makes_the_restore_read_the_files(trainer, tmp_path):
    e = declared(tmp_path, after="trains on")
    first = await chain(trainer, e, 0, None)
    damage(tmp_path / "checkpoints" / first.checkpoint / FILE, secretly=True)
    ending = await chain(trainer, e, 1, first)
    assert isinstance(ending, Failure)
    assert ending.reason == "lost_parent"


def test_numpy_numbers_in_a_group_come_back_as_a_file_gives_them(tmp_path):
    first, _, optimizer = saved(tmp_path)
    optimizer.param_groups[0]["lr"] = np.float64(0.5)
    (tmp_path / "c").mkdir()
    first.checkpoint = tmp_path / "c"
    first.save()
    cold, _ = restored(tmp_path / "cold", first, warm=False)
    assert restored(tmp_path / "warm", first) == (cold, True)
