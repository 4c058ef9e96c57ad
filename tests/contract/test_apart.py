"""One experiment's damaged data, on a real server: the actor and the workers serve the others."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys

import pytest
from prometheus_client import generate_latest

from romul_actors.actor.loop import Actor
from romul_actors.cli.output.rows import progress
from romul_actors.client import Client
from romul_actors.core import optimizers
from romul_actors.core.events import Control, Submitted
from romul_actors.core.history import SearchChanged, TrialReported
from romul_actors.errors import ExperimentError
from romul_actors.observe.doctor import examine
from romul_actors.observe.metrics import ActorMetrics
from romul_actors.observe.snapshot import full_snapshot, snapshot
from romul_actors.protocol import plan
from romul_actors.protocol.differences import Changes
from romul_actors.protocol.messages import decode_event, encode
from romul_actors.protocol.statuses import ENDED
from romul_actors.store.keys import PARTS, key, slot_key
from romul_actors.store.redis import RedisStore
from romul_workers.trainer import Success, Trainer, ignore
from romul_workers.worker.loop import Worker
from romul_workers.worker.settings import WorkerSettings
from tests.trials import declare
from tests.unit.test_plugins import install

REMEDY = "correct it (see docs/redis.md), or restore the server's data"
PATIENCE_S = 100
"""`pb2` imports a library at its first decision; on a busy machine that takes long."""
pytestmark = pytest.mark.timeout(5 * PATIENCE_S)


class Instant(Trainer):
    """Ends every trial at once; nothing is stored."""

    async def train(self, experiment, trial, stores=ignore):
        del experiment, stores
        return Success(float(trial.slot), f"{trial.id}-{trial.attempt}-ab")

    def ask_to_stop(self):
        return None

    async def discard(self, experiment, checkpoint):
        return None

    async def close(self):
        return None


@pytest.fixture
async def server(redis_url, raw):
    made = RedisStore(redis_url)
    yield made
    await made.close()


async def submit(store, name, **more):
    keys = {"task": "toys", "population": 4, "steps": 4, "checkpoints": "memory://apart", **more}
    spec = declare(name=name, **keys).model_dump_json()
    await store.create(name, spec, encode(Submitted()))


async def begun(store, *names):
    """Submit searches, and decide their first trials."""
    for name in names:
        await submit(store, name)
    await Actor(store, "before", pace_s=0.0).turn()


@contextlib.asynccontextmanager
async def serving(store):
    """An actor and a worker, while the context is open."""
    stop = asyncio.Event()
    settings = WorkerSettings("w", allow=("toys",), grace_s=0.0, pace_s=0.02, garbage_ms=0)
    parts = (Actor(store, "a", pace_s=0.02), Worker(store, Instant(), settings))
    tasks = [asyncio.create_task(part.run(stop)) for part in parts]
    try:
        yield
    finally:
        stop.set()
        # Raises the error that ended one of them.
        await asyncio.gather(*tasks)


async def until(condition):
    """Wait until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def assert_ends(store, name="e"):
    async def over():
        return (await store.experiments()).get(name) in ENDED

    await until(over)
    assert (await store.experiments())[name] == "finished"


MEMORIES = [
    ("de", '{"loss": 0.5}'),
    ("de", '{"loss": 0.5, "base": "here"}'),
    ("de", '{"loss": "low", "base": [0.5]}'),
    ("de", '{"loss": 0.5, "base": [0.5, 0.5]}'),
    ("asha", '{"born": "yesterday"}'),
    ("asha", '{"rungs": {"first": [0.5]}}'),
    ("asha", '{"rungs": {"1": ["low"]}}'),
    ("tpe", '{"tried": [[1.0, 0.5, 0.5]]}'),
    ("tpe", '{"tried": {"1": [[0.5, 0.5, 0.5]]}}'),
    ("pb2", '{"falls": {"1": [[0.5, 0.5]]}}'),
    ("pb2", '{"falls": [[1.0, 0.5, 0.5]]}'),
    ("pb2", '{"before": null}'),
    ("romul", "[1]"),
]


