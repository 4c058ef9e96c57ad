"""The dashboard without a browser: access, and the data that it shows."""

import asyncio
import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from nicegui import Client, ui

from romul_actors.core.events import Control
from romul_actors.core.history import (
    ControlIgnored,
    SearchStopped,
    SlotParked,
    SlotPinned,
    SlotResumed,
    SlotUnpinned,
)
from romul_actors.dashboard import charts
from romul_actors.dashboard.access import AccessControl
from romul_actors.dashboard.feed import Feed
from romul_actors.dashboard.feeds import FORGET_S, REFRESH_S, Feeds
from romul_actors.dashboard.page import verbatim
from romul_actors.dashboard.server import DashboardError, Serving
from romul_actors.observe.snapshot import WorkerSnapshot
from romul_actors.protocol.experiment import OptimizerSpec
from romul_actors.store.memory import MemoryStore
from romul_sim.churn import scenario, simulation
from romul_sim.churn.scenario import Scenario
from romul_sim.churn.trace import Change
from romul_sim.cluster.virtual_time import run
from tests.trials import created, declare, failed, reported
from tests.unit.harness import Run, population

TOKEN = "s3cret"
HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


async def inner(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(guard, kind="http", path="/", query=b"", **headers):
    given = {"host": "127.0.0.1:80", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": query,
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items() if v is not None],
    }
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent


def status(sent):
    return sent[0].get("status") or sent[0]["type"].removeprefix("websocket.")


def test_loopback_is_open_to_its_own_pages_and_to_no_others():
    guard = AccessControl(inner, HOSTS, None, secure=False)
    assert status(ask(guard)) == 200
    assert status(ask(guard, host="[::1]:8265")) == 200
    assert status(ask(guard, origin="http://127.0.0.1:80")) == 200
    assert status(ask(guard, origin="http://evil.example")) == 403
    assert status(ask(guard, host="evil.example")) == 403
    assert status(ask(guard, host="")) == 403
    assert status(ask(guard, sec_fetch_site="cross-site", sec_fetch_mode="no-cors")) == 403
    # A link on another page may lead here; it changes nothing.
    assert status(ask(guard, sec_fetch_site="cross-site", sec_fetch_mode="navigate")) == 200
    assert status(ask(guard, "websocket", origin="http://127.0.0.1:80")) == "accept"
    assert status(ask(guard, "websocket", origin="http://evil.example")) == "close"
    assert status(ask(guard, "websocket", origin="null")) == "close"


def test_a_token_is_asked_for_once_and_kept_in_a_cookie():
    guard = AccessControl(inner, None, TOKEN, secure=True)
    for query in (b"", b"token=wrong", b"token=s3cret%20", b"token="):
        assert status(ask(guard, query=query)) == 401
    sent = ask(guard, path="//evil.example/", query=b"token=s3cret")
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 303
    assert headers[b"location"] == b"/evil.example/"
    cookie = headers[b"set-cookie"].decode()
    assert {"HttpOnly", "SameSite=Strict", "Secure"} <= set(cookie.split("; "))
    assert status(ask(guard, cookie=cookie.partition(";")[0])) == 200
    assert status(ask(guard, cookie="romul_token=other")) == 401
    assert status(ask(guard, cookie="romul_token=\xff; =;;")) == 401
    assert status(ask(guard, "websocket")) == "close"
    assert status(ask(guard, "websocket", cookie="romul_token=s3cret")) == "accept"
    assert status(ask(guard, "websocket", query=b"token=s3cret")) == "close"


