"""What `romul run` shows during a search, on a terminal and in a pipe."""

import io
import re
from pathlib import Path

import pytest

from romul_actors.actor.loop import Actor
from romul_actors.cli.local_run import live
from romul_actors.cli.local_run.live import LiveView
from romul_actors.cli.output.printing import Console
from romul_actors.client import Client
from romul_actors.protocol.experiment import Experiment
from romul_actors.store.memory import MemoryStore

EXPERIMENT = Experiment.model_validate(
    {
        "name": "cg",
        "task": "t",
        "space": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
        "population": 4,
        "steps": 3,
        "checkpoints": "memory://cg",
    }
)


@pytest.fixture
async def client():
    made = Client(MemoryStore(), by="root")
    await made.submit(EXPERIMENT)
    return made


def view_of(client, folder="runs/cg", server=None, *, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=120)
    view = LiveView(client.store, [EXPERIMENT], console, Path(folder), server, resumed=False)
    return view, out


async def test_in_a_pipe_a_line_is_printed_where_something_has_changed(client, monkeypatch):
    monkeypatch.setattr(live, "LINE_S", 0.0)
    view, out = view_of(client, terminal=False)
    actor = Actor(client.store, "a", pace_s=0.0)
    with view:
        for _ in range(3):
            await actor.turn()
            assert not await view.refresh()
        # The reason for a stop is shown at once.
        monkeypatch.setattr(live, "LINE_S", 1e9)
        for request in (client.pause, client.resume):
            await request("cg")
            for _ in range(2):
                await actor.turn()
                assert not await view.refresh()
    assert out.getvalue().splitlines() == [
        "cg 0/12",
        "cg 0/12, paused by root: `romul resume cg` continues it",
        "cg 0/12",
    ]


async def test_on_a_terminal_a_paused_search_has_a_reason_and_no_time_left(client):
    view, out = view_of(client, terminal=True)
    await client.pause("cg")
    await Actor(client.store, "a", pace_s=0.0).turn()
    with view:
        assert not await view.refresh()
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", out.getvalue())
    assert "cg: paused by root: `romul resume cg` continues it" in shown
    assert "-:--:--" not in shown


@pytest.mark.parametrize(
    ("folder", "server", "command"),
    [
        ("other/cg", None, "romul resume cg --redis other/cg"),
        ("runs/both", None, "romul resume cg --redis runs/both"),
        ("runs/cg", "redis://u:secret@h:1/0", "romul resume cg --redis 'redis://u:***@h:1/0'"),
    ],
)
async def test_the_command_that_resumes_it_finds_it(client, folder, server, command):
    view, out = view_of(client, folder, server, terminal=False)
    await client.pause("cg")
    await Actor(client.store, "a", pace_s=0.0).turn()
    with view:
        await view.refresh()
    assert f"paused by root: `{command}` continues it" in out.getvalue()
