import math
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romul_actors.core.bounds import translated, with_bounds
from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Space,
)
from romul_actors.errors import SpaceError
from tests.unit.strategies import spaces, values


@given(st.data())
def test_decoding_an_encoded_value_gives_it_back(data):
    space = data.draw(spaces())
    given_values = data.draw(values(space))
    decoded = space.decode(space.encode(given_values))
    for parameter in space:
        value, back = given_values[parameter.name], decoded[parameter.name]
        assert type(back) is type(value)
        if isinstance(parameter, FloatParameter):
            span = parameter.high - parameter.low
            assert math.isclose(back, value, rel_tol=1e-9, abs_tol=1e-9 * span)
        else:
            assert back == value


@given(st.data())
def test_every_place_in_the_cube_is_an_allowed_value(data):
    space = data.draw(spaces())
    vector = data.draw(st.lists(st.floats(0, 1), min_size=len(space), max_size=len(space)))
    decoded = space.decode(vector)
    # Encoding refuses what is outside the bounds or not a choice.
    assert all(0.0 <= position <= 1.0 for position in space.encode(decoded))


def test_whole_numbers_own_equal_shares_of_the_axis():
    parameter = IntParameter("n", 1, 4)
    decoded = [parameter.decode((i + 0.5) / 400) for i in range(400)]
    assert [decoded.count(n) for n in (1, 2, 3, 4)] == [100, 100, 100, 100]


def test_a_log_scale_is_even_in_the_exponent():
    parameter = FloatParameter("lr", 1e-4, 1.0, "log")
    assert parameter.decode(0.5) == pytest.approx(1e-2)
    assert parameter.encode(1e-3) == pytest.approx(0.25)


def test_true_is_not_the_choice_one():
    parameter = CategoricalParameter("c", (1, True, 1.0))
    assert [parameter.encode(c) for c in (1, True, 1.0)] == pytest.approx([1 / 6, 3 / 6, 5 / 6])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FloatParameter("lr", 1.0, 0.1), "lr: min 1.0 is not below max 0.1"),
        (lambda: FloatParameter("lr", 1.0, 1.0), "lr: min 1.0 is not below max 1.0"),
        (lambda: FloatParameter("lr", 0.0, 1.0, "log"), "lr: min 0.0 on a log scale"),
        (lambda: FloatParameter("lr", -1.0, 1.0, "log"), "the range must lie above 0"),
        (lambda: FloatParameter("lr", math.nan, 1.0), "lr: nan is not a finite number"),
        (lambda: FloatParameter("lr", 0.0, math.inf), "lr: inf is not a finite number"),
        (lambda: FloatParameter("lr", 0.0, 1.0, cast("Any", "cubic")), "scale 'cubic'"),
        (lambda: IntParameter("n", 0, 9, "log"), "n: min 0 on a log scale"),
        (lambda: IntParameter("n", cast("int", 0.5), 9), "n: bound 0.5 is not a whole number"),
        (lambda: CategoricalParameter("c", ("x",)), r"c: \['x'\] has too few choices"),
        (lambda: CategoricalParameter("c", ("x", "x")), "contains a choice twice"),
        (lambda: CategoricalParameter("c", ("x", {1})), r"choice \{1\} is not text"),
        (lambda: Space([]), "no hyperparameter"),
        (lambda: Space([BooleanParameter("b"), BooleanParameter("b")]), "b: declared twice"),
    ],
)
def test_a_wrong_declaration_names_parameter_value_and_bounds(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


SPACE = Space(
    [
        FloatParameter("lr", 1e-4, 1.0, "log"),
        IntParameter("n", 1, 9),
        CategoricalParameter("kind", ("a", "b")),
        BooleanParameter("flag"),
    ]
)
GOOD = {"lr": 0.1, "n": 3, "kind": "a", "flag": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2.0}, r"lr: 2.0 is outside \[0.0001, 1.0\]"),
        ({"lr": "fast"}, "lr: 'fast' is not a finite number"),
        ({"lr": True}, "lr: True is not a finite number"),
        ({"n": 10}, r"n: 10 is outside \[1, 9\]"),
        ({"n": 2.5}, "n: 2.5 is not a whole number"),
        ({"kind": "c"}, r"kind: 'c' is not one of \['a', 'b'\]"),
        ({"flag": 1}, "flag: 1 is not false or true"),
        ({"other": 1}, "other: not in the space; it has lr, n, kind, flag"),
    ],
)
def test_a_wrong_value_names_parameter_value_and_bounds(change, message):
    with pytest.raises(SpaceError, match=message):
        SPACE.encode({**GOOD, **change})


def test_a_missing_value_is_named():
    with pytest.raises(SpaceError, match="n: no value given"):
        SPACE.encode({name: value for name, value in GOOD.items() if name != "n"})


def test_a_vector_of_another_length_or_outside_the_cube_is_refused():
    with pytest.raises(SpaceError, match="a vector of 2 coordinates for a space of 4"):
        SPACE.decode([0.5, 0.5])
    with pytest.raises(SpaceError, match=r"n: position 1\.5 is outside"):
        SPACE.decode([0.5, 1.5, 0.5, 0.5])


def test_other_bounds_move_places_to_the_nearest_value():
    space = Space(
        [
            FloatParameter("lr", 1e-4, 1.0, "log"),
            IntParameter("n", 1, 9),
            CategoricalParameter("c", ("a", "b")),
        ]
    )
    narrow = with_bounds(with_bounds(space, "lr", 1e-3, 1e-1), "n", 2, 5)
    here = space.encode({"lr": 1e-2, "n": 9, "c": "b"})
    moved = narrow.decode(translated(here, space, narrow))
    assert moved == {"lr": pytest.approx(1e-2), "n": 5, "c": "b"}
    assert translated(narrow.encode(moved), narrow, space) == pytest.approx(
        space.encode({"lr": 1e-2, "n": 5, "c": "b"})
    )
    for name, low, high, found in (
        ("c", 0, 1, "choices instead of bounds"),
        ("x", 0, 1, "not in the space"),
        ("n", 0.5, 3, "whole numbers"),
        ("lr", 0.0, 1.0, "log scale"),
    ):
        with pytest.raises(SpaceError, match=found):
            with_bounds(space, name, low, high)
