"""The terminal's views of a real run: top, workers, history, lineage, explain, logs, doctor."""

import json
import os
import pty
import select
import signal
import subprocess
from urllib.parse import urlsplit

import pytest
import redis

from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import embedded_server
from romul_actors.store.redis.urls import hide_password
from tests.conftest import wait_for
from tests.system.conftest import System
from tests.warm import COLD


@pytest.fixture
def running(system):
    system.submit(
        name="seen",
        task="chatty",
        population=6,
        steps=300,
        budget=1,
        space={"rate": {"type": "float", "min": 1e-3, "max": 1.0, "scale": "log"}},
        # No other worker does a lost trial before it is missed.
        elasticity={"second_copy": 0},
    )
    system.actor()
    system.doomed = system.worker("--name=doomed", "--allow=chatty")
    system.worker("--allow=chatty")
    wait_for(lambda: len(system.history("seen", "result")) > 20, 30)
    return system


def test_the_terminal_shows_what_goes_on(running):
    top = running.as_json("top", "seen")
    assert (top["status"], len(top["slots"]), top["alarms"]) == ("running", 6, [])
    assert sum(worker["alive"] for worker in top["workers"]) == 2
    shown = running.call("top", "seen", "--once").stdout
    assert "6 slots" in shown
    assert "queues: inbox" in shown
    assert len(running.as_json("workers", "seen")) == 2
    assert running.as_json("ls")[0]["name"] == "seen"

    lines = running.call("history", "seen", "-n", "1000", "--json").stdout.splitlines()
    history = [json.loads(line) for line in lines]
    assert history[0]["event"] == "started"
    results = running.call("history", "seen", "-n", "9", "--event=result").stdout.splitlines()
    # Lines of other kinds lie between them.
    assert len(results) == 9
    assert all("result" in line for line in results)

    trial = next(x["trial"] for x in history if x["event"] == "trial" and x["parent"])
    explained = running.as_json("explain", "seen", trial)
    assert (explained["trial"], explained["optimizer"]) == (trial, "romul")
    words = running.call("explain", "seen", trial).stdout
    assert f"trial {trial}" in words
    assert "rule:" in words
    assert running.as_json("lineage", "seen", "0")["first"] == 0
    assert "<- here" in running.call("lineage", "seen", "0").stdout
    assert "no trial '77-1'" in " ".join(running.call("explain", "seen", "77-1").stderr.split())

    [output] = running.as_json("logs", "seen", "0-0")
    assert output["text"].splitlines() == ["to stdout 0-0", "to stderr 0-0"]
    assert "to stdout 0-0" in running.call("logs", "seen", "0-0").stdout
    unknown = running.call("logs", "seen", "0-9999")
    assert (unknown.returncode, "no trial '0-9999'" in " ".join(unknown.stderr.split())) == (
        4,
        True,
    )


