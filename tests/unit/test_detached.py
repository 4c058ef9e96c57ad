"""Calls outside the event loop reuse a thread, and never wait for calls that hang."""

import asyncio
import threading

import pytest

from romul_workers.checkpoints.detached import _idle, detached


async def test_one_work_after_the_other_needs_no_new_thread():
    threads = {await detached(threading.get_ident) for _ in range(20)}
    assert len(threads) == 1


async def test_work_that_hangs_holds_up_no_other():
    over = threading.Event()
    hangs = asyncio.create_task(detached(over.wait))
    assert await detached(lambda: "done") == "done"
    hangs.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hangs
    assert [await detached(lambda: "again") for _ in range(3)] == ["again"] * 3
    idle = len(_idle)
    over.set()
    # Its thread serves again once its work has ended.
    async with asyncio.timeout(10):
        while len(_idle) == idle:
            await asyncio.sleep(0.001)


async def test_what_work_raises_is_raised_and_its_thread_stays():
    def fails():
        raise KeyError(threading.get_ident())

    with pytest.raises(KeyError) as raised:
        await detached(fails)
    assert raised.value.args == (await detached(threading.get_ident),)
