"""The Penn Treebank task, on small files in the format of the real ones."""

import math
import os
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from romul.result import Best
from romul_actors.errors import CheckpointError, TaskError
from romul_actors.protocol.experiment import parse
from romul_workers.child.loop import _seed
from romul_workers.tasks import ptb
from romul_workers.tasks.ptb_data import FILES, STANDARD, data_folder, read_corpus
from romul_workers.tasks.ptb_model import (
    LanguageModel,
    Settings,
    evaluate,
    locked_dropout,
    streams,
)
from romul_workers.tasks.ptb_training import Training
from romul_workers.tensors import file as tensor_file
from romul_workers.torch_support import FILE, Attached, load
from romul_workers.trial import Context, Paused, Trial
from tests.pages import page_code

ROOT = Path(__file__).parents[2]
UNUSUAL = "in place of"
BARE = Settings(
    learning_rate=1.0,
    weight_decay=0.0,
    embedding_dropout=0.0,
    input_dropout=0.0,
    hidden_dropout=0.0,
    output_dropout=0.0,
    weight_drop=0.0,
    ar=0.0,
    tar=0.0,
    bptt=8,
    hidden=10,
    embedding=6,
    batch=4,
)


def write(folder, lines=200):
    """Sentences of one grammar: who, does, what, once or more."""
    folder.mkdir(exist_ok=True)
    drawn = random.Random(0)
    for part, n in (("train", lines), ("valid", lines // 8), ("test", lines // 8)):
        text = [
            " the".join(
                f" {drawn.choice(('<unk>', 'bank', 'board'))} {drawn.choice(('buys', 'sells'))} N"
                for _ in range(drawn.randint(1, 3))
            )
            for _ in range(n)
        ]
        (folder / FILES[part]).write_text("".join(f"{line} \n" for line in text))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "ptb")


@pytest.fixture
def corpus(folder):
    with pytest.warns(UserWarning, match=UNUSUAL):
        return read_corpus(folder)


def training(corpus, settings=BARE):
    torch.manual_seed(3)
    model = LanguageModel(len(corpus.vocabulary), settings)
    return Training(model, Training.new_optimizer(model), corpus.train)


# The files.


def test_each_end_of_a_line_is_a_word_and_numbers_go_by_frequency(tmp_path):
    for name in FILES.values():
        (tmp_path / name).write_bytes(b" b a b \r\n b \n")
    with pytest.warns(UserWarning, match=UNUSUAL) as found:
        read = read_corpus(tmp_path)
    assert read.vocabulary == ("b", "<eos>", "a")
    assert [read.vocabulary[i] for i in read.train] == ["b", "a", "b", "<eos>", "b", "<eos>"]
    [line] = found
    for n in STANDARD.values():
        assert f"has 6 words in place of {n:,}" in str(line.message)
    assert "vocabulary has 3 in place of 10,000" in str(line.message)


def test_a_part_of_the_text_keeps_the_whole_vocabulary(folder, corpus):
    with pytest.warns(UserWarning, match=UNUSUAL):
        part = read_corpus(folder, {"train": 5, "valid": 3, "test": 0})
    assert part.vocabulary == corpus.vocabulary
    assert torch.equal(part.train, corpus.train[:5])
    assert torch.equal(part.valid, corpus.valid[:3])
    assert torch.equal(part.test, corpus.test)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes): copy it again"),
        (b" \n \n", "is empty (4 bytes)"),
        (b"\x1f\x8b\x08\0\0", "is binary: is it packed"),
        ("the bank\n".encode("utf-16"), "is binary: is it packed, or UTF-16"),
        ("the caf\xe9\n".encode("latin-1"), "is not UTF-8 at byte 7"),
        (b"the bank\n the boa", "ends inside a line, after 'boa': it was cut off"),
        (b"the bank <eos>\n", "line 1: holds <eos> already"),
    ],
)
@pytest.mark.parametrize("part", FILES)
def test_a_file_that_is_no_such_text_is_named_with_what_to_do(folder, part, content, message):
    (folder / FILES[part]).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_corpus(folder)
    assert str(folder / FILES[part]) in str(error.value)
    assert message in str(error.value)
    assert "UTF-8 text, one sentence a line" in str(error.value)
    assert f"{STANDARD[part]:,} words" in str(error.value)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_words_that_training_lacks_are_named(folder, part):
    (folder / FILES[part]).write_text("the bank buys " + " ".join(f"w{i}" for i in range(9)) + "\n")
    with pytest.raises(ValueError, match="9 words are not among the") as error:
        read_corpus(folder)
    assert FILES[part] in str(error.value)
    assert "'w0', 'w1', 'w2', 'w3', 'w4' ...)" in str(error.value)
    assert "same preprocessed set" in str(error.value)


