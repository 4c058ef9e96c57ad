"""The requests of the client, and what it refuses, on every kind of store."""

import asyncio
import contextlib
import gc
import inspect
import re
from pathlib import Path

import pytest

import romul
from romul_actors.actor.loop import Actor
from romul_actors.client import Client
from romul_actors.core.events import Control, Submitted
from romul_actors.dead_letters import DeadLetters, Resubmitted
from romul_actors.errors import (
    BrokerError,
    ExperimentError,
    ExperimentExistsError,
    NoAnswerError,
    SpaceError,
    StoreError,
    UnknownExperimentError,
    UnknownSlotError,
)
from romul_actors.local.mqtt_broker import embedded_broker
from romul_actors.mqtt.broker import Broker, Message
from romul_actors.mqtt.connection import MqttConnection, connected
from romul_actors.mqtt.topics import topic
from romul_actors.observe.former import begun_from
from romul_actors.protocol.checkpoint_folder import absolute
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.messages import decode_event
from romul_actors.store.memory import MemoryStore
from romul_actors.store.values import MAX_DEAD_BODY
from romul_actors.waiting import cancel


def declared(**fields):
    return Experiment.model_validate(
        {
            "name": "e",
            "task": "romul_workers.tasks.toys:quadratic",
            "space": {"rate": {"type": "float", "min": 1e-3, "max": 1.0, "scale": "log"}},
            "population": 4,
            "steps": 3,
            "checkpoints": "memory://e",
            **fields,
        }
    )


def never(*_):
    raise AssertionError


@pytest.fixture
async def client(store):
    """A client, and an experiment that it has submitted."""
    made = Client(store, by="me")
    await made.submit(declared())
    return made


async def test_steps_that_the_search_has_already_are_no_change(client, store):
    await client.extend("e", 5)
    await Actor(store, "a", pace_s=0.0).turn()
    await client.apply("e", Changes(steps=5))
    assert await sent(store) == []
    for changes in (Changes(steps=4), Changes(steps=5, asked=True)):
        with pytest.raises(ExperimentError, match="not above the current 5"):
            await client.apply("e", changes)


async def test_nothing_is_copied_for_a_name_that_is_taken(client, store):
    await client.submit(declared(name="new"))
    with pytest.raises(ExperimentExistsError, match="'new' already exists"):
        await begun_from(declared(name="new", from_run="e"), store, never)


@pytest.mark.parametrize("place", ["ck/rel", "./ck", "", "file://ck", "local:ck"])
async def test_a_folder_that_would_be_another_one_for_each_worker_is_refused(client, store, place):
    new = declared(name="new", checkpoints=place)
    said = f"checkpoints: {place!r} is relative, so it would be another folder for each worker: "
    with pytest.raises(ExperimentError, match=re.escape(said + "give an absolute path or a URL")):
        await client.submit(new)
    assert await client.statuses() == {"e": "submitted"}
    # Also before checkpoints of another search are copied there.
    begun = new.model_copy(update={"from_run": declared(name="new", from_run="e").from_run})
    with pytest.raises(ExperimentError, match="is relative"):
        await begun_from(begun, store, never)
    # A program that starts all workers itself means its own folder.
    await client.submit(new.model_copy(update={"checkpoints": absolute(place)}))
    prefix = next((prefix for prefix in ("file://", "local:") if place.startswith(prefix)), "")
    stored = (await client.spec("new")).checkpoints
    assert stored == prefix + str(Path.cwd() / place.removeprefix(prefix))


@pytest.mark.parametrize(
    "place", ["/ck", "~/ck", "s3://b/ck", "file:///ck", "file:/ck", "simplecache::s3://b/ck"]
)
async def test_a_folder_that_workers_can_share_is_taken(client, place):
    await client.submit(declared(name="new", checkpoints=place))
    assert (await client.spec("new")).checkpoints == place == absolute(place)


async def sent(store, name="e"):
    """Events in the inbox that no actor has read."""
    return [decode_event(entry.body) for entry in await store.read([name], "a", 100, 0)]