def test_operators_actions_and_lost_workers_stand_in_history(running):
    assert running.call("pin", "seen", "2").returncode == 0
    wait_for(lambda: running.slot(2, "seen").get("pinned") == "1", 20)
    assert running.call("pin", "seen", "2", "--release").returncode == 0
    wait_for(lambda: running.history("seen", "unpin"), 20)
    assert running.call("bounds", "seen", "rate", "--min=0.1", "--max=0.2").returncode == 0
    assert running.call("bounds", "seen", "rate", "--min=2", "--max=1").returncode != 0
    wait_for(lambda: running.history("seen", "bounds"), 20)
    narrowed = running.call("bounds", "seen", "rate", "--max=0.18")
    assert "bounds of rate from 0.1 to 0.18 requested" in narrowed.stdout
    assert running.call("pause", "seen").returncode == 0
    running.wait_for_status("paused", "seen")
    changed = running.call("change", "seen", "--population=7", "--set", "factor=0.3")
    assert "seen: change requested" in changed.stdout
    assert running.call("resume", "seen").returncode == 0
    wait_for(lambda: running.meta("seen")["slots"] == "7", 20)
    wrong = running.call("change", "seen", "--set", "facotr=0.3")
    assert "did you mean 'factor'" in " ".join(wrong.stderr.split())
    n = len(running.history("seen", "trial"))
    # The actor that comes next knows the new bounds from the store alone.
    running.processes[0].kill()
    running.actor()
    wait_for(lambda: len(running.history("seen", "trial")) > n + 10, 40)
    later = running.history("seen", "trial")[n:]
    assert all(0.1 <= x["hyperparameters"]["rate"] <= 0.2 for x in later)
    running.kill_in_training(running.doomed, "doomed", "seen")
    wait_for(lambda: running.history("seen", "failed"), 90)
    waste = running.as_json("waste", "seen")
    assert waste["attempts"] == {"lost": 1}
    assert 0 < waste["by_cause"]["lost"] < 20
    assert waste["useful_s"] > 0
    assert "lost" in running.call("waste", "seen").stdout
    running.call("stop", "seen")
    running.wait_for_status("stopped", "seen")
    n = len(running.history("seen", "result"))
    extended = running.call("extend", "seen", "--steps", "400")
    assert "seen: 400 steps requested" in extended.stdout
    running.wait_for_status("running", "seen")
    # Trials lost between the two are queued again by the next reconciliation.
    wait_for(lambda: len(running.history("seen", "result")) > n + 10)
    running.call("stop", "seen")
    running.wait_for_status("stopped", "seen")
    by = [line for line in running.history("seen") if "by" in line]
    assert [line["event"] for line in by] == [
        "pin",
        "unpin",
        "bounds",
        "bounds",
        "pause",
        "change",
        "resume",
        "stop",
        "extend",
        "stop",
    ]
    followed = running.call("history", "seen", "--follow", "-n", "50")
    assert "stop" in followed.stdout


