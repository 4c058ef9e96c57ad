"""Other figures that a task returns never fail its trial; the metric is checked strictly."""

import math
from decimal import Decimal

import numpy as np
import pytest

from romul_actors.errors import TaskError
from romul_workers.child.figures import MAX_FIGURES, MAX_WARNED, LeftOut, figures, in_words


def test_numbers_and_booleans_of_any_library_are_kept():
    torch = pytest.importorskip("torch")
    found = figures(
        {
            "loss": np.float32(0.5),
            "int": 3,
            "true": True,
            "np": np.int64(4),
            "np_bool": np.bool_(0),
            "0-d": np.array(1.5),
            "one": np.array([2.5]),
            "tensor": torch.tensor(3.5),
            "tensor_bool": torch.tensor([True]),
        },
        "loss",
    )
    assert found.value == 0.5
    assert found.kept == {
        "int": 3.0,
        "true": 1.0,
        "np": 4.0,
        "np_bool": 0.0,
        "0-d": 1.5,
        "one": 2.5,
        "tensor": 3.5,
        "tensor_bool": 1.0,
    }
    assert {type(value) for value in found.kept.values()} == {float}
    assert found.left_out == {}


class Awkward:
    def item(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("text", "str"),
        (None, "None"),
        ([1, 2], "list"),
        ({"a": 1}, "dict"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (np.float32("nan"), "nan"),
        (np.zeros(2), "ndarray"),
        (10**400, "inf"),
        (-(10**400), "-inf"),
        (1j, "complex"),
        (np.complex64(1j), "complex64"),
        (Decimal(1), "Decimal"),
        (b"1", "bytes"),
        (Awkward(), "Awkward"),
    ],
)
def test_all_else_is_left_out_with_its_type(value, why):
    found = figures({"loss": 1.0, "odd": value, "fine": 2}, "loss")
    assert (found.value, found.kept, found.left_out) == (1.0, {"fine": 2.0}, {"odd": why})


@pytest.mark.parametrize("value", ["0.5", None, True, np.bool_(1), [0.5], 1j, np.zeros(2)])
def test_the_metric_must_be_a_number(value):
    for returned in (value, {"loss": value, "other": 1.0}):
        with pytest.raises(TaskError, match=r"the task returned loss = .*, which is not a number"):
            figures(returned, "loss")


def test_the_metric_may_be_a_tensor_of_one_number_or_not_finite():
    torch = pytest.importorskip("torch")
    for value in (torch.tensor(0.5), torch.tensor([0.5]), np.array([[0.5]]), np.float16(0.5)):
        assert figures(value, "loss").value == figures({"loss": value}, "loss").value == 0.5
    assert math.isnan(figures({"loss": math.nan}, "loss").value)
    assert figures(10**400, "loss").value == math.inf


def test_too_many_figures_are_cut():
    found = figures({"loss": 0, **{str(n): n for n in range(1_000)}}, "loss")
    assert list(found.kept) == [str(n) for n in range(MAX_FIGURES)]
    assert len(found.left_out) == MAX_FIGURES
    assert set(found.left_out.values()) == {"one too many"}
    long = figures({"loss": 0, 1000 * "x": 1.0}, "loss")
    assert (long.kept, long.left_out) == ({}, {100 * "x": "its name is too long"})


def test_each_name_is_warned_of_once_and_many_are_counted():
    left_out = LeftOut()
    assert left_out.new("e", {"a": "str"}) == {"a": "str"}
    assert left_out.new("e", {"a": "str"}) == {}
    assert left_out.new("e", {"a": "str", "b": "nan"}) == {"b": "nan"}
    assert left_out.new("f", {"a": "str"}) == {"a": "str"}
    left_out.forget("f")
    assert left_out.new("f", {"a": "str"}) == {"a": "str"}
    # A task with new names of figures in each trial does not cause endless warnings.
    found = [left_out.new("e", {f"{n}": "str"}) for n in range(2 * MAX_WARNED)]
    assert sum(map(len, found)) == MAX_WARNED - 2
    words = in_words({f"k{n}": "str" for n in range(12)})
    assert "'k9' (str) and 2 more" in words
    assert "'k10'" not in words
