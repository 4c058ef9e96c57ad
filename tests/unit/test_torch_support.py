"""`trial.attach`: restore, apply, read back."""

import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from romul_actors.errors import CheckpointError, TaskError
from romul_workers.checkpoints.storage import Checkpoints
from romul_workers.child.loop import _seed
from romul_workers.child.trainer import ChildTrainer
from romul_workers.schedule import Schedule, Stretch
from romul_workers.tasks import digits
from romul_workers.tensors import optimizer_fields
from romul_workers.tensors.version import NEEDED, check_torch
from romul_workers.torch_support import FILE, apply_schedule, load, load_model
from romul_workers.trainer import Failure
from romul_workers.trial import Context, Paused, Trial
from tests.pages import page_code
from tests.unit.test_trainer import experiment
from tests.unit.test_trainer import trial as message


def trial(folder, parent=None, **hyperparameters):
    checkpoint = Path(folder)
    checkpoint.mkdir(exist_ok=True)
    return Trial(
        id="0-1",
        hyperparameters=hyperparameters,
        parent=parent,
        checkpoint=checkpoint,
        start=0.0,
        stop=1.0,
        seed=0,
        step=0,
        context=Context("e", "cpu", {}),
    )


def made(lr=0.5, kind=torch.optim.SGD, **more):
    model = torch.nn.Linear(2, 1)
    return model, kind(model.parameters(), lr=lr, **more)


def trained(folder, lr=0.5, kind=torch.optim.SGD, **more):
    """A checkpoint's folder, and the model that was saved."""
    model, optimizer = made(lr, kind, **more)
    first = trial(folder, learning_rate=lr)
    first.attach(model=model, optimizer=optimizer)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    first.save()
    return first.checkpoint, model


def test_the_asked_learning_rate_wins_over_the_restored_one(tmp_path):
    parent, before = trained(tmp_path / "a", lr=0.5, momentum=0.9)
    model, optimizer = made(lr=0.25, momentum=0.1)
    second = trial(tmp_path / "b", parent, learning_rate=0.125, momentum=0.3)
    second.attach(model=model, optimizer=optimizer)
    [group] = optimizer.param_groups
    assert (group["lr"], group["momentum"]) == (0.125, 0.3)
    assert second._work.in_effect == {"learning_rate": 0.125, "momentum": 0.3}
    assert torch.equal(model.weight, before.weight)
    assert optimizer.state_dict()["state"][0]["momentum_buffer"] is not None