@pytest.mark.parametrize(("optimizer", "memory"), MEMORIES)
async def test_what_an_optimizer_cannot_go_on_from_stops_its_own_experiment_alone(
    server, raw, caplog, optimizer, memory
):
    await submit(server, "bad", optimizer=optimizer)
    await submit(server, "e")
    await Actor(server, "before", pace_s=0.0).turn()
    right = raw.hget(slot_key("bad", 2), "memory")
    raw.hset(slot_key("bad", 2), "memory", memory)
    with caplog.at_level(logging.ERROR, "romul.actor"):
        async with serving(server):
            await assert_ends(server)
            [logged] = [record.getMessage() for record in caplog.records]
            words = (
                f"experiment 'bad', slot 2: field 'memory' holds {memory!r}, which is not valid "
                f"memory of the optimizer {optimizer!r}: {REMEDY}"
            )
            assert logged == f"experiment bad cannot be served: {words}"
            # This is what `romul status`, `top`, the dashboard and the doctor show.
            seen = await snapshot(server, "bad")
            assert seen.status == "running"
            assert seen.reason == seen.fault == f"actor a cannot serve it: {words}"
            raw.hset(slot_key("bad", 2), "memory", right)
            await assert_ends(server, "bad")
            assert (await snapshot(server, "bad")).reason == ""