def test_a_missing_file_is_named_with_all_that_are_expected(folder):
    (folder / FILES["valid"]).rename(folder / "valid.txt")
    with pytest.raises(FileNotFoundError) as error:
        read_corpus(folder)
    output = str(error.value)
    assert f"{folder / FILES['valid']} is missing" in output
    assert "ptb.train.txt (929,589 words)" in output
    assert "holds ptb.test.txt, ptb.train.txt, valid.txt" in output


def test_the_folder_comes_from_the_experiment_or_else_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("ROMUL_PTB", raising=False)
    with pytest.raises(FileNotFoundError, match=r"set the constant `data`.*or.*ROMUL_PTB"):
        data_folder("")
    monkeypatch.setenv("ROMUL_PTB", str(tmp_path))
    assert data_folder("") == tmp_path
    (tmp_path / "other").mkdir()
    assert data_folder(str(tmp_path / "other")) == tmp_path / "other"
    with pytest.raises(FileNotFoundError, match="named by the constant `data`, is no folder"):
        data_folder(str(tmp_path / "never"))
    monkeypatch.setenv("ROMUL_PTB", str(tmp_path / "never"))
    with pytest.raises(FileNotFoundError, match="named by ROMUL_PTB, is no folder"):
        data_folder("")


# The network.


def test_streams_are_the_text_in_order_with_each_next_word():
    words, targets = streams(torch.arange(12), 3)
    assert words.t().tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert torch.equal(targets, words + 1)
    with pytest.raises(ValueError, match="3 words cannot be cut into 3 streams"):
        streams(torch.arange(3), 3)


@pytest.mark.parametrize("batch", [1, 4, 7, 1000])
def test_every_word_but_the_first_is_evaluated_once(corpus, batch):
    model = training(corpus).model
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.bias.normal_()
    wanted = functional.cross_entropy(
        model.bias.detach().expand(len(corpus.test) - 1, -1), corpus.test[1:]
    )
    assert evaluate(model, corpus.test, batch) == pytest.approx(wanted.item(), rel=1e-5)


def test_evaluation_in_parts_goes_on_with_the_state(corpus):
    model = training(corpus).model
    text = corpus.train[:400]
    with torch.no_grad():
        outputs, _, _ = model.eval()(text[:-1, None], model.start(1))
        whole = functional.cross_entropy(model.logits(outputs), text[1:]).item()
    assert evaluate(model, text, 1) == pytest.approx(whole, rel=1e-5)


def test_embedding_and_output_are_one_matrix():
    model = LanguageModel(50, BARE)
    lstm = 4 * 10 * (6 + 10 + 2) + 4 * 6 * (10 + 6 + 2)
    assert sum(weight.numel() for weight in model.parameters()) == 50 * 6 + 50 + lstm


def test_weights_in_one_piece_are_in_the_order_that_lstms_want(corpus):
    """A drop rate so low that no weight is dropped must change nothing."""
    model = training(corpus).model.train()
    words = corpus.train[:40].view(10, 4)
    without, _, _ = model(words, model.start(4))
    model.settings = Settings.of({**vars(BARE), "weight_drop": 1e-9})
    pieces, _, _ = model(words, model.start(4))
    torch.testing.assert_close(pieces, without)


def test_dropped_weights_are_between_hidden_units_only_and_learn_nothing(corpus):
    started = training(corpus, Settings.of({**vars(BARE), "weight_drop": 0.5}))
    words = corpus.train[:80].view(20, 4)
    loss, _ = started.model.loss(words, words, started.model.start(4))
    loss.backward()
    for layer in started.model.layers:
        still = (layer.weight_hh_l0.grad == 0).double().mean()
        assert 0.25 < still < 0.75
        assert (layer.weight_ih_l0.grad != 0).all()
    started.model.eval()
    one, other = (started.model(words, started.model.start(4))[0] for _ in range(2))
    assert torch.equal(one, other)


def test_a_locked_mask_is_the_same_at_each_word():
    torch.manual_seed(0)
    dropped = locked_dropout(torch.ones(5, 3, 40), 0.5, training=True)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:1].expand(5, 3, 40))
    assert not torch.equal(dropped[0, 0], dropped[0, 1])
    assert torch.equal(locked_dropout(dropped, 0.5, training=False), dropped)


