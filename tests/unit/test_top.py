"""What `romul top` and `romul history` print."""

import io

from romul_actors.cli.history import line_in_words
from romul_actors.cli.printing import Console
from romul_actors.cli.top import Screen, sparkline
from romul_actors.core.history import ControlIgnored, from_json
from romul_actors.store.memory import MemoryStore
from romul_sim.virtual_time import run
from tests.trials import created, declare


def test_lines_and_sparks_are_short():
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([1e-6, 1e-3, 1.0]) in ("▁▄█", "▁▅█")
    line = from_json(
        {"event": "failed", "at_ms": 0, "trial": "0-0", "message": "x" * 1000, "vector": [1]}
    )
    assert line_in_words(line).startswith("1970-01-01 00:00:00 UTC  failed")
    assert len(line_in_words(line)) < 300
    assert "vector" not in line_in_words(line)


def test_a_line_says_why_a_trial_was_made_and_why_an_action_was_ignored():
    trial = created("0-1", hyperparameters={"x": 1.0}, why={"rule": "keep"})
    assert line_in_words(trial).endswith("hyperparameters={x: 1}  rule=keep")
    ignored = ControlIgnored(at_ms=0, action="bounds", status="running", why="no number", by="me")
    assert line_in_words(ignored).endswith("by=me  why=no number")


def test_top_shows_alarms_with_their_remedies_but_not_what_may_well_be_meant():
    async def main():
        store = MemoryStore()
        await store.create("e", declare(steps=9, checkpoints="memory://x").model_dump_json(), b"x")
        screen, shown = Screen("e"), io.StringIO()
        console = Console(width=200, file=shown)
        console.print(screen.render(await screen.refresh(store)))
        store.memory.experiments["e"].meta["status"] = "running"
        console.print(screen.render(await screen.refresh(store)))
        for name, state in (("serves", "idle"), ("other", "refuses")):
            await store.present(["e"], name, {"state": state, "why": "not allowed"})
        console.print(screen.render(await screen.refresh(store)))
        return shown.getvalue().splitlines()

    assert [line.rstrip() for line in run(main()) if line.startswith("!")] == [
        "! no actor has begun with it (`romul actor` starts one)",
        "! no worker is alive (`romul worker --allow t --path FOLDER` starts one)",
    ]
