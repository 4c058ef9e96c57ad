"""How an actor uses the statuses that it receives from the broker."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiomqtt import ProtocolVersion

from romul_actors.errors import BrokerError
from romul_actors.mqtt.bridge import Bridge
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.connection import MqttConnection, protocols
from romul_actors.mqtt.topics import no_status, status
from romul_sim.cluster.virtual_time import run


class Sweeping:
    """Stands in for an actor, and records the workers whose leases were swept."""

    def __init__(self):
        self.swept = []

    async def lost(self, worker):
        self.swept.append(worker)
        return 0


@pytest.fixture(autouse=True)
def unconnected(monkeypatch):
    """Do not connect to a broker: the test sends the statuses."""

    async def run(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(MqttConnection, "run", run)


def swept(*messages):
    async def main():
        actor: Any = Sweeping()
        bridge = Bridge(Broker("nowhere", 1), "actor")
        running = asyncio.create_task(bridge.run(actor))
        await asyncio.sleep(0)
        for message in messages:
            await bridge._on_status(message)
        await asyncio.sleep(5.0)
        running.cancel()
        return actor.swept

    return run(main())


def test_a_lost_worker_is_swept_more_than_once():
    assert swept(status("w", "idle", 2.0), status("w", "lost", 2.0)) == ["w"] * 4


def test_a_status_without_a_workers_name_ends_no_lease():
    lost = status("w", "lost", 2.0)
    assert swept(replace(lost, topic=lost.topic.replace("/w/", "//"))) == []


def test_the_will_of_an_earlier_connection_is_passed_over():
    assert swept(status("w", "idle", 2.0), status("w", "lost", 1.0)) == []


@pytest.mark.parametrize("session", [float("inf"), float("nan"), 10**400, -1, True])
def test_a_status_of_no_session_hides_no_lost_worker(session):
    odd = status("w", "idle", session)
    assert swept(odd, status("w", "lost", 2.0)) == ["w"] * 4


def test_a_worker_that_connects_again_is_not_swept():
    assert swept(status("w", "lost", 1.0), status("w", "idle", 2.0)) == []


def test_a_worker_that_connects_again_at_the_end_of_the_sweeps_keeps_its_status(monkeypatch):
    sent = []
    monkeypatch.setattr(MqttConnection, "send", lambda self, message: sent.append(message.topic))
    lost, back = status("w", "lost", 1.0), status("w", "idle", 2.0)

    async def main(*, again):
        bridge = Bridge(Broker("nowhere", 1), "actor")

        class Slow(Sweeping):
            async def lost(self, worker):
                if len(self.swept) == 3 and again:
                    await bridge._on_status(back)
                return await super().lost(worker)

        actor: Any = Slow()
        running = asyncio.create_task(bridge.run(actor))
        await asyncio.sleep(0)
        await bridge._on_status(lost)
        await asyncio.sleep(5.0)
        running.cancel()
        return len(actor.swept), [topic for topic in sent if topic == lost.topic]

    assert run(main(again=True)) == (4, [])
    assert run(main(again=False)) == (4, [lost.topic])


def test_a_worker_that_left_says_nothing_of_the_next_one_of_its_name():
    # The next one's machine has a clock that is behind.
    left = (status("w", "idle", 9.0), no_status("w"))
    assert swept(*left, status("w", "idle", 2.0), status("w", "lost", 2.0)) == ["w"] * 4


@pytest.mark.parametrize(
    ("query", "tried"),
    [
        ("", [ProtocolVersion.V5, ProtocolVersion.V311]),
        ("?protocol=5", [ProtocolVersion.V5]),
        ("?protocol=3.1.1", [ProtocolVersion.V311]),
    ],
)
def test_the_url_says_which_version_of_mqtt_is_tried(query, tried):
    broker = Broker.parse(f"mqtt://u:p@h:1{query}")
    assert (broker.host, broker.port, broker.password) == ("h", 1, "p")
    assert protocols(broker) == tried


@pytest.mark.parametrize("query", ["?protocol=4", "?protocol=", "?tls=no"])
def test_a_query_that_says_no_version_is_refused(query):
    with pytest.raises(BrokerError, match=r"protocol=5 or protocol=3\.1\.1"):
        Broker.parse(f"mqtt://h{query}")
