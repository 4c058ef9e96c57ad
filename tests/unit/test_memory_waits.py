"""Which waiting call of the memory store a new entry ends."""

import asyncio

import pytest

from romul_actors.store.memory.waits import Waits


@pytest.fixture
async def begin():
    """(the waits, a function that begins a wait and returns its future)."""
    waits, loop = Waits(), asyncio.get_running_loop()

    def begin(*names):
        wait = loop.create_future()
        return wait, waits.begin(wait, names)

    return waits, begin


async def test_an_entry_ends_the_wait_that_began_first_whatever_else_it_is_for(begin):
    waits, begin = begin
    begun = [begin("f"), begin("e", "f"), begin("e"), begin("f", "e"), begin("e")]
    order = []
    for _ in range(5):
        waits.end_first("e")
        order += [i for i, (wait, _) in enumerate(begun) if wait.done() and i not in order]
    assert order == [1, 2, 3, 4]
    assert not begun[0][0].done()
    waits.end_first("f")
    assert begun[0][0].done()


async def test_a_wait_that_was_cancelled_or_has_left_takes_no_entry(begin):
    waits, begin = begin
    (cancelled, _), (left, whole), (last, _) = begin("e"), begin("e"), begin("e", "f")
    cancelled.cancel()
    waits.end(left, whole)
    waits.end_first("e")
    assert last.done()
    assert not left.done()
    waits.end_first("unknown")


async def test_what_no_call_waits_for_any_more_leaves_nothing(begin):
    waits, begin = begin
    begun = [begin("e", "f"), begin("e"), begin("e", "f"), begin("f")]
    assert len(waits._groups) == 3
    waits.end_first("f")
    for wait, whole in begun[:2]:
        waits.end(wait, whole)
    assert len(waits._groups) == 2
    waits.end_first("e")
    assert begun[2][0].done()
    for wait, whole in begun[2:]:
        waits.end(wait, whole)
    # A wait that ends twice, or was already removed.
    waits.end(*begun[0])
    assert waits._groups == waits._by_name == {}
    waits.end_first("e")
