"""Records of runs: replayed with the same or other decisions, and damaged ones."""

import asyncio
import gzip
import json
import logging
from dataclasses import replace
from functools import partial

import pytest
from numpy.random import default_rng

from romul_actors.core.events import Control, Submitted
from romul_actors.core.history import (
    ControlIgnored,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    TimePassed,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
    Unknown,
    to_json,
)
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import (
    ExperimentError,
    OptimizerError,
    RomulError,
    UnknownExperimentError,
)
from romul_actors.protocol.experiment import load
from romul_actors.protocol.messages import encode
from romul_actors.store.memory import MemoryStore
from romul_sim.churn import scenario as scenario_module
from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.simulation import Simulation, simulate
from romul_sim.churn.trace import Pool, generate, with_notice
from romul_sim.churn.trace_files import read_trace
from romul_sim.cluster.virtual_time import run
from romul_sim.drill.schedule import read_schedule as read_faults
from romul_sim.records.record import RecordError, is_record, machines_of, read_record, record
from romul_sim.records.replay import fork, simulated_loss, verify, with_settings
from romul_workers.schedule import read_schedule
from tests.conftest import romul
from tests.trials import declare


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


async def answer(store, request):
    """The answer of a store that is always there."""
    return await request(store)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A record of a simulated run that lost machines, paused, grew and made second copies."""
    monkeypatch.setattr(scenario_module, "KEEP_LINES", 100_000)
    file = tmp_path / "record.jsonl"
    arrivals = generate("weibull", Pool(10, 900.0, 40_000.0), default_rng(3)).changes
    # Half of the machines are warned.
    warned = [change for change in arrivals if int(change.machine[1:]) % 2]
    notices = [change for change in with_notice(warned, 20.0) if change.what == "notice"]
    changes = sorted([*arrivals, *notices], key=lambda change: change.at_s)
    scenario = Scenario(changes, steps=15, policy=Policy(max=12, per_worker=1.5))

    class Recorded(Simulation):
        async def figures(self, ended_s):
            await record(partial(answer, self.store), "search-0", file, 0.5)
            return await super().figures(ended_s)

        def send(self, body):
            self.store.memory.add("search-0", "inbox", body)

        async def play(self):
            loop = asyncio.get_running_loop()
            pause, resume = (Control(action="pause", by="me"), Control(action="resume", by="me"))
            # Slots that there are not; the last one names none.
            unknown = (Control(action="pin", by="me", slot=99), Control(action="unpin", by="me"))
            timed = [(200.0, pause), (230.0, resume), (240.0, resume)]
            for at_s, control in (*timed, (250.0, unknown[0]), (251.0, unknown[1])):
                loop.call_later(at_s, self.send, encode(control))
            return await super().play()

    figures = run(Recorded(scenario).play()).figures
    assert figures["status"] == "finished"
    return file


def kinds(found):
    return {type(line) for line in found.lines}


@pytest.mark.parametrize("changes", [[], ["optimizer.name=random"]])
def test_an_optimizer_that_ends_the_program_is_named_by_a_replay(recorded, monkeypatch, changes):
    def leave(*_):
        raise SystemExit(0)

    name = "random" if changes else "romul"
    monkeypatch.setattr(OPTIMIZERS[name], "decide", leave)
    with pytest.raises(OptimizerError, match=f"optimizer '{name}': SystemExit: 0"):
        fork(read_record(recorded), changes)


def test_the_same_events_are_the_same_decisions(recorded):
    found = read_record(recorded)
    assert {
        TimePassed,
        TrialReported,
        TrialFailed,
        TrialReleased,
        SearchPaused,
        SearchResumed,
        ControlIgnored,
    } <= kinds(found)
    ignored = [line for line in found.lines if isinstance(line, ControlIgnored)]
    assert [(line.action, line.given) for line in ignored] == [
        ("resume", {}),
        ("pin", {"slot": 99}),
        ("unpin", {}),
    ]
    assert not [line for line in found.lines if isinstance(line, Unknown)]
    verified = verify(found)
    assert verified.parting is None
    assert verified.trials == sum(isinstance(line, TrialCreated) for line in found.lines) > 100


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (TrialCreated, {"hyperparameters": {}}),
        (TrialReported, {"value": -1.0}),
        (TrialFailed, {"again": False}),
    ],
)
def test_a_line_that_was_changed_is_found(recorded, kind, change):
    found = read_record(recorded)
    lines = list(found.lines)
    chosen = next(i for i, line in enumerate(lines) if i >= 60 and isinstance(line, kind))
    lines[chosen] = replace(lines[chosen], **change)
    parting = verify(replace(found, lines=lines)).parting
    assert parting is not None
    assert not parting.same


def test_other_settings_part_where_they_matter(recorded):
    found = read_record(recorded)
    same = fork(found, ["history_keep=5"])
    assert (same.changed, same.parting) == (0, None)
    other = fork(found, ["optimizer.donors=0.5"])
    assert 0 < other.changed < other.decisions
    assert other.parting is not None
    random = fork(found, ["optimizer.name=random"])
    assert random.changed > other.changed
    best = simulated_loss(found, found.experiment, "misspecified", 0)
    assert best == simulated_loss(found, found.experiment, "misspecified", 0)
    assert best < simulated_loss(found, replace_optimizer(found, "random"), "misspecified", 0)


def test_a_constant_of_the_optimizer_needs_no_prefix(recorded):
    experiment = read_record(recorded).experiment
    short, long = (with_settings(experiment, [f"{at}factor=0.5"]) for at in ("", "optimizer."))
    assert short == long != experiment
    # A key of the declaration is what it was.
    assert with_settings(experiment, ["steps=20"]).steps == 20


HEAD = '{"at": 0, "event": "record", "version": 1, "began_ms": 0'
STARTED = '{"at": 0, "event": "history", "line": {"event": "started", "at_ms": 0}}'


def replace_optimizer(found, name):
    return with_settings(found.experiment, [f"optimizer.name={name}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps", "setting=value"),
        ("nothing.at.all=1", "no setting"),
        ("steps=-1", "steps"),
        ('steps="5"', "--set: steps: '5' is not a whole number"),
        ("optimizer.nothing=1", "nothing"),
        ("unheard=1", "unheard"),
    ],
)
def test_a_setting_that_is_none_is_refused(recorded, change, message):
    with pytest.raises(ExperimentError, match=message):
        with_settings(read_record(recorded).experiment, [change])


def test_a_record_is_a_trace(recorded):
    found = read_record(recorded)
    trace = read_trace(recorded)
    assert trace.changes == tuple(found.changes)
    figures = simulate(Scenario(trace.changes, steps=5)).figures
    assert figures["status"] == "finished"


def test_a_record_says_how_long_its_trials_took_and_what_was_searched(recorded):
    found = read_record(recorded)
    seconds = sorted(line.seconds for line in found.lines if isinstance(line, TrialReported))
    assert found.trial_s == pytest.approx(seconds[len(seconds) // 2], rel=0.1)
    assert replace(found, lines=[]).trial_s is None
    done = romul("sim", f"--trace={recorded}")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    trial = f"{found.trial_s:.3g} s"
    assert (
        f"8 slots, 15 steps, trials of {trial}; misspecified, optimizer romul, policy def" in first
    )
    assert "trials             120" in done.stdout
    given = romul("sim", f"--trace={recorded}", "--population=5", "--steps=2", "--trial-s=30")
    assert "5 slots, 2 steps, trials of 30 s;" in given.stdout.splitlines()[0]
    assert "warning" not in done.stderr + given.stderr


def test_machines_are_known_from_history_alone():
    result = partial(
        TrialReported, trial="0-0", attempt=1, slot=0, step=0, value=0.0, checkpoint="c"
    )
    failed = partial(TrialFailed, trial="0-0", attempt=1, slot=0, step=0, message="", again=True)
    lines = [
        SearchStarted(at_ms=1000),
        result(at_ms=5000, worker="a", seconds=2.0),
        result(at_ms=9000, worker="b", seconds=4.0),
        result(at_ms=9500, worker="b", seconds=4.0),
        failed(at_ms=12000, worker="a", reason="lost"),
    ]
    found = [(c.at_s, c.machine, c.what, c.speed) for c in machines_of(lines, 1000)]
    assert found == [
        (2.0, "a", "arrives", 2.0),
        (4.0, "b", "arrives", 1.0),
        (11.0, "a", "leaves", None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a record"),
        ("nonsense", ":1:"),
        ('{"at": 0, "event": "record", "version": 1}', "not a record"),
        ('{"event": "record", "version": 9}\n{"event": "history", "line": {}}', "version 9"),
        ('{"at": 0}', ":1:"),
        (f"{HEAD}}}\n{STARTED}", "by its first line: KeyError"),
        (
            f'{HEAD}, "experiment": {{"name": "a"}}}}\n{STARTED}',
            "stored experiment: task: required, but not given",
        ),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, text, message):
    file = tmp_path / "record.jsonl"
    file.write_text(text)
    with pytest.raises(RecordError, match=message):
        read_record(file)


def test_a_history_without_its_beginning_is_refused(recorded, tmp_path):
    found = read_record(recorded)

    async def main():
        store = MemoryStore()
        name = found.experiment.name
        await store.create(name, found.experiment.model_dump_json(), encode(Submitted()))
        store.memory.experiments[name].meta["status"] = "finished"
        store.memory.experiments[name].history = [(1, json.dumps(to_json(found.lines[5])))]
        await record(partial(answer, store), name, tmp_path / "cut.jsonl")

    with pytest.raises(RecordError, match="history_keep"):
        run(main())

    async def unknown():
        await record(partial(answer, MemoryStore()), "unknown", tmp_path / "no.jsonl")

    with pytest.raises(UnknownExperimentError):
        run(unknown())


def test_no_machine_leaves_because_the_store_was_silent(tmp_path):
    file = tmp_path / "silent.jsonl"

    async def main():
        loop = asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        experiment = declare(checkpoints="memory://x", timeouts={"lease_s": 20.0})
        await store.create("e", experiment.model_dump_json(), encode(Submitted()))
        found = store.memory.experiments["e"]
        found.history = [(1, json.dumps(to_json(SearchStarted(at_ms=0))))]

        async def late(request):
            if 10 <= loop.time() < 100:
                await asyncio.sleep(100 - loop.time())
            return await request(store)

        def beat(*workers):
            found.workers |= {worker: (store.memory.now_ms(), {}) for worker in workers}

        beat("gone", "stays")
        for at_s in (110, 125, 140):
            loop.call_at(at_s, beat, "stays")
        loop.call_at(150, found.meta.update, {"status": "finished"})
        await record(late, "e", file)

    run(main())
    assert [(c.machine, c.what) for c in read_record(file).changes] == [
        ("gone", "arrives"),
        ("stays", "arrives"),
        ("gone", "leaves"),
    ]


@pytest.mark.parametrize("read", [read_record, read_trace, read_schedule, read_faults, load])
def test_a_file_that_is_not_there_is_named_in_words(tmp_path, read):
    for file, why in (
        (tmp_path / "none.json", "there is no such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(RomulError) as caught:
            read(file)
        assert str(caught.value) == f"{file}: cannot be read: {why}"


def test_a_record_that_cannot_be_written_is_named_in_words(recorded, tmp_path):
    file = tmp_path / "none" / "record.jsonl"

    async def main():
        store = MemoryStore()
        experiment = read_record(recorded).experiment
        await store.create(experiment.name, experiment.model_dump_json(), encode(Submitted()))
        await record(partial(answer, store), experiment.name, file)

    with pytest.raises(RecordError) as caught:
        run(main())
    assert str(caught.value) == f"{file}: cannot be written: No such file or directory"


def test_a_record_is_read_from_whatever_file_holds_it(recorded):
    found, whole = read_record(recorded), recorded.read_bytes()
    assert is_record(recorded)
    for content in (gzip.compress(whole), b"\xef\xbb\xbf" + whole, whole.replace(b"\n", b"\n\n")):
        recorded.write_bytes(content)
        assert is_record(recorded)
        assert read_record(recorded) == found


def test_a_worker_whose_clock_went_back_does_not_leave_before_it_came():
    result = TrialReported(
        trial="0-0",
        attempt=1,
        slot=0,
        step=0,
        value=0.0,
        checkpoint="c",
        at_ms=9000,
        worker="a",
        seconds=2.0,
    )
    failed = TrialFailed(
        trial="0-1",
        attempt=1,
        slot=0,
        step=1,
        message="",
        again=True,
        at_ms=500,
        worker="a",
        reason="lost",
    )
    assert [(c.at_s, c.what) for c in machines_of([result, failed], 1000)] == [
        (6.0, "arrives"),
        (6.0, "leaves"),
    ]


def test_no_machine_of_a_record_stands_still():
    def reported(worker, seconds):
        return TrialReported(
            trial="0-0",
            attempt=1,
            slot=0,
            step=0,
            value=0.0,
            checkpoint="c",
            at_ms=10**9,
            worker=worker,
            seconds=seconds,
        )

    lines = [reported("usual", 1e-5), reported("usual", 1e-5), reported("slow", 10.0)]
    assert {c.machine: c.speed for c in machines_of(lines, 0)} == {"usual": 1.0, "slow": 1e-4}


@pytest.mark.parametrize("read", [read_record, read_trace, read_schedule])
@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, '{"at": ' + "[" * 20_000, b"\xff", "9" * 5000],
    ids=["deep", "deep line", "bytes", "long"],
)
def test_a_file_that_no_json_reader_can_read_is_named(tmp_path, read, text):
    file = tmp_path / "odd.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RomulError, match=r"odd\.json"):
        read(file)
