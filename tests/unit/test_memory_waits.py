"""Which call that waits in memory an entry ends."""

import asyncio

import pytest

from romul_actors.store.memory.waits import Waits


@pytest.fixture
async def begin():
    """Begins a wait; (the waits, a function that begins one and returns its future)."""
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
    (cancelled, _), (left, group), (last, _) = begin("e"), begin("e"), begin("e", "f")
    cancelled.cancel()
    group.pop(left)
    waits.end_first("e")
    assert last.done()
    assert not left.done()
    waits.end_first("unknown")