KEEPING = """
from dataclasses import dataclass
from typing import ClassVar

from romul_actors.core.optimizers import Move, Optimizer


@dataclass(frozen=True)
class Keeping(Optimizer):
    name: ClassVar[str] = "keeping"
    gain: float = 0.5

    def quorum(self, n_pool):
        return n_pool

    def decide(self, view, due):
        moves = []
        for i in due:
            speed = view.slots[i].memory.get("speed", 1.0) * self.gain
            more = view.slots[i].memory.get("more", [])
            vector = [speed * x for x in view.known[i].vector] + more
            moves.append(Move(i, i, tuple(vector), {"speed": speed}))
        return moves
"""
CHECKING = """
    def check_memory(self, memory, n_dims):
        if not 0.0 <= memory.get("speed", 1.0) <= 1.0:
            raise ValueError("speed")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder in which packages can be installed."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("keeping", "stepping"):
        sys.modules.pop(name, None)


INSTALLED = [
    # Raises where it is used, or is checked when it is read.
    ("", '{"speed": "high"}', "the decision failed (TypeError: "),
    ("", '{"more": [0.5]}', "0.5) is not a tuple of 1 numbers"),
    ("", '{"speed": NaN}', "slot 2: (nan,) is not within [0, 1]"),
    (CHECKING, '{"speed": "high"}', "slot 2: field 'memory' holds"),
    (CHECKING, '{"speed": 1e9}', "slot 2: field 'memory' holds"),
    (CHECKING, '{"speed": NaN}', "slot 2: field 'memory' holds"),
]


@pytest.mark.parametrize(("checking", "memory", "words"), INSTALLED)
async def test_what_an_installed_optimizer_cannot_go_on_from_stops_its_own_experiment_alone(
    server, raw, site, checking, memory, words
):
    install(site, "keeping", KEEPING + checking, optimizers="keeping = keeping:Keeping")
    await submit(server, "bad", optimizer="keeping")
    await submit(server, "e")
    await Actor(server, "before", pace_s=0.0).turn()
    right = raw.hget(slot_key("bad", 2), "memory")
    raw.hset(slot_key("bad", 2), "memory", memory)
    async with serving(server):
        await assert_ends(server)
        assert words in await fault_of(server, "bad")
        raw.hset(slot_key("bad", 2), "memory", right)
        await assert_ends(server, "bad")


LEAVING = {
    "decide": ("sys.exit('bye')", "the decision failed (SystemExit: bye) with optimizer 'keeping'"),
    # An error as a library in Rust raises it: it is not an `Exception`.
    "quorum": ("raise Panic('why')", "the decision failed (Panic: why) with optimizer 'keeping'"),
    "check_memory": ("sys.exit(0)", "slot 0: field 'memory' holds"),
    "__post_init__": ("sys.exit()", "(keeping:Keeping) cannot be created: SystemExit: "),
}


@pytest.mark.parametrize("method", LEAVING)
async def test_an_installed_optimizer_that_ends_the_program_stops_its_own_experiment_alone(
    server, site, method
):
    install(site, "keeping", KEEPING, optimizers="keeping = keeping:Keeping")
    await submit(server, "bad", optimizer="keeping")
    await submit(server, "e")
    await Actor(server, "before", pace_s=0.0).turn()
    statement, words = LEAVING[method]
    module = (
        f"import sys\n\n\nclass Panic(BaseException):\n    pass\n\n{KEEPING}\n"
        f"    def {method}(self, *arguments):\n        {statement}\n"
    )
    (site / "keeping.py").write_text(module)
    sys.modules.pop("keeping")
    async with serving(server):
        await assert_ends(server)
        assert words in await fault_of(server, "bad")


async def test_a_change_that_cannot_be_decided_is_a_dead_letter_and_the_search_goes_on(
    server, site
):
    joining = "\n    def join(self, view, slot):\n        raise RuntimeError('no way to join')\n"
    install(site, "keeping", KEEPING + joining, optimizers="keeping = keeping:Keeping")
    await submit(server, "bad", optimizer="keeping", steps=1000)

    async def begun():
        return int((await server.load("bad")).meta.get("reported", 0)) > 4

    async def buried():
        return await server.dead("bad")

    async with serving(server):
        await until(begun)
        operator = Client(server, by="someone")
        await operator.change("bad", population=6)
        await until(buried)
        [letter] = await buried()
        assert "the decision failed (RuntimeError: no way to join)" in letter.reason
        await operator.change("bad", optimizer={"gain": 0.25})
        before = int((await server.load("bad")).meta["reported"])

        async def goes_on():
            return int((await server.load("bad")).meta["reported"]) > before + 4

        await until(goes_on)
        await operator.stop("bad")
    seen = await snapshot(server, "bad")
    assert (seen.fault, len(seen.slots)) == ("", 4)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        # These values are valid numbers.
        ("romul", {"quorum_share": 1e308}, "the decision failed (OverflowError: "),
        ("truncation", {"quorum_share": 1e308}, "the decision failed (OverflowError: "),
    ],
)
async def test_an_optimizer_that_raises_stops_its_own_experiment_alone(
    server, caplog, name, options, words
):
    await submit(server, "bad", optimizer={"name": name, **options})
    await submit(server, "e")
    with caplog.at_level(logging.ERROR, "romul.actor"):
        async with serving(server):
            await assert_ends(server)

            async def shown():
                return (await snapshot(server, "bad")).fault

            await until(shown)
            assert (await shown()).startswith(f"actor a cannot serve it: {words}")
            [record] = caplog.records
            # The traceback says where.
            assert record.exc_info[0] is OverflowError
            assert "quorum" in str(record.exc_text or caplog.text)
            # A new one of that name is served.
            await server.remove("bad")
            await submit(server, "bad")
            await assert_ends(server, "bad")
    assert len(caplog.records) == 1


async def fault_of(store, name):
    """Wait until a fault of an experiment is stored, and return it."""

    async def shown():
        return (await snapshot(store, name)).fault

    await until(shown)
    return await shown()


@pytest.mark.parametrize("name", ["romul", "truncation"])
async def test_a_change_to_a_sound_constant_frees_an_experiment_that_could_not_be_decided(
    server, name
):
    await submit(server, "bad", optimizer={"name": name, "quorum_share": 1e308})
    operator = Client(server, by="someone")
    async with serving(server):
        fault = await fault_of(server, "bad")
        # First one that does not help: it keeps its place, and does not delay the next one.
        useless = {"quorum_share": 1.5e308}
        with pytest.raises(ExperimentError, match=r"quorum_share = 1.5e\+308 is above 1"):
            await operator.change("bad", optimizer=useless)
        # An older version asks for it.
        await server.send("bad", encode(Control(action="change", by="someone", constants=useless)))
        await operator.change("bad", optimizer={"quorum_share": 0.5})
        await assert_ends(server, "bad")
        assert (await snapshot(server, "bad")).fault == "" != fault
    found = await full_snapshot(server, "bad")
    assert [line.constants for line in found.history if isinstance(line, SearchChanged)] == [
        {"quorum_share": 1.5e308},
        {"quorum_share": 0.5},
    ]
    # Reports that arrived in the meantime count, once each.
    results = [line.trial for line in found.history if isinstance(line, TrialReported)]
    assert len(results) == len(set(results)) == 16
    assert (await server.depths("bad"))["dead"] == 0


STEPPING = """
from dataclasses import dataclass
from typing import ClassVar

from romul_actors.core.optimizers import Move, Optimizer