@pytest.mark.parametrize(
    ("headers", "secure"),
    [
        ({"host": "romul.example.com"}, True),
        ({"host": "romul.example.com", "x_forwarded_proto": "https"}, True),
        ({"host": "localhost:8443", "x_forwarded_proto": "https, http"}, True),
        ({"host": "127.0.0.1:8265"}, False),  # as the compose file publishes it
        ({"host": "[::1]:8265"}, False),
        ({"host": "romul.example.com", "x_forwarded_proto": "http"}, False),
    ],
)
def test_behind_a_proxy_the_cookie_is_for_tls_only_where_the_browser_came_by_it(headers, secure):
    guard = AccessControl(inner, None, TOKEN, secure=False, behind_proxy=True)
    sent = ask(guard, query=b"token=s3cret", **headers)
    cookie = dict(sent[0]["headers"])[b"set-cookie"].decode()
    assert ("Secure" in cookie.split("; ")) == secure


def test_no_page_of_another_site_can_show_the_dashboard_in_a_frame():
    guard = AccessControl(inner, HOSTS, None, secure=False)
    navigation = {"sec_fetch_mode": "navigate"}
    for site in ("cross-site", "same-site"):
        for dest in ("iframe", "frame", "object", "embed"):
            sent = ask(guard, sec_fetch_site=site, sec_fetch_dest=dest, **navigation)
            assert status(sent) == 403
        assert (
            status(ask(guard, sec_fetch_site=site, sec_fetch_dest="document", **navigation)) == 200
        )
    # Browsers that do not send these headers are told by a header of each response.
    headers = dict(ask(guard)[0]["headers"])
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"content-security-policy"] == b"frame-ancestors 'none'"


@pytest.mark.parametrize(
    "headers", [{"host": "["}, {"host": "[::1"}, {"origin": "http://["}, {"host": "127.0.0.1:x"}]
)
def test_a_header_that_is_no_address_is_refused(headers):
    guard = AccessControl(inner, HOSTS, None, secure=False)
    origin = {"origin": "http://127.0.0.1:80"}
    assert status(ask(guard, **{**origin, **headers})) == 403
    assert status(ask(guard, "websocket", **{**origin, **headers})) == "close"


@pytest.mark.parametrize("others", ['a={"b": "c"}', "a[0]=1", "a=b c; d", "x=\xff", "romul_token"])
def test_cookies_of_other_programs_do_not_hide_the_token(others):
    guard = AccessControl(inner, None, TOKEN, secure=False)
    assert status(ask(guard, cookie=f"{others}; romul_token={TOKEN}")) == 200
    assert status(ask(guard, cookie=f"{others}; romul_token=other")) == 401


@pytest.mark.parametrize("token", ["a;b", 'a"b', "a b", "a,b", "a\\b", "é", "a%3Bb", "="])
def test_a_token_of_any_characters_is_good_from_its_cookie_on(token):
    guard = AccessControl(inner, None, token, secure=False)
    sent = ask(guard, query=f"token={quote(token)}".encode())
    cookie = dict(sent[0]["headers"])[b"set-cookie"].decode("latin-1")
    assert status(ask(guard, cookie=cookie.partition("; ")[0])) == 200


def test_a_path_makes_no_headers_and_leads_nowhere_else():
    guard = AccessControl(inner, None, TOKEN, secure=False)
    for path in ("/a\r\nSet-Cookie: x=y", "/\t/evil.example", "/a b", "/é", "/a?b#c"):
        location = dict(ask(guard, path=path, query=b"token=s3cret")[0]["headers"])[b"location"]
        assert location == quote(path).encode()


def test_a_host_name_may_be_given_in_any_case():
    hosts = Serving(names=("Here.Example",)).hosts
    assert status(ask(AccessControl(inner, hosts, None, secure=False), host="here.example")) == 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "0.0.0.0"}, "give a --token"),
        ({"host": "0.0.0.0", "token": TOKEN}, "--tls-cert"),
        ({"certificate": Path("c")}, "must be given together"),
        ({"host": "0.0.0.0", "token": "", "behind_proxy": True}, "is empty"),
        ({"token": ""}, "is empty"),
    ],
)
def test_strangers_are_not_served_by_mistake(fields, message):
    with pytest.raises(DashboardError, match=message):
        Serving(**fields).check()