async def decided(store):
    """Decide what is in the inbox."""
    stop = asyncio.Event()
    running = asyncio.create_task(Actor(store, "a", pace_s=0.01).run(stop))
    async with asyncio.timeout(20):
        while (await store.depths("e"))["inbox"]:
            await asyncio.sleep(0.01)
    stop.set()
    await running


async def test_an_experiment_is_submitted_whole_or_not_at_all(client, store):
    assert await sent(store) == [Submitted()]
    assert await client.spec("e") == declared()
    assert await client.statuses() == {"e": "submitted"}
    assert await client.status("e") == "submitted"
    with pytest.raises(ExperimentExistsError, match="'e' already exists"):
        await client.submit(declared())
    with pytest.raises(ExperimentError, match="checkpoints: not given; set a folder"):
        await client.submit(declared(name="nowhere", checkpoints=None))
    with pytest.raises(ExperimentError, match="optimizer 'no' is not one of"):
        await client.submit(declared(name="other", optimizer={"name": "no"}))
    assert await client.statuses() == {"e": "submitted"}


async def test_requests_are_messages_that_name_their_user(client, store):
    await client.pause("e")
    await client.resume("e")
    await client.pin("e", 3)
    await client.unpin("e", 3)
    await client.bounds("e", "rate", 0.01, 0.5)
    await client.extend("e", 4)
    await client.change("e", population=6, optimizer={"factor": 0.3})
    await client.stop("e")
    assert await sent(store) == [
        Submitted(),
        Control(action="pause", by="me"),
        Control(action="resume", by="me"),
        Control(action="pin", by="me", slot=3),
        Control(action="unpin", by="me", slot=3),
        Control(action="bounds", by="me", parameter="rate", low=0.01, high=0.5),
        Control(action="extend", by="me", steps=4),
        Control(action="change", by="me", population=6, constants={"factor": 0.3}),
        Control(action="stop", by="me"),
    ]


async def test_an_actor_decides_what_is_asked_for(client, store):
    await client.pin("e", 2)
    await client.pause("e")
    await decided(store)
    assert await client.status("e") == "paused"
    slots = (await store.load("e")).slots
    assert [slot["pinned"] for slot in slots] == ["0", "0", "1", "0"]


async def test_a_search_is_halted_as_soon_as_a_pause_is_asked_for(client, store):
    await client.bounds("e", "rate", 0.01, 0.5)
    assert not await client.is_halted("e")
    await client.pause("e")
    assert (await client.status("e"), await client.is_halted("e")) == ("submitted", True)
    await decided(store)
    assert (await client.status("e"), await client.is_halted("e")) == ("paused", True)
    await client.resume("e")
    await decided(store)
    assert not await client.is_halted("e")


async def test_an_unknown_experiment_is_sent_nothing(store):
    client, letters = Client(store), DeadLetters(store)
    for call in (
        client.status("no"),
        client.spec("no"),
        client.pause("no"),
        client.resume("no"),
        client.stop("no"),
        client.pin("no", 0),
        client.unpin("no", 0),
        client.bounds("no", "rate", 0.1, 0.2),
        client.extend("no", 9),
        client.change("no", population=9),
        client.remove("no"),
        letters.letters("no"),
        letters.resubmit("no"),
        letters.drop("no"),
    ):
        with pytest.raises(UnknownExperimentError, match="no experiment 'no'"):
            await call
    assert await client.statuses() == {}


async def test_a_slot_or_a_hyperparameter_that_is_not_there_is_refused(client, store):
    for slot in (-1, 4):
        with pytest.raises(UnknownSlotError, match=f"e has no slot {slot}: it has 4"):
            await client.pin("e", slot)
    with pytest.raises(SpaceError, match="no"):
        await client.bounds("e", "no", 0.1, 0.2)
    with pytest.raises(SpaceError):
        await client.bounds("e", "rate", 0.2, 0.1)
    assert await sent(store) == [Submitted()]