@dataclass(frozen=True)
class Stepping(Optimizer):
    name: ClassVar[str] = "stepping"
    step: float = 0.1

    def quorum(self, n_pool):
        return n_pool

    def decide(self, view, due):
        moves = [Move(i, i, view.known[i].vector) for i in due]
        if self.step > 1:
            WRONG
        return moves
"""
WRONG_STEPS = [
    ("raise ValueError('too far')", "(ValueError: too far) with optimizer 'stepping': "),
    (
        "moves[2] = Move(2, 2, (9.0,))",
        "(OptimizerError: optimizer 'stepping': slot 2: (9.0,) is not within [0, 1])",
    ),
    ("moves.pop()", "(OptimizerError: optimizer 'stepping': returned moves for slots [0, 1, 2]"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG_STEPS)
async def test_a_change_to_a_sound_constant_frees_an_experiment_whose_moves_were_wrong(
    server, site, wrong, words
):
    module = STEPPING.replace("WRONG", wrong)
    install(site, "stepping", module, optimizers="stepping = stepping:Stepping")
    await submit(server, "bad", optimizer={"name": "stepping", "step": 5.0})
    async with serving(server):
        assert words in await fault_of(server, "bad")
        await Client(server, by="someone").change("bad", optimizer={"step": 0.1})
        await assert_ends(server, "bad")
        assert (await snapshot(server, "bad")).fault == ""


async def test_an_experiment_that_cannot_be_decided_can_be_stopped(server):
    await submit(server, "bad", optimizer={"name": "romul", "quorum_share": 1e308})
    async with serving(server):
        await fault_of(server, "bad")
        await Client(server, by="someone").stop("bad")

        async def stopped():
            return (await server.experiments())["bad"] == "stopped"

        await until(stopped)
        await until(lambda: is_faultless(server))
        assert await stopped()
    assert (await server.depths("bad"))["dead"] == 0


async def is_faultless(store, name="bad"):
    """Whether no fault is stored any more; the actor removes it after a successful commit."""
    return (await snapshot(store, name)).fault == ""


GONE = {"name": "romul", "replaced_first": 0.25, "patience": 2.0, "power": 0.1}
"""Options that an older version may have stored; two of them no longer exist."""


async def test_a_search_goes_on_without_options_that_are_no_more(server, raw, redis_url, caplog):
    await submit(server, "bad", steps=3)
    await Actor(server, "before", pace_s=0.0).turn()
    spec = json.loads(raw.hget(key("bad"), "spec"))
    raw.hset(key("bad"), "spec", json.dumps({**spec, "optimizer": GONE}))
    said = (
        "replaced_first = 0.25 no longer counts: optimizer 'romul' has no option 'replaced_first'",
        "patience = 2.0 no longer counts: optimizer 'romul' has no option 'patience': it takes ",
    )
    seen = await snapshot(server, "bad")
    findings = [one.what for one in await examine(redis_url, None) if one.level == "warning"]
    for sentence in said:
        assert sentence in seen.reason
        assert [what for what in findings if what.startswith(f"bad: {sentence}")]
    operator = Client(server, by="someone")
    with pytest.raises(ExperimentError, match="'replaced_first' any more"):
        await operator.change("bad", optimizer={"replaced_first": 0.5})
    await operator.apply("bad", Changes(bounds={"x": (0.2, 0.5)}, steps=4, constants={"power": 0}))
    with caplog.at_level(logging.WARNING, "romul.actor"):
        async with serving(server):
            await assert_ends(server, "bad")
    logged = [record.getMessage() for record in caplog.records]
    for sentence in said:
        assert len([text for text in logged if text.startswith(f"experiment bad: {sentence}")]) == 1
    found = await full_snapshot(server, "bad")
    assert (found.reason, found.fault, found.depths["dead"]) == ("", "", 0)
    results = [line.trial for line in found.history if isinstance(line, TrialReported)]
    assert len(results) == len(set(results)) == 16
    # Stored data is not lost: an older version can still read it.
    options = {"replaced_first": 0.25, "patience": 2.0, "power": 0}
    assert found.experiment.optimizer.options == options


async def test_what_an_actor_of_another_version_leaves_out_is_seen_by_all(
    server, raw, redis_url, monkeypatch
):
    await submit(server, "bad", steps=3)
    await Actor(server, "newer", pace_s=0.01).turn()
    spec = json.loads(raw.hget(key("bad"), "spec"))
    newer = {"name": "romul", "shards": 4}
    raw.hset(key("bad"), "spec", json.dumps({**spec, "optimizer": newer}))
    older = Actor(server, "older", pace_s=0.01)
    await server.send("bad", encode(Control(action="pause", by="someone")))
    await older.turn()
    with monkeypatch.context() as patch:
        # A reader that knows the option.
        patch.setattr(plan, "make_stored", lambda name, _: (optimizers.make(name, {}), []))
        sentence = "according to an actor of another version, shards = 4 no longer counts: "
        assert sentence in progress(await snapshot(server, "bad"))["reason"]
        findings = [one.what for one in await examine(redis_url, None) if one.level == "warning"]
        assert [what for what in findings if what.startswith(f"bad: {sentence}")]
        # Once an actor that knows it decides, nothing is left out.
        await server.send("bad", encode(Control(action="resume", by="someone")))
        await Actor(server, "newer", pace_s=0.01).turn()
        assert (await snapshot(server, "bad")).reason == ""


FUTURE = {"schema": 7, "shards": 4}
"""Fields that a later version may write into a declaration."""


@pytest.mark.parametrize("damage", [FUTURE, {"optimizer": {"name": "former"}}, "no JSON", "slot"])
async def test_a_search_that_cannot_be_read_is_stopped_and_removed_by_command(
    server, raw, redis_url, damage
):
    await submit(server, "bad")
    await Actor(server, "before", pace_s=0.0).turn()
    spec = json.loads(raw.hget(key("bad"), "spec"))
    if damage == "slot":
        raw.hset(slot_key("bad", 0), "step", "many")
    else:
        raw.hset(key("bad"), "spec", "{" if damage == "no JSON" else json.dumps({**spec, **damage}))
    await submit(server, "e")
    async with serving(server):
        assert "cannot serve it" in await until_given(lambda: fault_stored(raw))
        # What cannot be decided stays for an actor that can read it.
        await server.send("bad", encode(Control(action="pause", by="someone")))
        command(redis_url, "stop", "bad")

        async def stopped():
            return (await server.experiments())["bad"] == "stopped"

        await until(stopped)
        await assert_ends(server)
    assert raw.hget(key("bad"), "reason").startswith("stopped by ")
    [(_, last)] = raw.xrevrange(key("bad", "history"), count=1)
    assert json.loads(last["json"])["event"] == "stop"
    waiting = [decode_event(body) for body in (await server.outstanding("bad")).inbox]
    assert [one for one in waiting if isinstance(one, Control)] == [
        Control(action="pause", by="someone")
    ]
    command(redis_url, "remove", "bad", "--yes")
    assert "bad" not in await server.experiments()
    assert not raw.keys(key("bad") + "*")


async def fault_stored(raw):
    return raw.hget(key("bad"), "fault") or ""


async def until_given(ask):
    await until(ask)
    return await ask()


def command(redis_url, *arguments):
    """Run a command as a user does."""
    words = [sys.executable, "-m", "romul_actors.cli", *arguments, f"--redis={redis_url}"]
    subprocess.run(words, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("key_of_it", "value"),
    [
        ("max_hours", 1e305),
        ("optimizer", {"name": "former"}),
        ("timeouts", {"lease_s": 1e308}),
        ("timeouts", {"lease_s": 1e30}),
        (
            "from_run",
            {
                "name": "other",
                "checkpoints": [{"name": "0-0-1", "trial": "0-0", "hyperparameters": {"x": "9"}}],
            },
        ),
    ],
)
async def test_a_declaration_that_cannot_be_served_stops_its_own_experiment_alone(
    server, raw, caplog, key_of_it, value
):
    await submit(server, "bad")
    spec = json.loads(raw.hget(key("bad"), "spec"))
    raw.hset(key("bad"), "spec", json.dumps({**spec, key_of_it: value}))
    await submit(server, "e")
    with caplog.at_level(logging.ERROR, "romul.actor"):
        async with serving(server):
            await assert_ends(server)
            assert (await snapshot(server, "bad")).fault
            raw.hset(key("bad"), "spec", json.dumps(spec))
            await assert_ends(server, "bad")
    assert [r for r in caplog.records if "experiment bad cannot be served" in r.getMessage()]


@pytest.mark.parametrize("part", ["", "slot:0", *PARTS])
async def test_a_key_of_a_wrong_type_is_named_and_stops_its_own_experiment_alone(
    server, raw, caplog, part
):
    # The first and the last by name, so that there is an experiment before and after each.
    await begun(server, "bad", "e", "worse")
    for name in ("bad", "worse"):
        raw.delete(key(name, part))
        raw.rpush(key(name, part), "x")
    with caplog.at_level(logging.WARNING):
        async with serving(server):
            await assert_ends(server)
    # An actor that tries again and again says once what is wrong.
    said = [r.getMessage() for r in caplog.records if r.name == "romul.actor"]
    assert len(set(said)) == len(said)
    named = [text for text in caplog.messages if key("bad", part) in text]
    silent = {
        # Each search is removed, or its remaining data is only read by people.
        *("", "tick", "logs", "affinity", "offers", "targeted", "settled", "dead"),
    }
    assert named or part in silent, caplog.messages


@pytest.mark.parametrize("part", ["trials", "workers", "garbage"])
async def test_a_worker_says_once_which_key_is_wrong_and_takes_it_up_when_it_is_right(
    server, raw, caplog, part
):
    await begun(server, "bad", "e")
    # Of the three only the queue is there already.
    if part == "trials":
        raw.rename(key("bad", part), "kept")
    raw.rpush(key("bad", part), "x")
    with caplog.at_level(logging.WARNING):
        async with serving(server):
            await assert_ends(server)
            raw.delete(key("bad", part))
            if part == "trials":
                raw.rename("kept", key("bad", part))
            await assert_ends(server, "bad")
    of_the_worker = [r.getMessage() for r in caplog.records if r.name != "romul.actor"]
    assert len([text for text in of_the_worker if key("bad", part) in text]) == 1


@pytest.mark.parametrize("others", [[], ["worse"]], ids=["alone", "with another"])
async def test_where_no_queue_can_be_read_a_worker_says_it_once_too(server, raw, caplog, others):
    names = ["bad", *others]
    await begun(server, *names)
    for name in names:
        raw.rename(key(name, "trials"), f"kept {name}")
        raw.rpush(key(name, "trials"), "x")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await server.lease(names, "w", 10) is None
    assert [text.partition(":")[0] for text in caplog.messages] == names
    for name in names:
        raw.rename(f"kept {name}", key(name, "trials"))
    assert (await server.lease(names, "w", 10)).experiment == "bad"


@pytest.mark.parametrize("part", ["trials", "history", "garbage"])
async def test_a_commit_into_a_key_of_a_wrong_type_changes_nothing(server, raw, part):
    await submit(server, "bad")
    before = raw.hgetall(key("bad"))
    raw.delete(key("bad", part))
    raw.rpush(key("bad", part), "x")
    await Actor(server, "a", pace_s=0.0).turn()
    after = raw.hgetall(key("bad"))
    assert key("bad", part) in after.pop("fault")
    assert after == before
    assert not raw.keys(slot_key("bad", 0))


@pytest.mark.parametrize("part", ["", "slot:0"])
async def test_a_field_that_is_missing_or_wrong_ends_neither_the_doctor_nor_the_metrics(
    server, raw, redis_url, part
):
    await begun(server, "bad", "e")
    place = key("bad", part)
    fields = raw.hgetall(place)
    assert "status" in fields
    for field, right in fields.items():
        for wrong in (None, "\0{"):
            if wrong is None:
                raw.hdel(place, field)
            else:
                raw.hset(place, field, wrong)
            found = await examine(redis_url, None)
            assert [finding for finding in found if finding.what.startswith("e: ")]
            metrics = ActorMetrics()
            await metrics.refresh(server)
            shown = generate_latest(metrics.registry).decode()
            assert 'romul_running{experiment="e"} 1.0' in shown
        raw.hset(place, field, right)


@pytest.mark.parametrize("part", ["inbox", "trials"])
async def test_a_queue_that_is_gone_is_named_and_stops_its_own_experiment_alone(server, raw, part):
    await begun(server, "bad", "e", "worse")
    for name in ("bad", "worse"):
        raw.delete(key(name, part))
    async with serving(server):
        await assert_ends(server)

        async def shown():
            return f"{key('bad', part)} is gone" in (await snapshot(server, "bad")).fault

        await until(shown)
        # If everything is removed, nothing is reported as missing.
        await server.remove("bad")
        await submit(server, "bad")
        await assert_ends(server, "bad")