def test_embedding_dropout_takes_whole_words_wherever_they_stand():
    torch.manual_seed(0)
    model = LanguageModel(40, Settings.of({**vars(BARE), "embedding_dropout": 0.5}))
    words = torch.arange(40).repeat(2).view(20, 4)
    rows = model._embed(words).view(2, 40, 6)
    assert torch.equal(rows[0], rows[1])
    kept = (rows[0] != 0).all(1)
    assert torch.equal(kept, (rows[0] != 0).any(1))
    assert 8 < kept.sum() < 32
    torch.testing.assert_close(rows[0][kept], 2.0 * model.embedding.weight[kept])


def test_regularization_of_activations_is_added_to_the_loss(corpus):
    model = training(corpus).model
    words = corpus.train[:40].view(10, 4)
    start = model.start(4)
    outputs, raw, _ = model(words, start)
    bare, _ = model.loss(words, words, start)
    model.settings = Settings.of({**vars(BARE), "ar": 2.0, "tar": 3.0})
    loss, _ = model.loss(words, words, start)
    added = 2.0 * (outputs**2).mean() + 3.0 * ((raw[1:] - raw[:-1]) ** 2).mean()
    torch.testing.assert_close(loss - bare, added, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropuot": 0.1}, "unknown: dropuot; there are learning_rate, "),
        ({"input_dropout": 1.0}, "input_dropout: 1.0 is not at least 0 and below 1"),
        ({"weight_drop": -0.1}, "weight_drop: -0.1"),
        ({"layers": 0}, "layers: 0 is below 1"),
        ({"clip": 0.0}, "clip: 0.0 is not above 0"),
        ({"learning_rate": math.nan}, "learning_rate: nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Settings.of(values)


# Training.


def test_segments_fill_an_epoch_and_the_rate_goes_with_their_length(corpus):
    made = training(corpus, Settings.of({**vars(BARE), "bptt": 16}))
    rates, lengths = [], []
    made.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    while made.place < 2 * made.rows:
        before = made.place
        made.update(2 * made.rows)
        lengths.append(made.place - before)
    assert made.place == 2 * made.rows
    assert made.rows in [sum(lengths[:i]) for i in range(len(lengths))]
    assert len(set(lengths)) > 3
    assert rates == [pytest.approx(length / 16) for length in lengths]
    assert made.optimizer.param_groups[0]["lr"] == 1.0


def test_a_gradient_is_clipped(corpus):
    made = training(corpus, Settings.of({**vars(BARE), "clip": 1e-3}))
    norms = []
    made.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.cat([weight.grad.flatten() for weight in made.model.parameters()]).norm()
        )
    )
    made.update(made.rows)
    assert [norm.item() for norm in norms] == [pytest.approx(1e-3, rel=1e-3)]


def test_the_mean_is_that_of_the_weights_after_each_update(corpus):
    made = training(corpus)
    with made.averaged():
        pass
    made.update(made.rows)
    made.start_average()
    seen = []
    for _ in range(3):
        made.update(made.rows)
        seen.append(made.model.bias.detach().clone())
    with made.averaged():
        torch.testing.assert_close(made.model.bias.detach(), torch.stack(seen).mean(0))
    assert torch.equal(made.model.bias, seen[-1])


def test_the_grammar_is_learned(corpus):
    made = training(corpus, Settings.of({**vars(BARE), "learning_rate": 5.0, "ar": 0.1}))
    counts = torch.bincount(corpus.valid).double()
    shares = counts[counts > 0] / counts.sum()
    by_frequency_alone = -(shares * shares.log()).sum().item()
    while made.place < 8 * made.rows:
        made.update(8 * made.rows)
    assert evaluate(made.model, corpus.valid, 4) < 0.6 * by_frequency_alone


# The task.

VALUES = {
    "learning_rate": 2.0,
    "weight_decay": 1e-5,
    "clip": 0.25,
    "bptt": 8,
    "embedding_dropout": 0.1,
    "input_dropout": 0.2,
    "hidden_dropout": 0.2,
    "output_dropout": 0.2,
    "weight_drop": 0.3,
    "ar": 1.0,
    "tar": 1.0,
}
SIZES = {"layers": 2, "hidden": 12, "embedding": 8, "batch": 4, "eval_batch": 4}