def test_the_example_of_the_compose_file_holds_no_token_that_all_know():
    example = (Path(__file__).parents[2] / "docker" / ".env.example").read_text()
    [token] = re.findall(r"^ROMUL_DASHBOARD_TOKEN=(.*)$", example, re.MULTILINE)
    with pytest.raises(DashboardError, match="is empty"):
        Serving(host="0.0.0.0", token=token, behind_proxy=True).check()


def test_what_is_asked_for_is_served():
    Serving().check()
    Serving(host="0.0.0.0", token=TOKEN, behind_proxy=True).check()
    Serving(host="0.0.0.0", token=TOKEN, certificate=Path("c"), key=Path("k")).check()
    assert Serving().hosts == HOSTS
    assert Serving(host="0.0.0.0", token=TOKEN).hosts is None
    assert "here.example" in Serving(host="0.0.0.0", token=TOKEN, names=("here.example",)).hosts


@pytest.fixture(scope="module")
def fed():
    """A feed that was updated during a search, and one that read it after its end."""

    class Watched(simulation.Simulation):
        async def play(self):
            self.keeping = asyncio.create_task(self.keep_up())
            return await super().play()

        async def keep_up(self):
            while not hasattr(self, "store") or "search-0" not in self.store.memory.experiments:
                await asyncio.sleep(1.0)
            feeds.append(Feed(self.store, "search-0"))
            while True:
                await feeds[0].refresh()
                await asyncio.sleep(20.0)

        async def figures(self, ended_s):
            self.keeping.cancel()
            await feeds[0].refresh()
            feeds.append(Feed(self.store, "search-0"))
            await feeds[1].refresh()
            return await super().figures(ended_s)

    feeds: list[Feed] = []
    scenario.KEEP_LINES = 100_000
    changes = [Change(0.0, f"m{i}", "arrives") for i in range(4)]
    changes.append(Change(90.0, "m3", "leaves"))
    run(Watched(Scenario(changes, steps=12, problem="mixed")).play())
    scenario.KEEP_LINES = 1_000
    return feeds


def test_a_feed_that_follows_knows_what_one_that_reads_everything_knows(fed):
    live, whole = fed
    assert live.slots == whole.slots
    assert live.parents == whole.parents
    assert list(live.attempts) == list(whole.attempts)
    assert len(live.slots) == 8
    assert {slot.status for slot in live.slots.values()} == {"done"}
    assert sum(len(slot.values) for slot in live.slots.values()) == 96
    assert [line.reason for line in live.failures] == ["lost"]
    best = live.snapshot.best["trial"]
    assert live.line_of(best)[-1] == best
    assert live.parents[live.line_of(best)[0]] is None


def test_a_trial_that_diverged_does_not_flatten_the_charts(fed):
    feed = copy.copy(fed[1])
    feed.slots, feed.trials = copy.deepcopy(feed.slots), copy.copy(feed.trials)
    experiment = feed.snapshot.experiment
    usual = charts.metric(feed, experiment)["yAxis"], charts.parallel(feed, experiment)
    diverged = feed.ranked()[3]
    diverged.values[-1] = 1e32
    hyperparameters, _, slot = feed.trials[-1]
    feed.trials[-1] = (hyperparameters, 1e32, slot)
    axis = charts.metric(feed, experiment)["yAxis"]
    assert axis["type"] == usual[0]["type"]
    assert axis["max"] < 1e6
    parallel = charts.parallel(feed, experiment)
    assert parallel["parallelAxis"][-1]["max"] == parallel["series"][0]["data"][-1][-1] < 1e6
    # The axis may end a little elsewhere, and the highest of the others with it.
    before, after = (picture["series"][0]["data"][:-1] for picture in (usual[1], parallel))
    end = parallel["parallelAxis"][-1]["max"]
    assert after == [[*row[:-1], min(row[-1], end)] for row in before]
    assert sum(row != moved for row, moved in zip(before, after, strict=True)) < len(after) / 10


