"""Blocking calls where an event loop runs already, as in a notebook."""

import asyncio
import signal
import threading

import pytest

from romul.blocking import to_the_end


def test_an_interrupt_is_raised_once_the_coroutine_has_ended():
    raised, ended = threading.Event(), []

    async def work():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            # What ends here takes a while, as the processes of a run do.
            early = await asyncio.to_thread(raised.wait, 1.0)
            ended.append("early" if early else "in time")

    async def cell():
        try:
            to_the_end(work())
        finally:
            raised.set()

    # As in IPython's kernel, Ctrl-C raises KeyboardInterrupt; `asyncio.run` would cancel instead.
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        loop.close()
    assert ended == ["in time"]
