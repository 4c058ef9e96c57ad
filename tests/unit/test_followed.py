"""`top` and `history --follow` while the server hangs, ends or moves."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from romul_actors.cli.servers import followed
from romul_actors.cli.servers.followed import following
from romul_actors.client import Client
from romul_actors.errors import StoreUnavailableError
from romul_actors.local.redis_server import DATA, URL_FILE, embedded_server
from romul_actors.local.run_file import RunFile
from romul_actors.store.redis import urls
from romul_actors.store.redis.urls import hide_password
from tests.trials import declare

FOLDER = Path("runs") / "e"


@pytest.fixture
async def local_run(tmp_path, monkeypatch):
    """Servers of a local run, one after another, with the same search."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    monkeypatch.setattr(followed, "PAUSE_S", 0.01)
    RunFile(["e"], 1, [], []).write(FOLDER)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_server(FOLDER))
        async with Client.connect(url) as client:
            await client.submit(declare(checkpoints="memory://x"))
        yield stack


def send(number):
    os.kill(int((FOLDER / DATA / "server.pid").read_text()), number)


def status(store):
    return store.glance("e")


@pytest.mark.parametrize("url", [None, str(FOLDER)])
async def test_a_run_that_was_killed_ends_the_look_with_the_command_that_goes_on(local_run, url):
    said: list[str] = []
    async with following("e", url) as search:
        assert (await search.look(status, said.append)).meta["status"] == "submitted"
        send(signal.SIGKILL)
        with pytest.raises(StoreUnavailableError, match="`romul run --resume e` continues it"):
            await search.look(status, said.append)
    assert (FOLDER / URL_FILE).exists()
    assert said == []


async def test_a_run_that_was_ended_ends_the_look(local_run):
    async with following("e", None) as search:
        await local_run.aclose()
        assert not (FOLDER / URL_FILE).exists()
        with pytest.raises(StoreUnavailableError, match="runs/e: the run has ended"):
            await search.look(status, print)


async def test_a_run_that_was_resumed_meanwhile_is_looked_at_on_its_new_server(local_run):
    async with following("e", None) as search:
        send(signal.SIGKILL)
        before = (FOLDER / URL_FILE).read_text()
        after = await local_run.enter_async_context(embedded_server(FOLDER))
        assert before != after
        said: list[str] = []
        assert (await search.look(status, said.append)).meta["status"] == "submitted"
        assert said == []


async def test_a_server_that_hangs_is_named_while_the_request_goes_on(local_run, monkeypatch):
    monkeypatch.setattr(followed, "PATIENCE_S", 0.05)
    said: list[str] = []

    def silent(why):
        said.append(why)
        send(signal.SIGCONT)

    async with following("e", None) as search:
        send(signal.SIGSTOP)
        assert (await search.look(status, silent)).meta["status"] == "submitted"
    assert said == ["the server does not answer"]


@pytest.mark.parametrize("named", [False, True])
async def test_a_server_that_hangs_from_the_beginning_is_named(local_run, monkeypatch, named):
    monkeypatch.setattr(followed, "FIRST_PATIENCE_S", 0.05)
    url = (FOLDER / URL_FILE).read_text().strip() if named else None
    said: list[tuple[str, bool]] = []

    def echo(text, *, err):
        said.append((text, err))
        send(signal.SIGCONT)

    monkeypatch.setattr(followed, "echo", echo)
    send(signal.SIGSTOP)
    async with following("e", url) as search:
        assert (await status(search.store)).meta["status"] == "submitted"
    place = hide_password(url) if url else "runs/e"
    assert said == [(f"waiting for the server at {place}", True)]


async def test_another_server_than_a_local_runs_is_waited_for(redis_url, monkeypatch):
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    monkeypatch.setattr(followed, "PAUSE_S", 0.01)
    answers = iter([StoreUnavailableError("away"), StoreUnavailableError("away"), "here"])
    said: list[str] = []

    async def request(_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with following("e", redis_url) as search:
        assert await search.look(request, said.append) == "here"
    assert said == ["away", "away"]


async def test_a_look_that_is_interrupted_leaves_no_request(local_run):
    begun = asyncio.Event()

    async def request(_):
        begun.set()
        await asyncio.Event().wait()

    async with following("e", None) as search:
        before = asyncio.all_tasks()
        look = asyncio.create_task(search.look(request, print))
        await begun.wait()
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
        assert asyncio.all_tasks() == before