def test_what_an_operator_did_is_listed(fed):
    feed = copy.copy(fed[1])
    feed.slots, feed.actions = copy.deepcopy(feed.slots), copy.copy(feed.actions)
    before = len(feed.actions)
    by = [
        SlotPinned(at_ms=1, slot=2, by="somebody"),
        SlotPinned(at_ms=2, slot=99, by="somebody"),
        ControlIgnored(at_ms=3, action="pin", status="running", by="somebody"),
    ]
    for line in (*by, SlotParked(at_ms=4, slot=3, step=1), SlotParked(at_ms=5, slot=99, step=1)):
        feed._add(line)
    assert list(feed.actions)[before:] == by
    assert [feed.slots[2].pinned, feed.slots[3].status] == [True, "parked"]
    feed._add(SlotResumed(at_ms=5, slot=3, step=1))
    assert feed.slots[3].status == "waiting"
    feed._add(SearchStopped(at_ms=6, by="somebody"))
    assert {slot.status for slot in feed.slots.values()} == {"done"}
    assert 99 not in feed.slots
    feed._add(SlotUnpinned(at_ms=6, slot=2, by="somebody"))
    assert not feed.slots[2].pinned


def test_charts_are_plain_json_and_hold_what_there_is(fed):
    feed, experiment = fed[1], fed[1].snapshot.experiment
    drawn = {
        "metric": charts.metric(feed, experiment),
        "lineage": charts.lineage(feed, None),
        "slot": charts.lineage(feed, 3),
        "parallel": charts.parallel(feed, experiment),
        "timeline": charts.timeline(feed),
        **{name: charts.hyperparameter(feed, experiment, name) for name in experiment.space},
    }
    for options in drawn.values():
        json.dumps(options, allow_nan=False)
    assert len(drawn["metric"]["series"]) == 8 + 3 + 1
    assert len(drawn["parallel"]["series"][0]["data"]) == 96
    assert len(drawn["timeline"]["yAxis"]["data"]) == 4
    bars = [bar for one in drawn["timeline"]["series"] for bar in one["data"]]
    assert len(bars) == len(feed.attempts)
    assert all(0 <= begin_s <= end_s and place in range(4) for begin_s, end_s, place in bars)
    fields = {column["field"]: column["label"] for column in charts.columns(experiment)}
    assert fields["metric"] == experiment.metric
    for row in charts.rows(feed):
        assert set(row) <= set(fields)
        numbers = {name for name, value in row.items() if isinstance(value, int | float)}
        assert numbers >= {
            f"h.{name}"
            for name, value in feed.slots[row["slot"]].hyperparameters.items()
            if type(value) in (int, float)
        }
    assert drawn["slot"]["title"]["text"].endswith("slot 3")
    kinds = {name: drawn[name]["yAxis"]["type"] for name in experiment.space}
    assert set(kinds.values()) >= {"category"}


def test_a_trial_that_is_given_up_leaves_its_slot_without_a_value(fed):
    feed = copy.copy(fed[1])
    feed.slots, feed.failures = copy.deepcopy(feed.slots), copy.copy(feed.failures)
    steps = feed.snapshot.experiment.steps
    best = feed.ranked()[0]
    curve = list(best.values)

    def ends(step, *, again):
        trial = f"{best.index}-{step}"
        feed._add(created(trial))
        feed._add(failed(trial, again=again))
        return best.status, best.value, feed.ranked()[-1] is best

    value = best.value
    assert ends(steps - 3, again=True) == ("queued", value, False)
    assert ends(steps - 3, again=False) == ("waiting", None, True)
    feed._add(created(f"{best.index}-{steps - 2}"))
    # It is parked when its trial has ended, unless it is pinned meanwhile.
    feed._add(SlotParked(at_ms=1, slot=best.index, step=steps - 2))
    assert best.status == "queued"
    feed._add(failed(f"{best.index}-{steps - 2}"))
    assert best.status == "parked"
    assert ends(steps - 1, again=False) == ("done", None, True)
    assert best.values == curve


