"""Hostile queue content: any number of invalid messages does no harm."""

import contextlib
import json
import os
from dataclasses import replace

import msgpack
import pytest
from numpy.random import default_rng

from romul_actors.core.events import Result
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_event, decode_trial, encode
from tests.conftest import wait_for
from tests.trials import TRIAL

# 100,000 on each queue take minutes; ROMUL_FUZZ=100000 is the long version.
MESSAGES = int(os.environ.get("ROMUL_FUZZ", "5000"))


def hostile(rng):
    """Random bytes, random maps, and valid messages with one fault."""
    good = [
        replace(TRIAL, hyperparameters={"rate": 0.1}),
        Result(
            trial="0-0", slot=0, attempt=1, worker="w", value=0.0, checkpoint="0-0-1", seconds=1.0
        ),
    ]
    values = [None, True, -1, 2**63, float("nan"), "x" * 50, b"\xff", [], {}, [[1]], {"a": {}}]
    while True:
        kind = rng.integers(4)
        if kind == 0:
            body = rng.bytes(int(rng.integers(0, 200)))
        elif kind == 1:
            chosen = {str(key): values[rng.integers(len(values))] for key in range(rng.integers(5))}
            body = msgpack.packb(chosen)
        else:
            content = msgpack.unpackb(encode(good[rng.integers(2)]))
            if kind == 2:
                field = sorted(content)[rng.integers(len(content))]
                content[field] = values[rng.integers(len(values))]
            body = msgpack.packb(content)
            if kind == 3:
                body = body[: rng.integers(1, len(body))]
        if not usable(body):
            return body


def usable(body):
    """Whether the changed message can still be decoded."""
    for decode in (decode_event, decode_trial):
        with contextlib.suppress(MessageError):
            decode(body)
            return True
    return False


@pytest.mark.timeout(1200)
def test_hostile_messages_are_all_put_aside(system):
    system.submit(steps=5)
    rng = default_rng(0)
    binary = type(system.client).from_url(system.url, protocol=2)
    for queue in ("inbox", "trials"):
        pipeline = binary.pipeline(transaction=False)
        for _ in range(MESSAGES):
            pipeline.xadd(f"romul:{{e}}:{queue}", {"m": hostile(rng)})
        pipeline.execute()
    before = binary.info("memory")["used_memory"]
    actor, worker = system.actor(), system.worker()
    system.wait_for_status("finished", seconds=600)
    wait_for(lambda: system.client.xlen("romul:{e}:trials") == 0, 600)
    wait_for(lambda: system.client.xlen("romul:{e}:inbox") == 0, 60)
    dead = system.client.xlen("romul:{e}:dead")
    assert dead == 2 * MESSAGES
    assert system.meta()["causes"] == "{}"
    assert system.meta()["reported"] == "20"
    assert binary.info("memory")["used_memory"] < before + 1_200 * 2 * MESSAGES + 50e6
    assert (actor.poll(), worker.poll()) == (None, None)
    stored = json.loads(system.call("status", "--json").stdout)[0]
    assert stored["dead"] == dead
    binary.close()
