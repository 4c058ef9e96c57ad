"""A cancelled task ends, whatever the libraries below it do."""

import asyncio
import contextlib
import logging
from itertools import pairwise

import pytest
from aiomqtt import MqttError

from romul_actors.errors import StoreError
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.connection import RETRY_S, MqttConnection
from romul_actors.store.redis import RedisStore
from romul_actors.waiting import RetryLog, Wakeup, cancel, longer, reraise_cancellation
from romul_sim.cluster.virtual_time import run


async def ends_as_it_is_cancelled(work):
    """Cancel `work(waited)` at the moment when `waited` is done."""
    waited = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work(waited))
    await asyncio.sleep(0)
    waited.set_result("done")
    task.cancel()
    return await task


async def test_a_cancellation_that_is_swallowed_is_raised():
    async def work(waited):
        with reraise_cancellation():
            await asyncio.wait_for(waited, 60)

    with pytest.raises(asyncio.CancelledError):
        await ends_as_it_is_cancelled(work)


async def test_an_error_does_not_hide_a_cancellation():
    async def work(waited):
        with reraise_cancellation():
            try:
                await waited
            except asyncio.CancelledError:
                raise StoreError("not now") from None

    with pytest.raises(asyncio.CancelledError):
        await ends_as_it_is_cancelled(work)


async def test_what_is_not_cancelled_is_left_alone():
    with reraise_cancellation():
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
    with pytest.raises(TimeoutError), reraise_cancellation():
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    with pytest.raises(StoreError), reraise_cancellation():
        raise StoreError("really")


async def test_a_task_busy_with_the_server_ends_whenever_it_is_cancelled(redis_url):
    store = RedisStore(redis_url)

    async def busy():
        while True:
            await store.experiments()

    try:
        await store.experiments()
        for i in range(200):
            task = asyncio.create_task(busy())
            for _ in range(10 + i % 20):
                await asyncio.sleep(0)
            task.cancel()
            ended, _ = await asyncio.wait({task}, timeout=10)
            assert ended
    finally:
        await store.close()


async def test_a_link_that_is_cancelled_as_its_connection_breaks_ends(monkeypatch):
    broken = asyncio.Event()

    async def breaks(_):
        await broken.wait()
        raise MqttError("the connection ended")

    link = MqttConnection(Broker("127.0.0.1", 1), "l", [], breaks)
    monkeypatch.setattr(link, "client", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(link, "_receive", breaks)
    running = asyncio.create_task(link.run())
    for _ in range(5):
        await asyncio.sleep(0)
    broken.set()
    await asyncio.sleep(0)
    running.cancel()
    ended, _ = await asyncio.wait({running}, timeout=10)
    assert ended
    assert running.cancelled()


def test_a_wait_ends_with_its_time_or_sooner_and_what_was_said_before_counts_once():
    async def main():
        loop, wakeup = asyncio.get_running_loop(), Wakeup()
        await wakeup.wait(5.0)
        assert loop.time() == 5.0
        loop.call_later(1.0, wakeup.set)
        await wakeup.wait(5.0)
        assert loop.time() == 6.0
        wakeup.set()
        wakeup.set()
        await wakeup.wait(5.0)
        assert loop.time() == 6.0
        await wakeup.wait(5.0)
        assert loop.time() == 11.0
        wakeup.set()
        wakeup.clear()
        await wakeup.wait(5.0)
        assert loop.time() == 16.0

    run(main())


def test_a_wait_that_is_cancelled_ends_as_cancelled_and_leaves_no_trace():
    async def main():
        wakeup = Wakeup()
        task = asyncio.create_task(wakeup.wait(5.0))
        await asyncio.sleep(1.0)
        await cancel(task)
        assert task.cancelled()
        wakeup.set()
        await wakeup.wait(5.0)
        assert asyncio.get_running_loop().time() == 1.0

    run(main())


def test_each_pause_of_a_link_is_twice_the_last_until_a_connection_has_lasted():
    begun = []

    class Away(MqttConnection):
        async def _serve_once(self, farewell):
            begun.append(asyncio.get_running_loop().time())
            if len(begun) == 8:
                self._since = begun[-1]
                await asyncio.sleep(RETRY_S[1] + 1)
            raise MqttError("away")

    async def main():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await Away(Broker("127.0.0.1", 1), "l", [], print).run()

    run(main())
    waits = [after - before for before, after in pairwise(begun)]
    assert waits[:7] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert waits[7:9] == pytest.approx([RETRY_S[1] + 1 + 0.2, 0.4])


def test_pauses_double_from_the_first_to_the_longest():
    pauses = [0.0]
    while pauses[-1] < 60.0:
        pauses.append(longer(pauses[-1], (2.0, 60.0)))
    assert pauses == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert longer(pauses[-1], (2.0, 60.0)) == 60.0


def test_what_fails_again_and_again_is_logged_once_a_minute_and_its_end(caplog):
    async def an_outage_of_an_hour():
        retries = RetryLog(logging.getLogger("romul.actor"))
        retries.worked()
        for second in range(3600):
            retries.failed("the server does not answer; trying again")
            if second == 30:
                retries.failed("out of memory; trying again")
            await asyncio.sleep(1)
        retries.worked()
        retries.worked()
        retries.failed("another outage")

    caplog.set_level("INFO", "romul.actor")
    run(an_outage_of_an_hour())
    again, *_, end, other = caplog.messages
    assert caplog.messages.count(again) == 60
    assert caplog.messages[1] == "out of memory; trying again"
    assert (len(caplog.messages), again, end, other) == (
        63,
        "the server does not answer; trying again",
        "works again after 3600 s",
        "another outage",
    )
