"""The dashboard in a real Chromium, over a real server, actor and workers."""

import re
import shutil

import pytest
from playwright.sync_api import Error, expect, sync_playwright

from romul_actors.local.processes import free_port
from tests.conftest import wait_for
from tests.system.conftest import system  # noqa: F401  (a fixture)
from tests.system.test_servers import certificates

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    # Chromium's own driver leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    made = context.new_page()
    made.foreign, made.errors = [], []
    made.on("request", lambda r: made.foreign.append(r.url) if "127.0.0.1" not in r.url else None)
    made.on("pageerror", lambda error: made.errors.append(str(error)))
    yield made
    # The page loads everything from this server.
    assert made.foreign == []
    assert made.errors == []
    context.close()


def dashboard(system, *options):  # noqa: F811
    port = free_port()
    process = system.start("dashboard", f"--port={port}", *options)
    wait_for(lambda: "Ctrl-C" in process.log.read_text(), 30)
    return f"http://127.0.0.1:{port}"


def search(system, **fields):  # noqa: F811
    system.submit(
        name="shown", population=6, steps=400, budget=4, constants={"seconds": 0.2}, **fields
    )
    system.actor()
    system.worker()
    system.worker()
    system.wait_for_status("running", "shown")


def test_a_running_search_is_seen_followed_paused_and_resumed(system, page):  # noqa: F811
    search(system)
    page.goto(dashboard(system))
    page.get_by_role("link", name="shown").click()
    summary = page.get_by_text(re.compile(r"\d+ trials"))

    def trials():
        return int(re.search(r"(\d+) trials", summary.inner_text())[1])

    expect(summary).to_be_visible(timeout=20_000)
    first = trials()
    wait_for(lambda: trials() > first + 3, 30)

    # A row explains its trial, and links to its line of descent.
    row = page.locator("tbody tr").first
    slot = row.locator("td").first.inner_text()
    row.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"slot {slot}", timeout=10_000)
    expect(dialog).to_contain_text("rule:")
    dialog.get_by_role("button", name="line of descent").click()
    expect(page.locator("[data-chart=lineage] canvas").first).to_be_visible(timeout=10_000)
    expect(page.get_by_label("line of")).to_have_value(f"slot {slot}")
    for tab in ("curves", "parallel", "workers"):
        page.get_by_role("tab", name=tab).click()
        expect(page.locator("canvas:visible").first).to_be_visible(timeout=10_000)

    # It asks for confirmation first; "no" changes nothing.
    page.get_by_role("button", name="pause").click()
    page.get_by_role("dialog").get_by_role("button", name="no").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert system.meta("shown")["status"] == "running"
    page.get_by_role("button", name="pause").click()
    page.get_by_role("dialog").get_by_role("button", name="yes").click()
    system.wait_for_status("paused", "shown")
    expect(page.locator(".q-badge")).to_have_text("paused", timeout=10_000)
    page.get_by_role("button", name="resume").click()
    page.get_by_role("dialog").get_by_role("button", name="yes").click()
    system.wait_for_status("running", "shown")
    found = [line for line in system.history("shown") if "by" in line]
    assert [line["event"] for line in found] == ["pause", "resume"]
    assert all("(dashboard)" in line["by"] for line in found)
    page.get_by_role("tab", name="actions").click()
    expect(page.get_by_text(re.compile(r"UTC\s+resume\s+by="))).to_be_visible(timeout=10_000)


def test_another_search_of_the_same_name_has_charts_of_its_own(system, page):  # noqa: F811
    system.submit(name="shown", steps=2)
    system.actor()
    system.worker()
    system.wait_for_status("finished", "shown")
    page.goto(f"{dashboard(system)}/experiment/shown")
    page.get_by_role("tab", name="curves").click()
    charts = page.locator("[data-chart^='h.']")
    expect(page.locator("[data-chart='h.rate'] canvas")).to_be_visible(timeout=20_000)
    assert system.call("remove", "shown", "--yes").returncode == 0
    rate = {"type": "float", "min": 0.01, "max": 1.0}
    system.submit(name="shown", steps=2, space={"rate": rate, "added": rate})
    expect(page.locator("[data-chart='h.added'] canvas")).to_be_visible(timeout=30_000)
    expect(charts).to_have_count(2)


def test_a_slot_that_failed_ranks_last_and_a_dead_worker_is_lost(system, page):  # noqa: F811
    for name in ("0-1 dies", "3-1 waits"):
        (system.folder / name).touch()
    constants = {"place": str(system.folder)}
    system.submit(name="shown", task="gated", steps=2, constants=constants, max_attempts=1)
    system.actor()
    workers = {name: system.worker("--allow=gated", f"--name={name}") for name in ("a", "b")}
    page.goto(f"{dashboard(system, '--mqtt=mqtt://127.0.0.1:1')}/experiment/shown")
    # All slots had the same result, and slot 0 was the first of them.
    row = page.locator("tbody tr").last.locator("td")
    expect(row.nth(0)).to_have_text("0", timeout=20_000)
    expect(row.nth(1)).to_have_text("done")
    expect(row.nth(3)).to_have_text("")

    page.get_by_role("tab", name="workers").click()
    holder = wait_for(lambda: next(iter(system.leases("shown").values()), None))
    expect(page.get_by_text(f"{holder}: training 3-1")).to_be_visible(timeout=10_000)
    drain = page.get_by_role("button", name="drain")
    expect(drain).to_have_count(2)
    workers.pop(holder).kill()
    expect(page.get_by_text(f"{holder}: lost")).to_be_visible(timeout=20_000)
    expect(drain).to_have_count(1)


