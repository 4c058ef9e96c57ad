"""Warm restores use tensors in memory only if these are what was saved."""

import numpy as np
import pytest
import torch
from blake3 import blake3

from romul_workers.checkpoints.hashing import Written
from romul_workers.tensors.kept import WHOLE
from romul_workers.torch_support import FILE
from tests.unit.test_torch_support import trial


def attempt(folder, parent=None, kept=None):
    folder.mkdir()
    made = trial(folder, parent, learning_rate=0.25)
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


def test_numpy_numbers_in_a_group_come_back_as_a_file_gives_them(tmp_path):
    first, _, optimizer = saved(tmp_path)
    optimizer.param_groups[0]["lr"] = np.float64(0.5)
    (tmp_path / "c").mkdir()
    first.checkpoint = tmp_path / "c"
    first.save()
    cold, _ = restored(tmp_path / "cold", first, warm=False)
    assert restored(tmp_path / "warm", first) == (cold, True)