class Terminal:
    """A command in a terminal of its own, 120 characters wide."""

    def __init__(self, system, *arguments):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COLD, *arguments],
            env={**system.environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = b""

    def more(self):
        """Read more output; False if the last process has closed the terminal."""
        try:
            if select.select([self._master], [], [], 0.1)[0]:
                self.seen += os.read(self._master, 65_536)
        except OSError:
            return False
        return True

    def shows(self, text, times=1):
        """Wait until a text has appeared this many times, or the output has ended."""
        wait_for(lambda: not self.more() or self.seen.count(text) >= times)
        return self.seen.count(text) >= times

    def end(self, number):
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        wait_for(lambda: not self.more())
        return self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_is_live_in_a_terminal_and_gives_it_back(running, number):
    with Terminal(running, "top", "seen", "--every=0.2") as top:
        assert top.shows(b"queues:", 4), top.seen.decode()
        assert top.end(number) == 0
    assert b"Traceback" not in top.seen
    # The terminal's own screen is back.
    assert top.seen.count(b"\x1b[?1049h") == top.seen.count(b"\x1b[?1049l") == 1


def test_top_and_history_come_through_a_restart_of_the_server(background, tmp_path):
    port = free_port()

    def start():
        place = embedded_server(tmp_path / "server", port=port, password="secret")
        return background.enter(place)

    url, stop = start()
    system = System(url, tmp_path)
    try:
        system.submit()
        system.actor()
        wait_for(lambda: system.history(event="trial"))
        history = system.start("history", "e", "--follow")
        with Terminal(system, "top", "e", "--every=0.1") as top:
            assert top.shows(b"running")
            wait_for(lambda: "trial" in history.log.read_text())
            stop()
            assert top.shows(b"trying again"), top.seen.decode()
            assert b"! as of 20" in top.seen
            wait_for(lambda: "trying again" in history.log.read_text())
            _, stop = start()
            assert system.call("pause", "e").returncode == 0
            assert top.shows(b"paused"), top.seen.decode()
            wait_for(lambda: "UTC  pause " in history.log.read_text())
            # It is logged once, regardless of the number of retries.
            assert history.log.read_text().count("trying again") == 1
            assert system.call("stop", "e").returncode == 0
            assert history.wait(60) == 0
            assert top.end(signal.SIGINT) == 0
    finally:
        system.close()
        stop()


def test_top_and_history_say_that_a_server_hangs_and_go_on_with_it(background, tmp_path):
    url, stop = background.enter(embedded_server(tmp_path / "server"))
    server, system = int((tmp_path / "server/redis/server.pid").read_text()), System(url, tmp_path)
    try:
        system.submit()
        system.actor()
        wait_for(lambda: system.history(event="trial"))
        history = system.start("history", "e", "--follow")
        with Terminal(system, "top", "e", "--every=0.1") as top:
            assert top.shows(b"running")
            wait_for(lambda: "trial" in history.log.read_text())
            os.kill(server, signal.SIGSTOP)
            assert top.shows(b"trying again"), top.seen.decode()
            assert b": the server does not answer; trying again" in top.seen
            wait_for(lambda: ": the server does not answer; trying" in history.log.read_text())
            late = system.start("top", "e", "--once")
            named = f"waiting for the server at {hide_password(url)}"
            wait_for(lambda: named in late.log.read_text())
            os.kill(server, signal.SIGCONT)
            assert late.wait(60) == 0
            assert system.call("stop", "e").returncode == 0
            assert history.wait(60) == 0
            assert top.shows(b"stopped"), top.seen.decode()
            assert top.end(signal.SIGINT) == 0
    finally:
        os.kill(server, signal.SIGCONT)
        system.close()
        stop()


def test_the_doctor_names_faults_and_remedies(running, system):
    findings = running.as_json("doctor")
    assert all(finding["level"] != "fault" for finding in findings)
    assert any("seen: running, 2 workers" in finding["what"] for finding in findings)
    remedies = [f["remedy"] for f in findings if f["what"].endswith("unsaved data is lost")]
    assert remedies == ["run CONFIG SET appendonly yes, and set it in the configuration file"]
    system.submit(name="waits")
    system.client.xadd(
        "romul:{seen}:dead", {"origin": "inbox", "reason": "r", "body": "b", "size": "1"}
    )
    found = {f["what"]: f["remedy"] for f in running.as_json("doctor")}
    assert any("dead letters: 1" in what for what in found)
    unreachable = system.call("doctor", "--redis=redis://127.0.0.1:1/0", "--json")
    assert unreachable.returncode == 3
    assert json.loads(unreachable.stdout)[0]["level"] == "fault"
    broker = system.call("doctor", "--mqtt=mqtt://127.0.0.1:1", "--json")
    assert broker.returncode == 1
    assert "127.0.0.1:1" in json.loads(broker.stdout)[-1]["what"]


def test_the_doctor_goes_by_leases_not_by_what_a_lost_worker_last_said(system):
    system.submit()
    actor = system.actor()
    wait_for(lambda: system.client.xlen("romul:{e}:trials") == 4)
    actor.kill()
    actor.wait()
    long_ago = 1000 * (system.client.time()[0] - 600)
    said = {"state": "training", "trial": "0-1", "host": "h", "pid": 1, "seen_ms": long_ago}
    system.client.hset("romul:{e}:workers", "gone", json.dumps(said))

    def alarms():
        return [f for f in system.as_json("doctor") if "no actor has ended" in f["what"]]

    assert alarms() == []
    with redis.Redis.from_url(system.url, protocol=2) as client:
        client.xreadgroup("workers", "gone", {"romul:{e}:trials": ">"}, count=1)
    [alarm] = alarms()
    assert alarm["what"].endswith("has ended: gone")


def make_older(system):
    """Move the events a minute into the past, since the server's clock cannot be set."""
    inbox = "romul:{e}:inbox"
    with redis.Redis.from_url(system.url, protocol=2) as client:
        entries = client.xrange(inbox)
        client.delete(inbox)
        for at, fields in entries:
            ms, _, number = at.decode().partition("-")
            client.xadd(inbox, fields, id=f"{int(ms) - 60_000}-{number}")
        client.xgroup_create(inbox, "actors", "0")


def assert_undecided_in_every_view(system):
    words = "no actor has decided the oldest event for"
    for look in (("top", "e", "--once"), ("show", "e"), ("status",), ("doctor",)):
        assert words in " ".join(system.call(*look).stdout.split()), look


def test_an_extension_of_a_finished_search_without_an_actor_waits_in_every_view(system):
    system.submit(steps=2)
    actor = system.actor()
    system.worker()
    system.wait_for_status("finished")
    actor.kill()
    actor.wait()
    assert system.call("extend", "e", "--steps", "3").returncode == 0
    make_older(system)
    assert_undecided_in_every_view(system)
    system.actor()
    wait_for(lambda: len(system.history(event="result")) == 12)


def test_a_search_whose_only_actor_died_looks_so_in_every_view(system):
    # A worker that is slow to say that it lives shall not be named as well.
    timeouts = {"lease_s": 60.0}
    system.submit(steps=400, constants={"seconds": 0.05}, timeouts=timeouts)
    actor = system.actor()
    system.worker()
    wait_for(lambda: system.history(event="result"))
    assert [row["alarms"] for row in system.as_json("status")] == [[]]
    actor.kill()
    actor.wait()
    # Every slot leaves its result, and no worker anything else.
    wait_for(lambda: system.client.xlen("romul:{e}:inbox") >= 4 and not system.leases())
    make_older(system)
    assert_undecided_in_every_view(system)
    words = "no actor has decided the oldest event for"
    [row] = system.as_json("status")
    [said] = system.as_json("top", "e")["alarms"]
    assert said.startswith(words)
    assert [text.startswith(words) for text in row["alarms"]] == [True]
    system.actor()
    wait_for(lambda: system.as_json("top", "e")["alarms"] == [])


def test_a_trial_that_a_worker_has_is_in_training_in_every_view(system):
    system.submit(task="misbehaving:slow", timeouts={"lease_s": 60.0})
    system.actor()
    worker = system.worker("--name=w")
    trial = wait_for(lambda: system.presence("w").get("trial"))
    slot = trial.partition("-")[0]
    for look in (("show", "e"), ("top", "e", "--once")):
        shown = system.call(*look).stdout
        rows = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
        assert [row[0] for row in rows if "training" in row] == [slot], look
        assert sum("queued" in row for row in rows) == 3, look
    in_full = system.call("show", "e", slot).stdout
    assert "training, queued" in in_full
    # The JSON output has the stored values.
    slots = system.as_json("show", "e")["slots"]
    assert {stored["status"] for stored in slots} == {"queued"}
    worker.kill()
    worker.wait()
    # The last announcement of a dead worker is no longer shown as current.
    said = {**system.presence("w"), "seen_ms": 1000 * (system.client.time()[0] - 600)}
    system.client.hset("romul:{e}:workers", "w", json.dumps(said))
    assert "w, lost, last heartbeat" in system.call("show", "e", slot).stdout


def test_workers_and_actors_say_where_they_serve_and_they_alone_warn(system):
    started = [system.actor("--name=a"), system.actor("--name=b", "--experiment=e")]
    started.append(system.worker("--name=w"))
    url, password = hide_password(system.url), urlsplit(system.url).password
    lines = (
        f"actor a on {url}: decides for all searches",
        f"actor b on {url}: decides for e",
        f"worker w on {url}, task modules romul_workers.tasks.*, misbehaving: waits for trials",
    )
    for process, line in zip(started, lines, strict=True):
        wait_for(lambda process=process, line=line: line in process.log.read_text())
        assert "appendonly is off" in process.log.read_text()
        assert password not in process.log.read_text()
    assert "appendonly" not in system.call("status").stderr


def test_what_cannot_be_served_is_shown_with_its_reason_until_it_is_mended(system):
    system.submit(name="bad", optimizer={"name": "asha"})
    system.submit(name="good")
    system.actor()
    wait_for(lambda: system.slot(3, "bad") and system.slot(3, "good"))
    slot = "romul:{bad}:slot:3"
    right = system.client.hget(slot, "memory")
    system.client.hset(slot, "memory", '{"born": "yesterday"}')
    # Another actor rereads what this one still holds in memory.
    actor = system.actor()
    words = """experiment 'bad', slot 3: field 'memory' holds '{"born": "yesterday"}'"""
    wait_for(lambda: words in system.meta("bad").get("fault", ""))
    assert words in actor.log.read_text()
    rows = {row["name"]: row["reason"] for row in system.as_json("status")}
    assert words in rows["bad"]
    assert rows["good"] == ""
    assert words in system.call("status").stdout.replace("\n", "")
    shown = " ".join(system.call("top", "bad", "--once").stdout.split())
    assert "cannot serve it: experiment 'bad', slot 3: field 'memory'" in shown
    # A slot does not store why attempts ended.
    step = system.client.hget(slot, "step")
    system.client.hset(slot, "step", "x")
    assert system.as_json("failures", "bad")["causes"] == {}
    system.client.hset(slot, "step", step)
    examined = system.call("doctor", "--json")
    assert examined.returncode == 1
    faults = [f for f in json.loads(examined.stdout) if f["level"] == "fault"]
    assert ["bad: " in fault["what"] and words in fault["what"] for fault in faults] == [True]
    system.client.hset(slot, "memory", right)
    wait_for(lambda: "fault" not in system.meta("bad"))
    assert {row["reason"] for row in system.as_json("status")} == {""}


def test_long_names_leave_the_other_columns_their_room(system):
    """80 columns, and names of the greatest length."""
    name = "a metric whose name is as long as that of a metric can be " + 42 * "x"
    rate = {"type": "float", "min": 0.0, "max": 1.0}
    choice = {"type": "categorical", "choices": [name, f"another {name}"]}
    system.submit(name="long", metric=name, space={"rate": rate, name: choice})
    system.actor()
    wait_for(lambda: system.meta("long").get("slots") == "4")
    # In the future: an alarm of a late heartbeat, which names the worker, is not wrapped.
    seen_ms = 1000 * (system.client.time()[0] + 3600)
    presence = json.dumps({"state": "idle", "host": name, "pid": 12345, "seen_ms": seen_ms})
    system.client.hset("romul:{long}:workers", f"worker-{name}", presence)
    best = {name: 0.123456, "trial": "3-1", "checkpoint": "3-1-1", "metrics": {}}
    best["hyperparameters"] = {}
    system.client.hset("romul:{long}", "best", json.dumps(best))
    expected = {
        "show long": "slot status step parent rate queued 0/3",
        "top long --once": "slot tier status step recent all queued idle",
        "workers long": "pid state trial 12345 idle",
        "status": "experiment status trials failed workers dead long running 0/12 0.123456",
    }
    for command, words in expected.items():
        done = system.call(*command.split(), COLUMNS="80")
        assert (command, done.returncode) == (command, 0), done.stderr
        assert (command, max(map(len, done.stdout.splitlines())) <= 80) == (command, True)
        missing = set(words.split()) - set(done.stdout.split())
        assert (command, missing) == (command, set())


def test_a_presence_entry_that_cannot_be_read_ends_no_command(system):
    """A worker may write anything into the hash of workers."""
    system.submit()
    actor = system.actor()
    wait_for(lambda: system.meta().get("slots") == "4")
    # It removes workers that were not seen for long.
    actor.terminate()
    actor.wait()
    entries = {
        "no time": '{"state": "idle"}',
        "another time": '{"state": "idle", "seen_ms": "soon", "pid": "1", "at": [2]}',
        "endless": '{"state": "idle", "seen_ms": 1e999, "pid": 1e999, "at": NaN}',
        "true": '{"state": "idle", "seen_ms": true}',
        "large": f'{{"seen_ms": 1{400 * "0"}, "pid": 1{400 * "0"}, "at": -1{400 * "0"}}}',
        "no object": "[1]",
        "no json": "{",
        b"no text \xff": '{"state": "idle"}',
    }
    workers = "romul:{e}:workers"
    system.client.hset(workers, mapping=entries)
    rows = system.as_json("workers", "e")
    assert len(rows) == len(entries)
    assert {(row["age_s"], row["alive"], row["pid"], row["at"]) for row in rows} == {
        (None, False, 0, None)
    }
    top = system.call("top", "e", "--once")
    assert top.returncode == 0, top.stderr
    assert top.stdout.count("unknown") == len(entries)
    assert system.as_json("top", "e")["alarms"] == ["no worker is alive"]
    assert system.as_json("ls")[0]["workers"] == 0
    for command in ("workers e", "doctor"):
        assert "Traceback" not in system.call(*command.split()).stderr
    # The search goes on all the same, and the actor removes them.
    system.actor()
    wait_for(lambda: not any(system.client.hexists(workers, name) for name in list(entries)[:-1]))
    system.worker()
    system.wait_for_status("finished")