def test_the_keyboard_sorts_slots_and_opens_one(system, page):  # noqa: F811
    search(system)
    page.goto(f"{dashboard(system)}/experiment/shown")
    slots = page.locator("tbody tr td:first-child")
    expect(slots).to_have_count(6, timeout=20_000)

    def tab_to(role, name):
        """Press Tab until an element has the focus."""
        wanted = page.get_by_role(role, name=name, exact=True)
        for _ in range(40):
            if wanted.evaluate("element => element === document.activeElement"):
                return wanted
            page.keyboard.press("Tab")
        raise AssertionError(f"the tab key does not reach {role} {name}")

    heading = tab_to("columnheader", "slot")
    page.keyboard.press("Enter")
    expect(slots).to_have_text(list("012345"))
    page.keyboard.press("Space")
    expect(slots).to_have_text(list("543210"))
    expect(heading).to_be_focused()
    button = tab_to("button", "slot 2")
    # An element keeps the focus when the page is updated.
    summary = page.get_by_text(re.compile(r"\d+ trials"))
    before = summary.inner_text()
    expect(summary).not_to_have_text(before, timeout=20_000)
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("slot 2", timeout=10_000)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_failures_are_shown_with_their_traceback(system, page):  # noqa: F811
    system.submit(name="bad", task="misbehaving", steps=2, constants={"how": "raises"})
    system.actor()
    system.worker()
    system.wait_for_status("failed", "bad")
    page.goto(f"{dashboard(system)}/experiment/bad")
    page.get_by_role("tab", name="failures").click()
    failure = page.get_by_text(re.compile(r"attempt \d: exception")).first
    expect(failure).to_be_visible(timeout=10_000)
    failure.click()
    expect(page.get_by_text(re.compile("Traceback")).first).to_be_visible()


def test_without_the_token_no_page_is_served(system, page):  # noqa: F811
    system.submit(name="secret")
    url = dashboard(system, "--token=letmein")
    assert page.goto(url).status == 401
    assert page.goto(f"{url}/experiment/secret?token=wrong").status == 401
    socket = f"{url.replace('http', 'ws')}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    opened = page.evaluate(
        """url => new Promise(done => {
            const socket = new WebSocket(url);
            socket.onopen = () => done(true);
            socket.onclose = () => done(false);
        })""",
        socket,
    )
    assert opened is False
    assert page.goto(f"{url}/experiment/secret?token=letmein").status == 200
    # The token is removed from the address bar, and stays valid.
    assert "token" not in page.url
    expect(page.locator(".q-badge")).to_have_text("submitted", timeout=10_000)
    assert page.goto(url).status == 200


def test_another_sites_page_cannot_act(system, page):  # noqa: F811
    system.submit(name="e")
    url = dashboard(system)
    other = dashboard(system)
    page.goto(other)
    with pytest.raises(Error):
        page.evaluate("url => fetch(url)", url)
    # No address changes anything by itself, either.
    for path in ("/experiment/e?action=stop", "/experiment/e/stop", "/stop"):
        page.goto(url + path)
    assert system.meta("e")["status"] == "submitted"


def test_it_is_served_over_tls(system, browser, tmp_path):  # noqa: F811
    _, cert, key = certificates(tmp_path)
    system.submit(name="e")
    url = dashboard(system, f"--tls-cert={cert}", f"--tls-key={key}", "--token=letmein")
    context = browser.new_context()
    with pytest.raises(Error, match="ERR_CERT"):
        context.new_page().goto(url.replace("http:", "https:"))
    context.close()
    trusting = browser.new_context(ignore_https_errors=True)
    page = trusting.new_page()
    assert page.goto(f"{url.replace('http:', 'https:')}/experiment/e?token=letmein").status == 200
    [cookie] = trusting.cookies()
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    expect(page.locator(".q-badge")).to_have_text("submitted", timeout=10_000)
    trusting.close()


def test_what_would_let_strangers_in_is_refused(system):  # noqa: F811
    done = system.call("dashboard", "--host=0.0.0.0")
    assert done.returncode != 0
    assert "--token" in done.stderr


def test_an_empty_server_says_so_and_a_page_fits_a_telephone(system, page):  # noqa: F811
    at = dashboard(system)
    page.goto(at)
    expect(page.get_by_text("none yet: `romul submit FILE` adds one")).to_be_visible()
    names = ("rate", *(f"a_long_name_{i}" for i in range(8)))
    space = {name: {"type": "float", "min": 0.01, "max": 1.0} for name in names}
    search(system, space=space)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{at}/experiment/shown")
    # Each hyperparameter has a column.
    expect(page.get_by_role("columnheader", name="a_long_name_7")).to_have_count(1, timeout=20_000)
    for tab in ("curves", "parallel", "workers"):
        page.get_by_role("tab", name=tab).click()
        expect(page.locator("canvas:visible").first).to_be_visible(timeout=10_000)
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wider) == 0