async def test_one_bound_is_enough_and_the_other_stays(client, store):
    assert await client.bounds("e", "rate", min=0.01) == (0.01, 1.0)
    assert await client.bounds("e", "rate", max=0.5) == (1e-3, 0.5)
    assert (await sent(store))[1:] == [
        Control(action="bounds", by="me", parameter="rate", low=0.01, high=1.0),
        Control(action="bounds", by="me", parameter="rate", low=1e-3, high=0.5),
    ]
    for parameter, said in (("rate", "give min, max"), ("no", "not in the space")):
        with pytest.raises(SpaceError, match=said):
            await client.bounds("e", parameter, *([] if parameter == "rate" else [0.1]))
    with pytest.raises(SpaceError, match="rate"):
        await client.bounds("e", "rate", min=2.0)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (float("nan"), 1.0, "rate: min nan and max 1.0 must be finite"),
        (1e-3, float("inf"), "must be finite"),
        (5e-324, 1e308, "is too wide a range for a float"),
    ],
)
async def test_bounds_that_cannot_be_counted_on_are_refused(client, store, low, high, said):
    before = await store.depths("e")
    with pytest.raises(SpaceError, match=said):
        await client.bounds("e", "rate", low, high)
    assert await store.depths("e") == before


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"guarded": 2.0}, "guarded = 2.0 is above 1"),
        ({"power": 10**30}, "has more than 64 bits"),
        ({"power": 1e30}, "is above 1e"),
    ],
)
async def test_constants_out_of_their_range_are_refused(client, store, constants, said):
    before = await store.depths("e")
    with pytest.raises(ExperimentError, match=said):
        await client.change("e", optimizer=constants)
    assert await store.depths("e") == before


async def test_more_steps_stand_in_the_declaration_when_they_are_decided(client, store):
    with pytest.raises(ExperimentError, match="e: steps: 3 is not above the current 3; give"):
        await client.extend("e", 3)
    with pytest.raises(ExperimentError, match="e: steps: 18446744073709551615 is above 1000000000"):
        await client.extend("e", 2**64 - 1)
    await client.extend("e", 4)
    assert (await client.spec("e")).steps == 3
    await decided(store)
    assert (await client.spec("e")).steps == 4
    assert (await client.spec("e")).model_copy(update={"steps": 3}) == declared()
    with pytest.raises(ExperimentError, match="not above the current 4"):
        await client.extend("e", 4)


async def test_slots_and_constants_stand_in_the_declaration_when_they_are_decided(client, store):
    for wrong, message in (
        ({}, "e: nothing to change"),
        ({"population": 2}, "e: population: 2 is not between 4"),
        ({"optimizer": {"facotr": 1.0}}, "did you mean 'factor'"),
    ):
        with pytest.raises(ExperimentError, match=message):
            await client.change("e", **wrong)
    await client.change("e", population=6, optimizer={"factor": 0.3})
    await decided(store)
    assert await client.spec("e") == declared(population=4, optimizer={"name": "romul"})
    await client.change("e", optimizer={"factor": 0.3})
    await decided(store)
    assert (await client.spec("e")).optimizer.options == {"factor": 0.3}
    await client.stop("e")
    await decided(store)
    with pytest.raises(ExperimentError, match="e is stopped: continue it first with `romul ext"):
        await client.change("e", population=6)


async def test_how_many_slots_there_are_is_what_was_decided_last(client, store):
    await decided(store)
    with pytest.raises(UnknownSlotError, match="it has 4"):
        await client.pin("e", 4)
    await client.pin("e", 3)
    assert [event.slot for event in await sent(store)] == [3]


async def test_a_removed_experiment_is_gone(client):
    await client.remove("e")
    assert await client.statuses() == {}


