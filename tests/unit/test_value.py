"""Value objects: equal by their fields, hashable, and without other attributes."""

import pickle
from dataclasses import field, replace

import pytest

from romul_actors.core.value import value


@value()
class Place:
    """A place."""

    x: int
    y: int = 0


@value(kw_only=True)
class Note:
    """A note, whose fields are keyword-only."""

    texts: list[str] = field(default_factory=list)
    at: Place


def test_values_of_the_same_fields_are_the_same_value() -> None:
    assert Place(1, 2) == Place(1, y=2) != Place(2, 2)
    assert len({Place(1), Place(1, 0), Place(2)}) == 2


def test_a_changed_value_is_another_one() -> None:
    place = Place(1, 2)
    assert replace(place, x=3) == Place(3, 2)
    assert place == Place(1, 2)


def test_a_value_has_its_fields_alone() -> None:
    with pytest.raises(AttributeError):
        Place(1).z = 3  # type: ignore[attr-defined]


def test_a_value_is_restored_as_it_was() -> None:
    note = Note(at=Place(1), texts=["a"])
    assert pickle.loads(pickle.dumps(note)) == note


def test_defaults_are_not_shared() -> None:
    assert Note(at=Place(1)).texts is not Note(at=Place(1)).texts