def test_entries_of_groups_are_the_parents_and_another_model_is_refused(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD([{"params": model.parameters(), "theirs": 1}], lr=0.5)
    first = trial(tmp_path / "a")
    first.attach(model=model, optimizer=optimizer)
    first.save()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD([{"params": model.parameters(), "ours": 2}], lr=0.5)
    trial(tmp_path / "b", first.checkpoint).attach(model=model, optimizer=optimizer)
    [group] = optimizer.param_groups
    assert group["theirs"] == 1
    assert "ours" not in group
    other = torch.nn.Linear(2, 1, bias=False)
    with pytest.raises(CheckpointError, match=r'Unexpected key\(s\) in state_dict: "bias"'):
        trial(tmp_path / "c", first.checkpoint).attach(model=other)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_scheduler_made_after_the_restore_begins_at_the_asked_learning_rate(tmp_path, kind):
    steps = []
    for name, lr, parent in (("a", 0.5, None), ("b", 0.125, tmp_path / "a")):
        model, optimizer = made(lr=kind(1.0))
        step = trial(tmp_path / name, parent, lr=lr)
        step.attach(model=model, optimizer=optimizer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        steps.append((float(optimizer.param_groups[0]["lr"]), *map(float, scheduler.base_lrs)))
        step.save()
    assert steps == [(0.5, 0.5), (0.125, 0.125)]


def test_the_schedule_of_the_page_goes_on_from_trial_to_trial_and_after_a_pause(tmp_path):
    updates, rates, expected = 4, [], []
    spans = [(0, 1, 0.5), (1, 1.5, 0.25), (1.5, 2, 0.25), (2, 3, 1.0)]
    for number, (start, stop, lr) in enumerate(spans):
        model, optimizer = made(lr=9.0)
        parent = tmp_path / str(number - 1) if number else None
        one = trial(tmp_path / str(number), parent, learning_rate=lr)
        one.start, one.stop, one.resumed = start, stop, start == 1.5
        known: dict[str, Any] = {"trial": one, "model": model, "optimizer": optimizer}
        known |= {"torch": torch, "updates": updates, "factor": lambda at: 1.0 / (1.0 + at)}
        exec(page_code("frameworks.md", "A learning rate schedule"), known)
        for at in range(round(start * updates), round(stop * updates)):
            rates.append(optimizer.param_groups[0]["lr"])
            expected.append(lr / (1.0 + at))
            optimizer.step()
            known["scheduler"].step()
        one.save()
    assert rates == expected


def test_a_scheduler_made_before_the_restore_goes_on_as_its_kind_does(tmp_path):
    parent, _ = trained(tmp_path / "a", lr=0.5)
    schedulers = torch.optim.lr_scheduler
    for make, rate in (
        (lambda optimizer: schedulers.LambdaLR(optimizer, lambda _: 0.5), 4.0),
        (lambda optimizer: schedulers.ExponentialLR(optimizer, 0.5), 0.0625),
        (lambda optimizer: schedulers.StepLR(optimizer, 1, 0.5), 0.0625),
    ):
        model, optimizer = made(lr=8.0)
        scheduler = make(optimizer)
        trial(tmp_path / "b", parent, lr=0.125).attach(model=model, optimizer=optimizer)
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == rate
    with pytest.raises(KeyError, match="initial_lr"):
        schedulers.ExponentialLR(made()[1], 0.5, last_epoch=0)


def test_what_else_was_saved_is_read_back_as_the_page_says(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel
    before: dict[str, Any] = {}
    for number, name in enumerate("ab"):
        model, optimizer = made()
        ema, (_, second) = averaged(model), made(lr=9.0, momentum=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=float(2**number))
        if not before:
            for weight in second.param_groups[0]["params"]:
                weight.grad = torch.ones_like(weight)
            second.step()
            ema.update_parameters(torch.nn.Linear(2, 1))
        parent = before["trial"].checkpoint if before else None
        one = trial(tmp_path / name, parent, second_lr=0.25 * (number + 1))
        known = {"trial": one, "model": model, "optimizer": optimizer, "ema": ema}
        known |= {"scaler": scaler, "second": second}
        exec(page_code("tasks.md", "With torch", 2), known)
        assert second.param_groups[0]["lr"] == one.hyperparameters["second_lr"]
        assert scaler.get_scale() == 1.0
        before = before or known
    for key, tensor in before["ema"].state_dict().items():
        assert torch.equal(ema.state_dict()[key], tensor)
    assert not torch.equal(ema.state_dict()["module.weight"], model.weight)
    old, new = (known["second"].state_dict()["state"][0] for known in (before, known))
    assert torch.equal(old["momentum_buffer"], new["momentum_buffer"])
    # Steps that write to what was read leave the parent's file as it was.
    file = (tmp_path / "a" / FILE).read_bytes()
    for weight in second.param_groups[0]["params"]:
        weight.grad = torch.ones_like(weight)
    second.step()
    assert not torch.equal(old["momentum_buffer"], new["momentum_buffer"])
    assert (tmp_path / "a" / FILE).read_bytes() == file


def test_a_learning_rate_kept_in_a_tensor_is_written_too(tmp_path):
    model, optimizer = made(torch.tensor(0.5), torch.optim.Adam, capturable=False, foreach=False)
    first = trial(tmp_path / "a", learning_rate=0.25)
    first.attach(model=model, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"].item() == 0.25
    assert first._work.in_effect == {"learning_rate": 0.25}


class Stubborn(dict[str, Any]):
    """A parameter group that keeps its own learning rate."""

    def __setitem__(self, key, value):
        super().__setitem__(key, 9.0 if key == "lr" else value)


def test_a_value_that_does_not_take_effect_is_an_error_that_names_it(tmp_path):
    model, optimizer = made()
    optimizer.param_groups[0] = Stubborn(optimizer.param_groups[0])
    first = trial(tmp_path / "a", learning_rate=0.25)
    with pytest.raises(TaskError, match=r"rate: 0\.25 was requested, but 9\.0 is in effect"):
        first.attach(model=model, optimizer=optimizer)


def test_other_names_are_mapped_and_a_wrong_one_is_an_error(tmp_path):
    model, optimizer = made()
    first = trial(tmp_path / "a", step_size=0.25)
    first.attach(model=model, optimizer=optimizer, names={"step_size": "lr"})
    assert optimizer.param_groups[0]["lr"] == 0.25
    with pytest.raises(TaskError, match="step_size: the optimizer has no field 'rate'"):
        first.attach(model=model, optimizer=optimizer, names={"step_size": "rate"})


def test_a_name_in_the_optimizers_table_goes_by_its_last_part(tmp_path, caplog):
    model, optimizer = made()
    values = {"optimizer.lr": 0.25, "optimizer.step.momentum": 0.3, "bn.weight_decay": 0.1}
    first = trial(tmp_path / "a", **values)
    first.attach(model=model, optimizer=optimizer)
    [group] = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.25, 0.3, 0.0)
    assert first._work.in_effect == {"optimizer.lr": 0.25, "optimizer.step.momentum": 0.3}
    [said] = caplog.messages
    assert said.startswith("bn.weight_decay is not written to the optimizer's 'weight_decay'")
    caplog.clear()
    first.attach(model=model, optimizer=optimizer, names={"bn.weight_decay": None})
    assert not caplog.messages
    for values in ({"opt.learning_rate": 0.125}, {"a.rate": 0.125}, {"a.momentum": 0.125}):
        [name] = values
        other = trial(tmp_path / "b", **values)
        other.attach(model=model, optimizer=optimizer, names={"rate": "lr", "a.momentum": "lr"})
        assert other._work.in_effect == {name: 0.125}
        assert (group["lr"], group["momentum"]) == (0.125, 0.3)
        group["lr"] = 0.25


def test_groups_made_with_values_of_their_own_get_one_value_with_a_warning(tmp_path, caplog):
    for number, code in enumerate(("trial.attach(model=model, optimizer=optimizer)", None)):
        model = torch.nn.Linear(2, 1)
        groups: list[dict[str, Any]] = [{"params": [model.weight]}]
        groups.append({"params": [model.bias], "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)
        first = trial(tmp_path / str(number), weight_decay=0.25, lr=0.5)
        known = {"trial": first, "model": model, "optimizer": optimizer}
        exec(code or page_code("tasks.md", "With torch"), known)
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
        if code:
            assert decays == [0.25, 0.25]
            [said] = caplog.messages
            assert said.startswith("weight_decay is written to all 2 parameter groups")
            assert "(0.01, 0.0)" in said
            caplog.clear()
        else:
            assert (decays, caplog.messages) == ([0.25, 0.0], [])


@pytest.mark.parametrize("warm", [False, True])
def test_a_field_of_the_parents_is_named_once_unless_it_is_set_after_the_restore(
    tmp_path, caplog, monkeypatch, warm
):
    monkeypatch.setattr(optimizer_fields, "_said", set())
    caplog.set_level("WARNING", "romul.task")
    asked = {"beta1": 0.5, "lr": 0.5}
    kept = None
    for number, (beta1, code) in enumerate(
        ((0.75, ""), (0.5, page_code("tasks.md", "With torch", 1)), (0.75, ""), (0.75, ""))
    ):
        model, optimizer = made(lr=1.0 + number, kind=torch.optim.AdamW, betas=(beta1, 0.999))
        parent = tmp_path / str(number - 1) if number else None
        one = trial(tmp_path / str(number), parent, **asked)
        one._work.parent_kept = kept if warm else None
        one.attach(model=model, optimizer=optimizer)
        exec(code, {"trial": one, "optimizer": optimizer})
        one.save()
        kept = one._work.kept
        betas = tuple(load(one.checkpoint)["optimizer"]["param_groups"][0]["betas"])
        assert betas == (0.75 if number == 0 else 0.5, 0.999)
        # The second one set it, the third one trained with its parent's, the fourth one as well.
        assert len(caplog.messages) == (number >= 2)
    assert caplog.messages[0].startswith("the optimizer's 'betas' was the parent's")


class Remembering(torch.optim.SGD):
    """Keeps state in its parameter groups, as schedule-free optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["highest"] = max(group["lr"], group["highest"])
        return super().step(closure)

    def add_param_group(self, param_group):
        super().add_param_group({"highest": -1.0, **param_group})


def test_what_an_optimizer_keeps_in_its_groups_is_the_parents_without_a_warning(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(optimizer_fields, "_said", set())
    for number in range(2):
        model, optimizer = made(lr=1.0, kind=Remembering)
        one = trial(tmp_path / str(number), tmp_path / "0" if number else None, lr=0.5 - number / 4)
        one.attach(model=model, optimizer=optimizer)
        optimizer.step()
        one.save()
        assert optimizer.param_groups[0]["highest"] == 0.5
    assert caplog.messages == []


def test_digits_trains_with_the_constants_of_its_own_search(tmp_path):
    values: dict[str, Any] = {"dropout": 0.0, "label_smoothing": 0.0, "input_noise": 0.0}
    values |= {"noise_kind": "gaussian", "shift": 0, "momentum": 0.5}
    parent = None
    for rate, decay in ((0.125, 0.25), (0.0625, 0.0)):
        context = Context("e", "cpu", {"learning_rate": rate, "weight_decay": decay})
        one = trial(tmp_path / str(decay), parent, **values)
        one.context, one.state = context, digits.setup(context)
        digits.train(one)
        parent = one.checkpoint
        [group] = load(parent)["optimizer"]["param_groups"]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (rate, 0.5, decay)


def test_two_hyperparameters_for_one_field_are_an_error_until_one_of_them_sets_none(tmp_path):
    model, optimizer = made()
    first = trial(tmp_path / "a", momentum=0.5, **{"optim.momentum": 0.99})
    both = "momentum and optim.momentum would both set the optimizer's 'momentum'"
    with pytest.raises(TaskError, match=both):
        first.attach(model=model, optimizer=optimizer)
    first.attach(model=model, optimizer=optimizer, names={"optim.momentum": None})
    assert first._work.in_effect == {"momentum": 0.5}
    assert optimizer.param_groups[0]["momentum"] == 0.5
    schedule = Schedule(
        "e", "t", "l", "minimize", "epoch", {}, [Stretch(0.0, 1.0, {"lr": 0.1, "learning_rate": 1})]
    )
    with pytest.raises(TaskError, match="lr and learning_rate would both set"):
        apply_schedule(schedule, optimizer, 0)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_field_whose_hyperparameter_does_not_count_is_as_the_optimizer_was_made(tmp_path, kind):
    parent, _ = trained(tmp_path / "a", lr=kind(0.5), momentum=0.9, weight_decay=0.25)
    model, optimizer = made(lr=kind(0.125), momentum=0.0, weight_decay=0.0)
    second = trial(tmp_path / "b", parent)
    # Only one of the two momenta is active at a time.
    second.hyperparameters = {"opt.heavy.momentum": 0.75}
    second._absent = ["opt.light.momentum", "opt.lr"]
    second.attach(model=model, optimizer=optimizer)
    [group] = optimizer.param_groups
    assert (float(group["lr"]), group["momentum"]) == (0.125, 0.75)
    # This field belongs to no hyperparameter, so the parent's value is kept.
    assert group["weight_decay"] == 0.25
    assert second._work.in_effect == {"opt.heavy.momentum": 0.75}


def test_a_learning_rate_that_does_not_count_leaves_schedulers_as_they_were_made(tmp_path):
    def warm_up(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 4)

    model, optimizer = made(lr=1.0)
    first = trial(tmp_path / "a", lr=1.0)
    first.attach(model=model, optimizer=optimizer)
    warm_up(optimizer)
    first.save()
    for scheduled_before in (False, True):
        model, optimizer = made(lr=0.5)
        scheduler = warm_up(optimizer) if scheduled_before else None
        second = trial(tmp_path / "b", first.checkpoint)
        second._absent = ["lr"]
        second.attach(model=model, optimizer=optimizer)
        scheduler = scheduler or warm_up(optimizer)
        [group] = optimizer.param_groups
        assert (group["lr"], group["initial_lr"], scheduler.base_lrs) == (0.125, 0.5, [0.5])
        optimizer.step()
        scheduler.step()
        assert group["lr"] == 0.25


@pytest.mark.parametrize("warm", [False, True])
def test_an_optimizer_of_another_class_begins_with_an_empty_state_and_a_warning(
    tmp_path, caplog, warm
):
    model, optimizer = made(momentum=0.9)
    first = trial(tmp_path / "a", lr=0.5)
    first.attach(model=model, optimizer=optimizer)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    first.save()
    other, adam = made(lr=0.1, kind=torch.optim.Adam)
    second = trial(tmp_path / "b", first.checkpoint, lr=0.25)
    second._work.parent_kept = first._work.kept if warm else None
    second.attach(model=other, optimizer=adam)
    assert second._work.warm is warm
    assert torch.equal(other.weight, model.weight)
    assert not adam.state
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["betas"]) == (0.25, (0.9, 0.999))
    [warning] = caplog.messages
    assert "the parent's optimizer was SGD and this trial's is Adam" in warning
    assert "mutable = false" in warning
    other(torch.ones(1, 2)).sum().backward()
    adam.step()
    second.save()
    third, its = made(kind=torch.optim.Adam)
    trial(tmp_path / "c", second.checkpoint).attach(model=third, optimizer=its)
    assert float(its.state[third.weight]["step"]) == 1.0
    assert len(caplog.messages) == 1


def test_a_parent_of_another_shape_is_an_error(tmp_path):
    parent, _ = trained(tmp_path / "a")
    other = torch.nn.Linear(3, 1)
    with pytest.raises(CheckpointError, match="cannot be restored"):
        trial(tmp_path / "b", parent).attach(model=other)


def test_no_torch_is_taken_whose_loading_of_weights_alone_runs_code():
    """CVE-2025-32434, which torch 2.6 fixed."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    needed = project["project"]["optional-dependencies"]["torch"]
    [least] = [text.removeprefix("torch>=") for text in needed if text.startswith("torch>=")]
    assert tuple(map(int, least.split("."))) >= (2, 6)


def test_a_checkpoint_is_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    folder = tmp_path / "a"
    folder.mkdir()
    torch.save({"model": Evil()}, folder / "torch.pt")
    with pytest.raises(CheckpointError, match="cannot be restored"):
        load_model(folder, torch.nn.Linear(2, 1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_checkpoint_is_not_taken_for_the_best_model(tmp_path, missing):
    checkpoints = Checkpoints(str(tmp_path / "checkpoints"), tmp_path / "scratch")
    folder, model = trained(checkpoints.begin("0-0-1-ab"))
    checkpoints.publish(folder, "0-0-1-ab")
    place = tmp_path / "checkpoints" / "0-0-1-ab"
    load_model(place, torch.nn.Linear(2, 1))
    state = place / FILE
    weights = bytearray(state.read_bytes())
    weights[-1] ^= 1
    state.chmod(0o644)
    state.unlink()
    if not missing:
        state.write_bytes(weights)
    with pytest.raises(CheckpointError, match="of another length" if missing else "is damaged"):
        load_model(place, model)


def test_a_checkpoint_that_was_written_in_another_way_is_no_saved_model(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"trial\.save\(\) did not write it"):
        load_model(tmp_path, torch.nn.Linear(2, 1))
    with pytest.raises(CheckpointError, match="gone does not exist"):
        load_model(tmp_path / "gone", torch.nn.Linear(2, 1))


def test_saving_without_attaching_is_an_error(tmp_path):
    with pytest.raises(TaskError, match=r"trial\.save\(\) before trial\.attach\(\)"):
        trial(tmp_path / "a").save()


def test_a_checkpoint_without_a_model_is_no_model(tmp_path):
    first, (_, optimizer) = trial(tmp_path / "a"), made()
    first.attach(optimizer=optimizer)
    first.save()
    with pytest.raises(CheckpointError, match="cannot be restored"):
        load_model(first.checkpoint, torch.nn.Linear(2, 1))


def test_a_saved_model_is_loaded_to_be_used(tmp_path):
    folder, model = trained(tmp_path / "a")
    other = torch.nn.Linear(2, 1)
    load_model(folder, other)
    assert torch.equal(other.weight, model.weight)


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(
    "wrappers", [[compiled], [torch.nn.DataParallel], [compiled, torch.nn.DataParallel]]
)
def test_a_compiled_or_parallel_model_is_loaded_as_a_plain_one_and_the_other_way_round(
    tmp_path, wrappers
):
    def wrapped(model):
        for wrapper in wrappers:
            model = wrapper(model)
        return model

    first, plain = trial(tmp_path / "a"), torch.nn.Linear(2, 1)
    first.attach(model=wrapped(plain))
    first.save()
    other = torch.nn.Linear(2, 1)
    load_model(first.checkpoint, other)
    assert torch.equal(other.weight, plain.weight)
    folder, model = trained(tmp_path / "b")
    load_model(folder, wrapped(other))
    assert torch.equal(other.weight, model.weight)


def test_the_tensors_of_a_submodule_named_module_keep_their_names(tmp_path):
    first, inner, other = trial(tmp_path / "a"), torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    first.attach(model=torch.nn.ModuleDict({"module": inner}))
    first.save()
    load_model(first.checkpoint, torch.nn.ModuleDict({"module": other}))
    assert torch.equal(other.weight, inner.weight)


class _AfterOneEpoch:
    """Asks a trial to stop at the second query."""

    def __init__(self):
        self.asked = 0

    def is_set(self):
        self.asked += 1
        return True


def test_a_digits_trial_cut_short_ends_as_if_it_never_had_been(tmp_path):
    values = {
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "dropout": 0.3,
        "label_smoothing": 0.0,
        "input_noise": 0.2,
        "noise_kind": "gaussian",
        "shift": 1,
    }
    context = Context("e", "cpu", {})
    data = digits.setup(context)

    def step(name, *, parent=None, start=0.0, resumed=False, **more):
        (tmp_path / name).mkdir()
        made = Trial(
            id="0-0",
            hyperparameters=values,
            parent=parent,
            checkpoint=tmp_path / name,
            start=start,
            stop=3.0,
            seed=7,
            step=0,
            context=context,
            state=data,
            resumed=resumed,
            **more,
        )
        _seed(made.seed)
        return digits.train(made)

    whole = step("whole")
    paused = step("part", _stopping=_AfterOneEpoch())
    assert paused == Paused(1.0)
    rest = step("rest", parent=tmp_path / "part", start=paused.at, resumed=True)
    assert rest == whole
    # Without the random state the training would differ.
    assert step("other", parent=tmp_path / "part", start=paused.at) != whole
    # Asked to stop after the last epoch, it is not cut short: all is trained.
    last = _AfterOneEpoch()
    assert step("last", parent=tmp_path / "part", start=2.0, _stopping=last)
    assert not last.asked


def test_the_pause_of_the_page_keeps_a_trial_that_is_through(tmp_path):
    loop = page_code("tasks.md", "Cut short, and gone on with")
    recipe: dict[str, Any] = {}
    exec("def train(trial):\n" + textwrap.indent(loop, "    ") + "    return 1.0", recipe)
    for stop, ends in ((1.0, 1.0), (2.0, Paused(1.0))):
        one = trial(tmp_path / str(stop))
        one.start, one.stop = 0, int(stop)
        one.attach(model=torch.nn.Linear(2, 1))
        one._stopping.set()
        assert recipe["train"](one) == ends
        assert one.cut_short is isinstance(ends, Paused)


def test_a_schedule_is_written_into_an_optimizer_of_ones_own():
    stretches = [
        Stretch(0.0, 2.0, {"learning_rate": 0.5, "momentum": 0.1, "dropout": 0.3}),
        Stretch(2.0, 4.0, {"learning_rate": 0.25, "momentum": 0.9, "dropout": 0.1}),
    ]
    schedule = Schedule("e", "t", "loss", "minimize", "epoch", {}, stretches)
    _, optimizer = made(lr=1.0, momentum=0.0)
    for epoch, rate, momentum, dropout in (
        (0, 0.5, 0.1, 0.3),
        (1, 0.5, 0.1, 0.3),
        (2, 0.25, 0.9, 0.1),
        (9, 0.25, 0.9, 0.1),
    ):
        values = apply_schedule(schedule, optimizer, epoch)
        [group] = optimizer.param_groups
        assert (group["lr"], group["momentum"], values["dropout"]) == (rate, momentum, dropout)
    capturable = torch.optim.Adam(made()[0].parameters(), lr=torch.tensor(1.0), capturable=True)
    apply_schedule(schedule, capturable, 3)
    assert float(capturable.param_groups[0]["lr"]) == 0.25
    wrong = Schedule("e", "t", "l", "minimize", "epoch", {}, [Stretch(0.0, 1.0, {"rate": 0.1})])
    with pytest.raises(TaskError, match="no field"):
        apply_schedule(wrong, optimizer, 0, {"rate": "learning_speed"})


def test_a_checkpoint_of_an_older_version_is_restored(tmp_path):
    folder, model = trained(tmp_path / "a")
    content = load(folder)
    (folder / "state.safetensors").unlink()
    torch.save(content, folder / "torch.pt")
    other = torch.nn.Linear(2, 1)
    load_model(folder, other)
    assert torch.equal(other.weight, model.weight)


def test_a_second_save_takes_the_place_of_the_first(tmp_path):
    folder, model = trained(tmp_path / "a")
    following = trial(tmp_path / "b", folder)
    following.attach(model=model)
    following.save(place=1)
    first = following._work.written["state.safetensors"]
    following.save(place=2)
    assert load(following.checkpoint)["extra"] == {"place": 2}
    assert following._work.written["state.safetensors"] != first


def test_a_torch_older_than_the_declared_one_is_refused():
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    least = ".".join(map(str, NEEDED))
    assert f"torch>={least}" in declared["project"]["optional-dependencies"]["torch"]
    for version in (f"{least}.0+cu124", "2.13.0a0+git1", "3.0", "unknown"):
        check_torch(version)
    for version in ("2.5.1", "2.5.1+cu124", "1.13.1"):
        with pytest.raises(TaskError, match=f"is too old: checkpoints need {least} or later"):
            check_torch(version)


async def test_a_task_with_a_torch_that_is_too_old_is_refused_at_the_first_trial(tmp_path):
    (tmp_path / "old.py").write_text(
        "import torch\n"
        'torch.__version__ = "2.5.1+cu124"\n'
        "def train(trial):\n"
        "    trial.attach(model=torch.nn.Linear(1, 1))\n"
        "    return 1.0\n"
    )
    trainer = ChildTrainer(tmp_path / "scratch", [tmp_path])
    failed = await trainer.train(experiment(tmp_path, "old"), message())
    await trainer.close()
    assert isinstance(failed, Failure)
    assert "torch 2.5.1+cu124 is too old: checkpoints need 2.6 or later" in failed.message