@pytest.mark.parametrize("steps", [2, 3])
def test_trials_that_are_tried_again_after_a_failed_search_are_queued(fed, steps):
    search = Run(population(n_slots=4, steps=steps, max_attempts=1)).start()
    declared = fed[0].snapshot.experiment.model_copy(update={"steps": steps})
    feed = Feed(MemoryStore(), "e")
    feed.snapshot = replace(fed[0].snapshot, experiment=declared)

    def shown():
        for line in search.history:
            feed._add(line)
        search.history.clear()
        return [(slot.status, slot.value) for slot in feed.slots.values()]

    for slot in search.queued():
        search.tell(search.result(slot, float(slot)))
    # A pause gives no trial a new attempt.
    search.tell(search.failed(0))
    search.tell(Control(action="pause"))
    paused = shown()
    search.tell(Control(action="resume"))
    assert shown() == paused
    ended = "done" if steps == 2 else "waiting"
    assert paused == [(ended, None), *(("queued", float(slot)) for slot in (1, 2, 3))]
    for _ in range(2):
        for slot in search.queued():
            search.tell(search.failed(slot))
        assert (search.population.status, shown()) == ("failed", [(ended, None)] * 4)
        search.tell(Control(action="resume"))
        assert search.queued() == [0, 1, 2, 3]
        assert shown() == [("queued", float(slot)) for slot in range(4)]


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_parked_slot_that_takes_part_again_waits_unless_it_has_begun_a_trial(fed, goes_on):
    feed = Feed(MemoryStore(), "e")
    feed.snapshot = fed[0].snapshot
    feed._add(created("0-1"))
    feed._add(reported("0-1"))
    feed._add(SlotParked(at_ms=1, slot=0, step=1))
    assert feed.slots[0].status == "parked"
    if goes_on:
        feed._add(created("0-2"))
    feed._add(SlotResumed(at_ms=2, slot=0, step=1))
    assert feed.slots[0].status == ("queued" if goes_on else "waiting")


@pytest.mark.parametrize(("optimizer", "behind"), [("romul", "parked"), ("random", "queued")])
def test_the_slots_of_an_extended_search_are_shown_as_the_core_has_them(fed, optimizer, behind):
    search = Run(population(optimizer, n_slots=5, steps=3)).start()
    spec = OptimizerSpec(name=optimizer)
    declared = fed[0].snapshot.experiment.model_copy(update={"optimizer": spec})
    feed = Feed(MemoryStore(), "e")

    def shown(*events):
        for event in events:
            search.tell(event)
        kept = search.population
        now = declared.model_copy(update={"steps": kept.settings.steps})
        feed.snapshot = replace(fed[0].snapshot, experiment=now)
        for line in search.history:
            feed._add(line)
        search.history.clear()
        statuses = [feed.slots[slot.index].status for slot in kept.slots]
        assert statuses == [slot.status for slot in kept.slots]
        return statuses

    def end(*slots):
        return shown(
            *(search.result(slot, float(slot)) for slot in slots if slot in search.queued())
        )

    end(0, 1, 2, 3, 4)
    # The worst slot is parked, and the others go on to the last step.
    shown(Control(action="change", population=4))
    assert end(4, 0, 1, 2, 3)[4] == "parked"
    assert end(0, 1, 2) == ["done", "done", "done", "queued", "parked"]
    # If the search continues, they wait for the rest of their pool, or continue.
    assert "done" not in shown(Control(action="extend", steps=9))
    end(3)
    end(0, 1, 2, 3)
    # Trials that are discarded at the end are tried again.
    assert shown(Control(action="stop")) == ["done"] * 5
    assert shown(Control(action="extend", steps=10)) == [*["queued"] * 4, behind]


