"""Typical mistakes in declarations and tasks, each with its complete error message."""

import asyncio
import sys
from pathlib import Path

import pytest

from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import load
from romul_workers.child.task_import import TaskImportError, find_task
from romul_workers.child.trainer import ChildTrainer
from tests.trials import TRIAL

BASE = """\
name = "mine"
task = "mymodel"
metric = "val_loss"
population = 8
steps = 30
optimizer = "romul"

[space]
lr = { type = "float", min = 1e-4, max = 1.0, scale = "log" }
kind = { type = "categorical", choices = ["sgd", "adam"] }
layers = { type = "int", min = 1, max = 8 }
"""


def declared():
    """(lines of BASE, their replacement, the message) of each block of the table."""
    blocks = (Path(__file__).parent / "mistakes.txt").read_text().strip().split("\n\n")
    for block in blocks[1:]:
        yield tuple(
            "\n".join(line[2:] for line in block.splitlines() if line[0] == mark) for mark in "-+>"
        )


DECLARED = list(declared())


@pytest.mark.parametrize(("old", "new", "said"), DECLARED)
def test_a_mistake_in_a_declaration_gets_this_message(tmp_path, monkeypatch, old, new, said):
    monkeypatch.chdir(tmp_path)
    assert old in BASE
    (tmp_path / "e.toml").write_text(BASE.replace(old, new, 1))
    with pytest.raises(ExperimentError) as caught:
        load(Path("e.toml"))
    assert str(caught.value) == said


WORDS = ("Input ", "Extra inputs", "Field required", "Value error", "tag", "pydantic", "a valid")
"""Phrases of a validation library, which users should not see."""


def test_the_table_is_long_and_no_message_is_in_a_validators_own_words():
    assert len({new for _, new, _ in DECLARED}) == len(DECLARED) >= 50
    said = [line for *_, message in DECLARED for line in message.splitlines()]
    assert [line for line in said if any(word in line for word in WORDS)] == []
    # A line without its number is of what has no line of its own.
    assert [line for line in said if not line.startswith("e.toml:")] == []


TASKS = {
    "ok": "def train(trial):\n    return 1.0\n",
    "missing": "import nowhere\n\n\ndef train(trial):\n    return 1.0\n",
    "syntax": "def train(trial:\n    return 1.0\n",
    "raising": "LIMIT = int('x')\n\n\ndef train(trial):\n    return 1.0\n",
    "misspelt": "def trian(trial):\n    return 1.0\n",
    "other": "def fit(trial):\n    return 1.0\n",
    "bare": "LIMIT = 3\n",
    "number": "train = 3\n",
}


@pytest.mark.parametrize(
    ("module", "function", "said"),
    [
        ("missing", "train", "HERE_m.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("syntax", "train", "HERE_m.py:1: SyntaxError: '(' was never closed: def train(trial:"),
        (
            "raising",
            "train",
            "HERE_m.py:1: ValueError: invalid literal for int() with base 10: 'x'",
        ),
        (
            "misspelt",
            "train",
            (
                "misspelt_m has no function 'train' (HERE_m.py): is it 'trian'? Then write task = "
                '"misspelt_m:trian"'
            ),
        ),
        (
            "other",
            "train",
            (
                "other_m has no function 'train' (HERE_m.py): is it 'fit'? Then write task = "
                '"other_m:fit"'
            ),
        ),
        (
            "bare",
            "train",
            "bare_m has no function 'train' (HERE_m.py): write def train(trial) there",
        ),
        ("number", "train", "number_m: train is of type int, and not a function"),
        ("okk", "train", "No module named 'okk_m': did you mean 'ok_m'?"),
    ],
)
def test_a_task_that_cannot_be_used_says_so_in_its_first_line(
    tmp_path, monkeypatch, module, function, said
):
    for name, text in TASKS.items():
        (tmp_path / f"{name}_m.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskImportError) as caught:
        find_task(f"{module}_m", function)
    first, _, rest = str(caught.value).partition("\n\n")
    assert first == said.replace("HERE", str(tmp_path / module))
    assert "task_import" not in rest


@pytest.mark.parametrize(
    ("module", "call", "named"),
    [
        ("trial", "place(float('nan'))", "calling_m.py"),
        ("tensors.version", "check_torch('1.0')", "calling_m.py"),
        # A task that comes with ROMUL is a task like others.
        ("tasks.toy_functions", "step_misspecified(None, {}, 0, None)", "toy_functions.py"),
    ],
)
def test_an_error_in_romuls_own_code_names_the_tasks_line(
    tmp_path, monkeypatch, module, call, named
):
    function = call.partition("(")[0]
    text = f"from romul_workers.{module} import {function}\n\n{call}\n"
    (tmp_path / "calling_m.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskImportError) as caught:
        find_task("calling_m", "train")
    assert Path(str(caught.value).partition(":")[0]).name == named


def test_where_a_module_was_looked_for_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "fine.py").write_text(TASKS["ok"])
    with pytest.raises(TaskImportError, match=f"'qqqqqqqqqq': it is not in {tmp_path}.* --path"):
        find_task("qqqqqqqqqq", "train")
    with pytest.raises(TaskImportError, match="fine has none of that name; a function of it is"):
        find_task("fine.train", "train")


@pytest.mark.parametrize("name", ["signal", "socket", "random"])
def test_a_file_that_hides_a_module_of_python_is_named(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("LIMIT = 3\n")
    (tmp_path / "fine.py").write_text(TASKS["ok"])
    space = {"x": {"type": "float", "min": 0.0, "max": 1.0}}
    place = str(tmp_path / "checkpoints")
    experiment = Experiment(name="h", task="fine", steps=1, space=space, checkpoints=place)

    async def train():
        trainer = ChildTrainer(tmp_path / "scratch", [tmp_path])
        try:
            return await trainer.train(experiment, TRIAL)
        finally:
            await trainer.close()

    ending = asyncio.run(train())
    first = ending.message.partition("\n\n")[0]
    assert first == (
        f"{tmp_path}/{name}.py hides Python's own module {name!r}: give the file another name"
    )


def test_a_file_that_is_none_names_its_neighbour(tmp_path):
    (tmp_path / "mymodel.toml").write_text(BASE)
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path / "mymodl.toml")
    assert str(caught.value) == (
        f"{tmp_path}/mymodl.toml: cannot be read: there is no such file: did you mean mymodel.toml?"
    )
