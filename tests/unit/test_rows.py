"""The population's table has one line per slot at any terminal width."""

import pytest

from romul_actors.cli.output.printing import Console, labelled
from romul_actors.cli.output.rows import slots_tables
from romul_actors.protocol.experiment import Experiment

NAMES = [
    "rate",
    "momentum",
    "weight_decay",
    "dropout",
    "label_smoothing",
    "augmentation",
    "warmup_epochs",
    "beta1",
    "beta2",
    "epsilon",
    "gradient_clip",
    "ema_decay",
    "mixup_alpha",
    "cutmix_alpha",
    "stochastic_depth",
    "head_dropout",
    "layer_decay",
    "temperature",
    "embedding_dropout",
    "activation_regularization",
]


def population(n):
    names = NAMES[:n]
    space = {name: {"type": "float", "min": 1e-5, "max": 1.0} for name in names}
    experiment = Experiment.model_validate({"name": "e", "task": "t", "steps": 400, "space": space})
    slot = {
        "status": "waiting",
        "trial": "0-399",
        "attempt": 1,
        "step": 399,
        "parent": "10-398",
        "pinned": "0",
        "latest": {"step": 399, "loss": 1.2345e-05},
        "hyperparameters": dict.fromkeys(names, 0.000123456),
    }
    return [slot] * 8, experiment


def printed(table, width):
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return [line for line in captured.get().splitlines() if line.strip()]


@pytest.mark.parametrize("n", [1, 6, 20])
@pytest.mark.parametrize("width", [80, 120])
def test_a_slot_has_one_line_and_no_figure_is_cut(n, width):
    slots, experiment = population(n)
    tables = slots_tables(slots, experiment, width, {})
    headings = []
    for table in tables:
        lines = printed(table, width)
        figures = [line.split() for line in lines if "0.000123" in line]
        assert len(figures) == 8
        assert {len(row) for row in figures} == {len(table.columns)}
        headings += [str(column.header).replace("\n", "") for column in table.columns]
    assert [name for name in headings if name in NAMES] == NAMES[:n]
    assert len(tables[0].columns) > 5


def test_with_room_all_hyperparameters_stand_in_one_table():
    slots, experiment = population(20)
    assert len(slots_tables(slots, experiment, 10_000, {})) == 1


def test_lines_stand_beside_their_label_however_long_they_are():
    table = labelled([("why", ["because " * 20, "so"]), ("nothing", [])])
    lines = printed(table, 40)
    assert lines[0].startswith("why  because")
    assert all(line.startswith("     ") for line in lines[1:])
    assert "nothing" not in " ".join(lines)


def test_what_is_no_terminal_is_not_folded(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    Console().print("word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 1
