"""What runs beside a long-running command."""

import asyncio
import logging

import pytest

from romul_actors.cli.services import beside


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
    assert record.getMessage() == "dies has ended, all else goes on: no such topic"
    assert record.exc_info[0] is ValueError


async def test_what_runs_beside_ends_with_the_main_thing_in_silence(caplog):
    with pytest.raises(KeyError):
        async with beside(waits()):
            raise KeyError
    assert not caplog.records
    assert len(asyncio.all_tasks()) == 1