class _AfterSoManyUpdates(threading.Event):
    """An event that is set at the n-th query."""

    def __init__(self, n):
        super().__init__()
        self.left = n

    def is_set(self):
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def step(tmp_path, folder):
    """A function that trains one trial, given its folder's name."""
    constants = {**SIZES, "data": str(folder), "test_words": 100}
    context = Context("e", "cpu", constants)
    with pytest.warns(UserWarning, match=UNUSUAL):
        data = ptb.setup(context)

    def train(
        name, *, parent=None, start=0.0, stop=1.0, resumed=False, after=None, state=data, **changes
    ):
        (tmp_path / name).mkdir()
        made = Trial(
            id="0-0",
            hyperparameters={
                name: value for name, value in {**VALUES, **changes}.items() if value is not None
            },
            parent=None if parent is None else tmp_path / parent,
            checkpoint=tmp_path / name,
            start=start,
            stop=stop,
            seed=7,
            step=0,
            context=context,
            state=state,
            resumed=resumed,
        )
        if after is not None:
            made._stopping = (
                after if isinstance(after, threading.Event) else _AfterSoManyUpdates(after)
            )
        _seed(made.seed)
        returned = ptb.train(made)
        assert made._work.in_effect == {
            name: made.hyperparameters[name]
            for name in ("learning_rate", "weight_decay")
            if name in made.hyperparameters
        }
        return returned

    return train


def content(folder):
    return load(folder)


def test_a_trial_gives_loss_and_perplexities(step):
    result = step("a")
    assert set(result) == {"val_loss", "val_perplexity", "test_perplexity"}
    assert result["val_perplexity"] == pytest.approx(math.exp(result["val_loss"]))
    assert 1.0 < result["test_perplexity"] < 10.0
    assert result == step("b")
    assert result != step("c", tar=0.0)
    # If training diverges, the search still gets numbers.
    assert math.isfinite(ptb._perplexity(1e6))
    assert not math.isfinite(ptb._perplexity(math.inf))
    assert not math.isfinite(ptb._perplexity(math.nan))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_words", -5),
        ("valid_words", -5),
        ("valid_words", 1),
        ("test_words", 1),
        ("eval_batch", 0),
    ],
)
def test_a_constant_that_leaves_nothing_to_evaluate_is_refused_before_training(folder, name, value):
    with pytest.raises(ValueError, match=rf"{name}: {value} is "):
        ptb.setup(Context("e", "cpu", {"data": str(folder), name: value}))


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_trial_cut_short_inside_an_epoch_ends_as_if_it_never_had_been(
    step, tmp_path, after, average
):
    whole = step("whole", stop=1.25, average=average)
    paused = step("part", stop=1.25, after=after, average=average)
    assert isinstance(paused, Paused)
    assert 0.0 < paused.at < 1.0
    again = {"parent": "part", "start": paused.at, "stop": 1.25, "average": average}
    rest = step("rest", resumed=True, **again)
    assert rest == whole
    one, other = (content(tmp_path / name) for name in ("whole", "rest"))
    for weight, of_other in zip(one["model"].values(), other["model"].values(), strict=True):
        assert torch.equal(weight, of_other)
    assert torch.equal(one["rng"]["torch"], other["rng"]["torch"])
    # Without the random state the training would differ.
    assert step("other", **again) != whole


def test_a_trial_may_be_cut_short_more_than_once(step):
    whole = step("whole", average=True)
    first = step("first", after=5, average=True)
    second = step("second", parent="first", start=first.at, resumed=True, after=9, average=True)
    assert first.at < second.at
    assert step("rest", parent="second", start=second.at, resumed=True, average=True) == whole


def test_should_stop_is_not_read_after_the_last_update(step, tmp_path):
    asked = _AfterSoManyUpdates(1000)
    step("a", stop=0.3, after=asked, average=True)
    updates = content(tmp_path / "a")["extra"]["averaged"]
    assert 1000 - asked.left == updates - 1 > 0


def test_what_is_no_hyperparameter_is_the_searchs_own_whatever_the_parent_had(step, tmp_path):
    step("a", stop=0.5, weight_decay=0.25)
    step("b", parent="a", start=0.5, weight_decay=None)
    [group] = content(tmp_path / "b")["optimizer"]["param_groups"]
    assert group["weight_decay"] == Settings().weight_decay


@pytest.mark.parametrize("lost", ["state", "place"])
def test_a_step_that_begins_inside_an_epoch_goes_on_with_text_and_state(step, tmp_path, lost):
    step("first", stop=0.5)
    second = step("second", parent="first", start=0.5)
    if lost == "state":
        saved = content(tmp_path / "first")
        saved["extra"]["state"] = [
            [torch.ones_like(part) for part in layer] for layer in saved["extra"]["state"]
        ]
        (tmp_path / "first" / FILE).unlink()
        tensor_file.write(tmp_path / "first" / FILE, saved)
        assert step("other", parent="first", start=0.5) != second
    else:
        assert step("other", parent="first", start=0.0, stop=0.5) != second


