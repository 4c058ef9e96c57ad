"""What `romul top` and `romul history` print."""

import io
from dataclasses import replace

from romul_actors.cli.commands.history import line_in_words
from romul_actors.cli.commands.top import Screen, sparkline
from romul_actors.cli.output.printing import Console
from romul_actors.core.history import ControlIgnored, from_json
from romul_actors.observe.snapshot import WorkerSnapshot
from romul_actors.store.memory import MemoryStore
from romul_sim.cluster.virtual_time import run
from tests.trials import created, declare, failed


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


def test_of_a_traceback_a_line_has_the_end():
    trace = (
        "Traceback (most recent call last):\n" + '  File "t.py", line 1\n' * 20 + "ValueError: no"
    )
    words = line_in_words(failed("0-0", message=trace))
    assert "message=ValueError: no  again=False" in words
    assert "Traceback" not in words


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
        "! no actor has started it (`romul actor` starts one)",
        "! no worker is alive (`romul worker --allow t --path FOLDER` starts one)",
    ]


def drawn(seen, height, note=""):
    console = Console(width=100, height=height, file=io.StringIO(), force_terminal=True)
    lines = console.render_lines(Screen("e").fitted(seen, console, note))
    return ["".join(segment.text for segment in line).strip() for line in lines]


def test_many_workers_leave_a_terminal_room_for_slots(searched):
    def workers(n, prefix, age_s):
        return [
            WorkerSnapshot(f"{prefix}{i:02}", "h", 1, "idle", "", None, age_s) for i in range(n)
        ]

    seen = replace(searched, workers=[*workers(60, "gone", 1e4), *workers(60, "here", 0.1)])
    for height in (24, 40, 60):
        lines = drawn(seen, height)
        shown = [line for line in lines if line.startswith("here")]
        assert 1 <= len(shown) <= height // 3
        assert f"and {60 - len(shown)} more (`romul workers e`)" in lines
        assert "lost: gone00, gone01, gone02 and 57 more" in lines
        assert len(lines) <= height
        slots = lines[next(i for i, line in enumerate(lines) if line.startswith("slot")) :]
        ranks = [line for line in slots if " done " in line]
        assert len(ranks) == 8 or lines[-1].startswith(f"the best {len(ranks)} of 8 slots")
        assert len(ranks) >= 4
    # If there are few workers, all of them are shown, and all slots.
    lines = drawn(replace(seen, workers=seen.workers[-3:]), 40)
    assert sum(line.startswith("here") for line in lines) == 3
    assert not [line for line in lines if "more" in line or "the best" in line]
    # A single printout shows all of them, up to `--rows`.
    printed = io.StringIO()
    Console(width=100, file=printed).print(Screen("e", 100).render(seen))
    lines = printed.getvalue().splitlines()
    assert sum(line.lstrip().startswith("here") for line in lines) == 60
    assert sum(" lost " in line for line in lines) == 40
    assert any("and 20 more" in line for line in lines)


def test_a_screen_says_what_its_queues_hold(searched):
    seen = replace(searched, depths={"inbox": 1, "trials": 2, "history": 3, "dead": 4})
    (queues,) = [line for line in drawn(seen, 40) if line.startswith("queues:")]
    assert queues.startswith(
        "queues: inbox 1, trials queued or in training 2, dead letters 4   history 3 lines"
    )


def test_workers_are_not_compared_with_the_lost_ones(monkeypatch):
    async def main():
        store = MemoryStore()
        await store.create("e", declare(checkpoints="memory://x").model_dump_json(), b"x")
        screen = Screen("e")
        return screen, await screen.refresh(store)

    def compare(*_):
        raise AssertionError("as many comparisons as there are workers, for each of them")

    screen, seen = run(main())
    workers = [WorkerSnapshot(f"w{i}", "h", 1, "idle", "", None, 1e6 * (i % 2)) for i in range(6)]
    monkeypatch.setattr(WorkerSnapshot, "__eq__", compare)
    out = io.StringIO()
    Console(width=200, file=out).print(screen.render(replace(seen, workers=workers)))
    states = [line.split()[1] for line in out.getvalue().splitlines() if " s ago" in line]
    assert states == [*["idle"] * 3, *["lost"] * 3]
