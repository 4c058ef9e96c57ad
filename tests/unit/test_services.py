"""Services of a long-running command."""

import asyncio
import logging

import pytest
from redis import Redis

from romul_actors.cli.processes import services
from romul_actors.cli.processes.services import beside, check_again, serve_until_stopped
from romul_actors.client import Client
from romul_actors.errors import StoreUnavailableError, TlsError
from romul_actors.local.redis_server import embedded_server


async def dies():
    raise ValueError("no such topic")


async def waits():
    await asyncio.Event().wait()


async def test_the_death_of_what_runs_beside_is_logged_and_ends_nothing_else(caplog):
    with caplog.at_level(logging.ERROR, "romul"):
        async with beside(dies(), waits()):
            while not caplog.records:
                await asyncio.sleep(0)
    [record] = caplog.records
    assert record.getMessage() == "dies has failed, the rest continues: no such topic"
    assert record.exc_info[0] is ValueError


async def test_what_runs_beside_ends_with_the_main_thing_in_silence(caplog):
    with pytest.raises(KeyError):
        async with beside(waits()):
            raise KeyError
    assert not caplog.records
    assert len(asyncio.all_tasks()) == 1


async def test_a_server_that_begins_to_evict_is_noticed(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(services, "CHECK_S", 0.01)
    async with (
        embedded_server(tmp_path, durable=False) as url,
        Client.connect(url) as client,
        beside(check_again(client.store)),
    ):
        with Redis.from_url(url) as server:
            server.config_set("maxmemory-policy", "allkeys-lru")
        while not caplog.records:
            await asyncio.sleep(0.01)
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    assert "maxmemory-policy is 'allkeys-lru'" in caplog.records[0].getMessage()


async def never(store, stop):
    raise AssertionError("there is no server")


async def test_a_server_that_never_answers_is_an_error_in_the_end(monkeypatch):
    monkeypatch.setattr(services, "WAIT_S", 0.5)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1/0: no Redis or Valkey server"):
        await serve_until_stopped("redis://127.0.0.1:1/0", never)


async def test_a_server_that_does_not_speak_tls_is_not_waited_for():
    async def answer(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TlsError, match="does it speak TLS"):
            await serve_until_stopped(f"rediss://127.0.0.1:{port}/0", never)