def test_another_batch_goes_on_from_the_same_place(step):
    step("first", stop=0.5)
    result = step("second", parent="first", start=0.5, batch=8)
    assert math.isfinite(result["val_loss"])


def test_the_average_is_evaluated_and_not_gone_on_with(step, tmp_path):
    assert step("mean", average=True)["val_loss"] != step("last")["val_loss"]
    mean, last = (content(tmp_path / name)["model"] for name in ("mean", "last"))
    assert all(torch.equal(mean[name], last[name]) for name in last)


@pytest.mark.parametrize("average", [False, True])
def test_the_network_that_was_scored_can_be_had(step, tmp_path, folder, average):
    result = step("a", average=average)
    code = page_code("tasks.md", "Penn Treebank")
    best = Best("0-0", 0.0, {**VALUES, "average": average}, tmp_path / "a")
    known: dict[str, Any] = {"result": SimpleNamespace(best=best), "constants": SIZES}
    exec(code, known)
    with pytest.warns(UserWarning, match=UNUSUAL):
        valid = read_corpus(folder).valid
    assert evaluate(known["model"], valid, SIZES["eval_batch"]) == result["val_loss"]
    # Training continues with a different network.
    best.load_model(known["model"])
    raw = evaluate(known["model"], valid, SIZES["eval_batch"])
    assert (raw != result["val_loss"]) is average


@pytest.mark.parametrize(
    ("name", "other"), [("layers", 3), ("layers", 1), ("hidden", 16), ("embedding", 12)]
)
def test_another_size_than_the_parents_is_named(step, name, other):
    step("a", stop=0.1)
    with pytest.raises(TaskError, match=rf"^{name}: the parent's .* {other}: .* mutable = false"):
        step("b", parent="a", start=0.1, **{name: other})


def test_another_vocabulary_than_the_parents_is_named(step, tmp_path, corpus):
    step("a", stop=0.1)
    longer = write(tmp_path / "longer")
    with (longer / FILES["train"]).open("a") as file:
        file.write(" a new line \n")
    with pytest.warns(UserWarning, match=UNUSUAL):
        other = read_corpus(longer)
    before, now = len(corpus.vocabulary), len(other.vocabulary)
    assert now == before + 3
    says = rf"of {before} words, .* has {now}: set .* `data` .* without --with-checkpoints"
    with pytest.raises(TaskError, match=says):
        step("b", parent="a", start=0.1, state=ptb.Data(other, SIZES["eval_batch"]))


def test_a_parent_of_another_task_is_said_not_to_fit(step, tmp_path):
    (tmp_path / "other").mkdir()
    Attached(torch.nn.Linear(2, 1), None).save(tmp_path / "other", {})
    with pytest.raises(CheckpointError, match=r"cannot be restored: [^!]*Missing key"):
        step("b", parent="other")


def test_a_parent_without_a_state_is_damaged(step, tmp_path):
    step("first", stop=0.5)
    saved = content(tmp_path / "first")
    del saved["extra"]
    (tmp_path / "first" / FILE).unlink()
    tensor_file.write(tmp_path / "first" / FILE, saved)
    with pytest.raises(CheckpointError, match="cannot be restored"):
        step("second", parent="first", start=0.5)


def test_a_step_of_less_than_a_word_is_refused(step):
    with pytest.raises(TaskError, match="less than a word of each stream"):
        step("a", stop=1e-5)


@pytest.mark.parametrize(
    "file", ["workers/romul_workers/tasks/ptb.toml", "examples/ptb-small.toml"]
)
def test_a_declared_experiment_names_what_the_task_knows(file):
    experiment = parse((ROOT / file).read_text())
    space = experiment.search_space()
    for place in (0.0, 0.5, 1.0):
        drawn = space.decode((place,) * len(space))
        values = {**experiment.constants, **drawn}
        given = {name: values[name] for name in values.keys() - ptb.OF_SETUP}
        known = vars(Settings.of(given))
        assert {name: known[name] for name in given} == given


# Collected where the environment names the real files, so that nothing is skipped elsewhere.
if os.environ.get("ROMUL_PTB"):

    def test_the_real_files_have_the_standard_counts():
        read = read_corpus(data_folder(""))
        counts = {part: len(getattr(read, part)) for part in STANDARD}
        assert counts == STANDARD
        assert len(read.vocabulary) == 10_000
        assert read.vocabulary[:2] == ("the", "<unk>")