async def test_dead_letters_go_back_or_go_away(client, store):
    letters = DeadLetters(store)
    short, long = b"\xc1", b"x" * (MAX_DEAD_BODY + 1)
    for body in (short, long, short):
        await store.send("e", body)
    entries = [e for e in await store.read(["e"], "a", 10, 0) if e.body in (short, long)]
    await store.dead_letter("e", "inbox", [(e.id, "no message", e.body) for e in entries])
    first, cut, last = await letters.letters("e")
    assert (first.body, cut.size, last.reason) == (short, MAX_DEAD_BODY + 1, "no message")
    assert await letters.letters("e", limit=2) == [first, cut]
    assert await letters.letters("e", [last.id]) == [last]
    with pytest.raises(StoreError, match="e: no dead letter 9-9"):
        await letters.drop("e", [first.id, "9-9"])
    assert await letters.drop("e", [first.id]) == 1
    assert await letters.resubmit("e") == Resubmitted(back=1, cut=1)
    assert await letters.letters("e") == [cut]
    assert [e.body for e in await store.read(["e"], "b", 10, 0)] == [short]


@pytest.mark.parametrize("worker", ["", "a/b", "#", "a\udcff"])
def test_a_worker_s_name_that_cannot_stand_in_a_topic_is_refused(worker):
    with pytest.raises(BrokerError, match="worker name "):
        topic(worker, "control")


async def test_without_a_broker_no_worker_is_drained(client):
    with pytest.raises(NoAnswerError, match="w cannot be drained: this client has no broker"):
        await client.drain("w")


async def test_a_drained_worker_is_in_the_history_of_what_it_serves(tmp_path):
    store, received, connected = MemoryStore(), [], asyncio.Event()
    async with embedded_broker(tmp_path) as url:
        broker = Broker.parse(url)
        client = Client(store, by="me", broker=broker)
        for name in ("e", "other"):
            await client.submit(declared(name=name))
        await store.present(["e"], "w", {"state": "idle"})
        assert await client.served_by("w") == ["e"]

        async def on_message(message):
            received.append(message.body["do"])
            answer = {"request": message.body["request"]}
            worker.send(Message(topic("w", "received"), answer))

        worker = MqttConnection(
            broker,
            "w",
            [topic("w", "control")],
            on_message,
            on_change=lambda there: connected.set() if there else None,
        )
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(connected.wait(), 20)
        assert await client.drain("w") == ["e"]
        assert await client.drain("w", at_once=True, names=["other"]) == ["other"]
        await cancel(running)
    assert received == ["drain", "stop"]
    wish = Control(action="drain", by="me", worker="w")
    assert await sent(store) == [Submitted(), wish]
    assert await sent(store, "other") == [Submitted(), wish]


def test_the_blocking_client_has_the_methods_of_the_asynchronous_one():
    ours = {name for name in vars(romul.Client) if not name.startswith("_")}
    # An experiment is submitted with romul.submit; the rest is for the commands and the dashboard.
    others = {"apply", "check", "close", "connect", "forget_fault", "is_halted", "served_by"}
    theirs = {name for name, part in vars(Client).items() if inspect.isfunction(part)}
    assert ours == {name for name in theirs if not name.startswith("_")} - others - {
        "submit",
        "spec",
    }
    for name in ours:
        blocking, method = getattr(romul.Client, name), getattr(Client, name)
        assert not inspect.iscoroutinefunction(blocking)
        assert inspect.signature(blocking) == inspect.signature(method)
        assert inspect.getdoc(blocking) == inspect.getdoc(method)


def test_the_process_s_user_acts_if_no_other_is_named(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    assert Client(MemoryStore()).by == "ada"
    assert Client(MemoryStore(), by="page").by == "page"


def test_a_user_without_a_name_acts_by_its_number(monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert Client(MemoryStore()).by == "uid 4711"


async def test_a_client_of_a_url_connects_with_its_first_call(redis_url):
    async with Client.connect(redis_url) as client:
        # The server of the tests keeps nothing on its disk.
        assert any("appendonly is off" in warning for warning in await client.check())
        assert "nowhere" not in await client.statuses()
    with pytest.raises(StoreError, match="://"):
        Client.connect("http://localhost")


async def test_a_broker_that_goes_away_leaves_no_exception_that_nobody_retrieves(tmp_path):
    printed = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: printed.append(context))
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_broker(tmp_path))
        async with connected(Broker.parse(url)) as client:
            await stack.aclose()
            async with asyncio.timeout(20):
                await asyncio.wait([client._disconnected])
        del client
    gc.collect()
    assert not printed