def test_a_trial_that_a_live_worker_has_is_in_training(fed):
    feed = copy.copy(fed[1])
    feed.slots = copy.deepcopy(feed.slots)
    feed._add(created("2-12"))
    feed._add(created("3-12"))
    worker = WorkerSnapshot("w", "h", 1, "training", "2-12", None, 0.1)
    silent = replace(worker, name="v", trial="3-12", age_s=1e6)
    feed.snapshot = replace(feed.snapshot, workers=[worker, silent])
    rows = {row["slot"]: row["status"] for row in charts.rows(feed)}
    assert [rows[slot] for slot in (2, 3, 4)] == ["training", "queued", "done"]


def test_a_feed_is_shared_while_it_is_shown_and_dropped_afterwards():
    async def main():
        store = MemoryStore()
        await store.create("e", declare(steps=2).model_dump_json(), b"x")
        feeds = Feeds(store)
        first = feeds.request("e")
        await asyncio.sleep(FORGET_S - REFRESH_S)
        status = first.snapshot.status
        assert feeds.request("e") is first
        await asyncio.sleep(FORGET_S - REFRESH_S)
        assert feeds.request("e") is first
        await asyncio.sleep(FORGET_S + 2 * REFRESH_S)
        second = feeds.request("e")
        await feeds.close()
        return status, first is second

    assert run(main()) == ("submitted", False)


def test_a_feed_follows_a_changed_declaration():
    async def main():
        store = MemoryStore()
        await store.create("e", declare(steps=2).model_dump_json(), b"x")
        feed = Feed(store, "e")
        await feed.refresh()
        changed = declare(steps=3, space={"x": {"type": "float", "min": 0.0, "max": 4.0}})
        store.memory.find("e").spec = changed.model_dump_json()
        await feed.refresh()
        feed._add(created("0-1"))
        feed._add(reported("0-1"))
        return feed

    feed = run(main())
    assert feed.snapshot.experiment.steps == 3
    assert feed.slots[0].status == "waiting"
    assert charts.parallel(feed, feed.snapshot.experiment)["parallelAxis"][0]["max"] == 4.0


def test_a_feed_begins_anew_where_an_experiment_was_removed_and_says_what_it_cannot_read():
    async def main():
        store = MemoryStore()

        async def seen_after(s=2 * REFRESH_S):
            await asyncio.sleep(s)
            feed = feeds.request("e")
            return feed.error, feed.snapshot and feed.snapshot.status, len(feed.slots)

        async def submit(epoch):
            await store.create("e", declare(steps=2).model_dump_json(), b"x")
            store.memory.find("e").meta["epoch"] = epoch

        await submit("1")
        feeds = Feeds(store)
        feeds.request("e")
        await asyncio.sleep(0)
        found = [await seen_after()]
        feeds.request("e")._add(created("0-0"))
        found.append(await seen_after())
        # Between two refreshes.
        await store.remove("e")
        await submit("2")
        found.append(await seen_after())
        store.memory.find("e").spec = "{}"
        found.append(await seen_after())
        await store.remove("e")
        found.append(await seen_after())
        await feeds.close()
        return found

    first, second, anew, damaged, gone = run(main())
    assert first == ("", "submitted", 0)
    assert second == ("", "submitted", 1)
    assert anew == ("", "submitted", 0)
    assert damaged[0].startswith("stored experiment")
    assert damaged[1] == "submitted"
    assert gone[0].startswith("no experiment 'e'")
    assert gone[1] is None


def test_no_markup_in_what_a_task_says_is_read():
    text = "```\n\n<img src='/x'> <a href='http://evil.example'>here</a>\x1b\n\n# heading"
    with Client(ui.page("/verbatim")) as client:
        shown = verbatim(text)
        assert shown.text == text.replace("\x1b", r"\x1b")
        assert [e for e in client.elements.values() if "innerHTML" in e.props] == []
        # The element that it replaces.
        ui.code(text, language="text")
        assert [e for e in client.elements.values() if "<img" in e.props.get("innerHTML", "")]
