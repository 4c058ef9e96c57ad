"""`romul.run` and similar functions, as programs call them, with real processes and servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

import romul
from romul.display import Display
from romul.watching import watch_search
from romul_actors.actor.loop import Actor
from romul_actors.client import Client
from romul_actors.core.events import Result as Reported
from romul_actors.errors import StoreUnavailableError
from romul_actors.launch import LaunchError
from romul_actors.local.mqtt_broker import has_broker
from romul_actors.local.redis_server import URL_FILE, embedded_server
from romul_actors.local.run_file import RunFile
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.messages import encode
from romul_actors.store.redis import RedisStore
from tests import warm
from tests.conftest import wait_for
from tests.system.conftest import install_overflowing, processes_with

SPACE = {"rate": romul.Float(1e-3, 1, log=True)}
SMALL = {"population": 4, "steps": 2, "metric": "val_loss", "progress": False}


NOBODY = "redis://:secret@127.0.0.1:1/0"
"""URL of a server that does not answer."""
SECRET = "a-text-that-stands-in-the-function"


def valley(note=SECRET):
    """A function that is pickled as a whole, since importing this module takes workers long."""

    def train(trial):
        total = 0.0
        if trial.parent is not None:
            total = json.loads((trial.parent / "total.json").read_text())
        total += abs(trial.hyperparameters["rate"] - 0.1)
        (trial.checkpoint / "total.json").write_text(json.dumps(total))
        (trial.checkpoint / "note").write_text(note)
        return {"val_loss": total, "updates": len(range(trial.start, trial.stop))}

    return train


train = valley()


def flat(trial):
    """A function that other machines can import."""
    return 1.0


def search(folder, task=train, space=SPACE, **changes):
    given = {"name": "mine", "runs": folder, "workers": 1, **SMALL, **changes}
    return romul.run(task, space, **given)


def script(folder, text, *, wait=True, **environment):
    """Run a user's program."""
    file = folder / "script.py"
    file.write_text(text)
    process = subprocess.Popen(
        [sys.executable, str(file)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def alone(folder):
    """Whether no process of a run in `folder` is left."""
    return wait_for(lambda: not processes_with(str(folder)))


# -- a run ----------------------------------------------------------------------------------------


class Recorded(romul.Callback):
    def __init__(self):
        self.lines = []

    def on_decision(self, line):
        self.lines.append(("decision", line.trial))

    def on_result(self, line):
        self.lines.append(("result", line.trial))

    def on_failure(self, line):
        self.lines.append(("failure", line.trial))

    def on_end(self, result):
        self.lines.append(("end", result.status))


class Look(romul.Callback):
    """Reads the search from another thread, as another program would."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = []

    def on_result(self, line):
        thread = threading.Thread(target=self._look)
        thread.start()
        thread.join()

    def _look(self):
        result = romul.open("mine", runs=self.folder)
        self.seen.append((result.status, result.under_way))


ONCE: dict[str, Any] = {"seed": 7, "steps": 3}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search for tests that only read: its folder, its result, its callbacks."""
    folder = tmp_path_factory.mktemp("searched")
    recorded, look = Recorded(), Look(folder)
    result = search(folder, callbacks=[recorded, look], **ONCE)
    alone(folder)
    return folder, result, recorded, look


def test_what_no_trial_needs_is_removed_at_the_end(searched):
    folder, result, _, _ = searched
    last = {f"{slot.index}-{slot.step}" for slot in result.population}
    names = [place.name for place in (folder / "mine" / "checkpoints").glob("[0-9]*")]
    left = {"-".join(name.split("-")[:2]) for name in names}
    assert len(names) == len(left)
    assert last <= left <= last | {result.best.trial}


def test_the_schedule_of_a_function_is_trained_again(searched, tmp_path):
    folder, result, _, _ = searched
    file = tmp_path / "schedule.json"
    result.schedule.write(file)
    arguments = ["schedule", "train", str(file), "--allow", "romul_handed", "--json"]
    done = warm.call(arguments, {**os.environ, "ROMUL_RUNS": str(folder)}, seconds=100)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == result.best.value


def test_a_function_is_searched(searched, tmp_path):
    _, result, recorded, _ = searched
    assert result.status == "finished"
    best = result.best
    assert json.loads((best.checkpoint / "total.json").read_text()) == best.value
    assert best.value == min(trial.value for trial in result.trials.values())
    assert best.metrics == {"updates": 1}
    assert result.schedule.stretches[-1].hyperparameters == best.hyperparameters
    assert [slot.status for slot in result.population] == ["done"] * 4
    assert len(result.trials_frame()) == len(result.trials) == 12
    assert len(result.population_frame()) == 4
    assert len(result.history_frame()) == len(result.history)
    assert list(result.schedule_frame()["h.rate"])[-1] == best.hyperparameters["rate"]
    for figure in (result.plot(), result.plot_lineage(), result.plot_workers()):
        figure.savefig(tmp_path / "figure.png")
    assert "best val_loss" in repr(result)
    assert "<th>checkpoint</th>" in result._repr_html_()
    kinds = [kind for kind, _ in recorded.lines]
    assert (kinds.count("decision"), kinds.count("result"), kinds[-1]) == (12, 12, "end")
    for kind, trial in recorded.lines:
        if kind == "result":
            assert recorded.lines.index(("decision", trial)) < recorded.lines.index((kind, trial))


def test_the_best_trial_of_the_last_step_may_be_another_one_than_the_best(searched):
    folder, result, _, _ = searched
    last = result.best_of_last_step
    values = {trial.id: trial.value for trial in result.trials.values() if trial.step == 2}
    assert (last.trial, last.value) == min(values.items(), key=lambda one: one[1])
    # The loss of this function rises from step to step.
    assert result.best.trial.endswith("-0")
    assert json.loads((last.checkpoint / "total.json").read_text()) == last.value
    done = warm.call(
        ("best", "mine", "--last-step", "--json"), {**os.environ, "ROMUL_RUNS": str(folder)}
    )
    said = json.loads(done.stdout)
    assert (said["trial"], said["val_loss"]) == (last.trial, last.value)
    assert last.checkpoint.name == said["checkpoint"]
    assert said["provenance"] == last.provenance


def test_its_moves_are_those_of_ask_and_tell(searched):
    _, result, _, _ = searched
    population = romul.Population(SPACE, population=4, **ONCE)
    ours: dict[str, Any] = {}
    checkpoints: dict[str, float] = {}
    while (trial := population.ask()) is not None:
        ours[trial.id] = dict(trial.hyperparameters)
        before = 0.0 if trial.parent is None else checkpoints[trial.parent]
        total = before + abs(trial.hyperparameters["rate"] - 0.1)
        checkpoints[trial.id] = total
        population.tell(trial, total)
    assert ours == {name: trial.hyperparameters for name, trial in result.trials.items()}
    assert population.best.value == pytest.approx(result.best.value, rel=1e-12)


def test_the_same_call_again_returns_what_was_found(searched):
    folder, first, _, _ = searched
    recorded = Recorded()
    again = search(folder, callbacks=[recorded], **ONCE)
    assert again.best == first.best
    assert recorded.lines == [("end", "finished")]


def test_a_search_is_looked_at_when_it_has_ended_and_while_it_goes_on(searched):
    folder, result, _, look = searched
    assert len(look.seen) == 12
    assert set(look.seen) <= {("running", True), ("finished", False)}
    assert romul.open("mine", runs=folder).best == result.best
    with pytest.raises(romul.RomulError, match="no run there"):
        romul.open("none", runs=folder)
    alone(folder)


def test_nothing_of_the_function_goes_through_the_server(searched):
    folder, *_ = searched
    assert SECRET.encode() in (folder / "mine" / "task" / "functions.pickle").read_bytes()
    stored = [file for file in (folder / "mine" / "redis").rglob("*") if file.is_file()]
    assert stored
    assert not [file for file in stored if SECRET.encode() in file.read_bytes()]


def test_a_closure_and_what_setup_made_train(tmp_path):
    factor = 3.0

    def setup(context):
        return {"device": context.device, "shift": 1.0}

    def closure(trial):
        (trial.checkpoint / "x").write_text("x")
        return factor * trial.hyperparameters["rate"] + trial.state["shift"]

    result = search(tmp_path, closure, setup=setup)
    rates = [trial.hyperparameters["rate"] for trial in result.trials.values()]
    assert result.best.value == pytest.approx(3.0 * min(rates) + 1.0)


def test_what_is_no_figure_is_warned_of_at_the_end(tmp_path):
    def odd(trial):
        (trial.checkpoint / "x").write_text("x")
        return {"val_loss": 1.0, "note": "text"}

    with pytest.warns(
        romul.AdviceWarning, match=r"mine: left out of results: 'note' \(str\)"
    ) as one:
        search(tmp_path, odd, steps=1)
    assert one[-1].filename == __file__
    with pytest.warns(romul.AdviceWarning, match=r"'note' \(str\)"):
        romul.extend("mine", steps=2, runs=tmp_path)


def test_a_plain_script_runs_a_search_without_a_guard(tmp_path):
    (tmp_path / "beside.py").write_text("SHIFT = 2.0\n")
    out = script(
        tmp_path,
        "import beside\nimport romul\n"
        "FACTOR = 10\n"
        "def train(trial):\n"
        "    (trial.checkpoint / 'x').write_text('x')\n"
        "    return FACTOR + beside.SHIFT + trial.hyperparameters['rate']\n"
        "space = {'rate': romul.Float(0, 1)}\n"
        "print(romul.run(train, space, population=4, steps=1, workers=1).best)\n",
    )
    assert out.startswith("Best(trial=")
    assert 12.0 <= float(out.partition("value=")[2].partition(",")[0]) <= 13.0
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.startswith("train-")
    alone(tmp_path)


def test_each_worker_has_gpus_of_its_own_also_when_the_run_continues(system, monkeypatch):
    four = "4,5,6,7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", four)
    both = system.folder / "both"
    both.mkdir()

    def train_on_a_gpu(trial):
        seen = os.environ["CUDA_VISIBLE_DEVICES"]
        (both / seen).touch()
        # The first trial waits for the other worker.
        while len(list(both.iterdir())) < 2:
            time.sleep(0.01)
        (trial.checkpoint / "x").write_text(seen)
        return {"val_loss": trial.hyperparameters["rate"]}

    with pytest.raises(LaunchError, match="need 6 GPUs, but CUDA_VISIBLE_DEVICES lists 4"):
        search(system.folder, train_on_a_gpu, workers=3, gpus=2)
    assert not (system.folder / "mine").exists()
    search(system.folder, train_on_a_gpu, workers=2, gpus=2)
    assert {file.name for file in both.iterdir()} == {"4,5", "6,7"}
    assert RunFile.read(system.folder / "mine").gpus == 2
    for file in both.iterdir():
        file.unlink()
    options = ["--resume=mine", f"--runs={system.folder}", "--steps=3", "--json"]
    done = system.call("run", *options, "--gpus=3", CUDA_VISIBLE_DEVICES=four)
    assert (done.returncode, "need 6 GPUs" in done.stderr) == (1, True), done.stderr
    done = system.call("run", *options, CUDA_VISIBLE_DEVICES=four)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in both.iterdir()} == {"4,5", "6,7"}


def test_what_a_script_defines_is_pickled_inside_its_function(tmp_path):
    """Objects are found by name, as with `pickle`, even if the worker's process has that name."""
    out = script(
        tmp_path,
        """
import multiprocessing
import pickle
import romul
class Trial:
    def __init__(self, x):
        self.x = x
def place(x):
    return x * x
def train(trial):
    state = Trial(1.0)
    if trial.parent is not None:
        state = pickle.loads((trial.parent / "state").read_bytes())
    with multiprocessing.get_context("fork").Pool(1) as pool:
        [state.x] = pool.map(place, [state.x + 1])
    (trial.checkpoint / "state").write_bytes(pickle.dumps(state))
    return state.x
space = {"rate": romul.Float(0, 1)}
best = romul.run(train, space, population=4, steps=2, workers=1, mode="max").best
print(best.value, pickle.loads((best.checkpoint / "state").read_bytes()).x)
""",
    )
    assert out == "25.0 25.0\n"


def test_a_run_can_be_awaited_beside_other_things_and_called_where_a_loop_runs(tmp_path):
    """One search trains a lambda, and one a task that is given by name."""
    name = "romul_workers.tasks.toys:quadratic"

    async def main():
        given: dict[str, Any] = {"runs": tmp_path, "workers": 1, **SMALL, "steps": 1}
        wrote = lambda trial: (trial.checkpoint / "x").write_text("x") / 3  # noqa: E731
        awaited = asyncio.create_task(romul.run_async(wrote, SPACE, name="one", **given))
        # As in a cell of a notebook, whose loop runs already.
        called = romul.run(name, SPACE, name="two", **{**given, "metric": "loss"})
        return called, await awaited

    called, awaited = asyncio.run(main())
    assert [called.status, awaited.status] == ["finished", "finished"]
    assert awaited.best.value == pytest.approx(1 / 3)


# -- again ----------------------------------------------------------------------------------------


def test_another_search_of_that_name_says_what_to_do(tmp_path):
    search(tmp_path, steps=1)
    with pytest.raises(
        romul.ExperimentExistsError, match=r"\(seed was 0, and is 1\): choose another"
    ):
        search(tmp_path, steps=1, seed=1)

    def other(trial):
        (trial.checkpoint / "x").write_text("x")
        return 100.0 + trial.hyperparameters["rate"]

    with pytest.raises(
        romul.ExperimentExistsError, match="another function: use resume=True to continue"
    ):
        search(tmp_path, other, steps=1)
    # Fingerprints of older versions are unknown, so nothing is refused because of them.
    call = tmp_path / "mine" / "call.json"
    noted = json.loads(call.read_text())
    before = {key: value for key, value in noted.items() if key != "fingerprint_format"}
    call.write_text(json.dumps({**before, "fingerprint": "0123456789abcdef"}))
    search(tmp_path, steps=1)
    assert json.loads(call.read_text()) == noted
    assert search(tmp_path, other, steps=1, resume=True).best.value < 100.0
    assert search(tmp_path, other, steps=1, fresh=True).best.value > 100.0
    with pytest.raises(romul.RomulError, match="no run there to continue"):
        search(tmp_path, name="none", resume=True)
    with pytest.raises(romul.RomulError, match="give only one"):
        search(tmp_path, resume=True, fresh=True)


def contents(folder):
    """The contents of all files of a run, except the server's: reading a run changes those."""
    files = [file for file in folder.rglob("*") if file.is_file() and "redis" not in file.parts]
    return {file.relative_to(folder): file.read_bytes() for file in files}


def test_a_run_stays_until_the_one_in_its_place_has_begun(tmp_path, monkeypatch):
    class Look(romul.Callback):
        def on_result(self, line):
            assert [folder.name for folder in runs.iterdir()] == ["mine"]

    class Interrupted(romul.Callback):
        def on_decision(self, line):
            raise KeyboardInterrupt

    runs = tmp_path / "runs"
    first = search(runs, steps=1)
    before = contents(runs / "mine")
    locked = lambda trial, lock=threading.Lock(): 1.0  # noqa: B008, E731
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (train, {"space": {}}, "space"),
        (train, {"workers": 0}, "workers"),
        (train, {"from_run": "none"}, "no run there"),
        ("nowhere", {}, "nowhere cannot be imported: No module named 'nowhere'"),
        ("tests.system.test_api:non", {}, "has no function 'non'"),
        ("tests.system.test_api:yields", {}, "yields is a generator"),
        (locked, {}, "belongs to this process"),
    ]
    for task, changes, message in refused:
        with pytest.raises(romul.RomulError, match=message):
            search(runs, task, fresh=True, **changes)
        assert contents(runs / "mine") == before
    server = tmp_path / "bin" / "valkey-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\nexit 1\n")
    server.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{server.parent}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(romul.RomulError, match="valkey-server does not start"):
            search(runs, steps=2, fresh=True)
    assert contents(runs / "mine") == before
    assert search(runs, steps=1).best == first.best
    # The state that a call leaves if it is killed before its run has begun.
    (runs / "mine").rename(runs / ".mine.former")
    (runs / "mine").mkdir()
    assert search(runs, steps=1).best == first.best
    result = search(runs, steps=2, fresh=True, callbacks=[Look()])
    assert (result.status, result.snapshot.counts["reported"]) == ("finished", 8)
    # Once it has begun, the former one does not come back.
    with pytest.raises(KeyboardInterrupt):
        search(runs, steps=3, fresh=True, callbacks=[Interrupted()])
    assert search(runs, steps=3).snapshot.counts["reported"] == 12


def test_a_run_on_a_named_server_is_not_removed(system):
    system.submit(name="other", steps=1)
    system.client.flushdb()
    runs = f"--runs={system.folder}", f"--redis={system.url}", "--workers=1"
    called = system.call("run", str(system.folder / "other.py"), *runs)
    assert called.returncode == 0, called.stderr
    before = contents(system.folder / "other")
    message = r"`romul run --redis` began, .* with `romul stop other --redis URL`"
    with pytest.raises(romul.ExperimentExistsError, match=message):
        search(system.folder, name="other", fresh=True)
    assert contents(system.folder / "other") == before


def gated(gate):
    """A function whose second trials wait for a file."""

    def train(trial):
        while trial.parent is not None and not Path(gate).exists() and not trial.should_stop:
            time.sleep(0.02)
        (trial.checkpoint / "x").write_text("x")
        return {"val_loss": trial.hyperparameters["rate"]}

    return train


def test_a_run_that_was_interrupted_goes_on(tmp_path):
    class Interrupt(romul.Callback):
        def on_result(self, line):
            raise KeyboardInterrupt

    waits = gated(str(tmp_path / "gate"))
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, waits, callbacks=[Interrupt()], steps=4)
    alone(tmp_path)
    left = romul.open("mine", runs=tmp_path)
    assert (left.status, left.under_way) == ("running", False)
    assert "status: running, interrupted\n" in repr(left)

    async def pause():
        folder = tmp_path / "mine"
        async with embedded_server(folder) as url, Client.connect(url) as client:
            await client.pause("mine")

    (tmp_path / "gate").touch()
    # A pause that is not decided yet is no reason to wait.
    asyncio.run(pause())
    result = search(tmp_path, waits, steps=4)
    assert (result.status, result.snapshot.counts["reported"]) == ("finished", 16)
    # Nor is one of a search that has ended.
    asyncio.run(pause())
    assert search(tmp_path, waits, steps=4).best == result.best


def test_a_search_that_has_ended_is_extended_and_goes_on_with_another_declaration(tmp_path):
    search(tmp_path, steps=2)
    with pytest.raises(
        romul.ExperimentExistsError, match=r"\(steps was 2, and is 4\): use resume=True to"
    ):
        search(tmp_path, steps=4)
    with pytest.raises(romul.ExperimentError, match="2 is not above the current 2"):
        romul.extend("mine", steps=2, runs=tmp_path)
    recorded = Recorded()
    # As a killed run leaves it.
    (tmp_path / "mine" / URL_FILE).write_text(NOBODY)
    result = romul.extend("mine", steps=4, runs=tmp_path, callbacks=[recorded])
    alone(tmp_path)
    assert (result.status, result.snapshot.counts["reported"]) == ("finished", 16)
    assert sum(line[0] == "result" for line in recorded.lines) == 8
    # The call that began it may be run again, as the cell of a notebook.
    for steps in (4, 2, 4):
        assert search(tmp_path, steps=steps).best == result.best
    with pytest.raises(romul.ExperimentExistsError, match="steps was 4, and is 3"):
        search(tmp_path, steps=3)
    with pytest.raises(romul.RomulError, match="no run there"):
        romul.extend("none", steps=4, runs=tmp_path)

    wider = {"rate": romul.Float(0.2, 0.3, log=True)}
    declared = {"steps": 6, "population": 5, "optimizer": {"name": "romul", "power": 0.2}}
    with pytest.raises(
        romul.ExperimentExistsError, match="use resume=True to continue with the new one"
    ):
        search(tmp_path, space=wider, **declared)
    result = search(tmp_path, space=wider, **declared, resume=True)
    assert (result.status, len(result.population)) == ("finished", 5)
    experiment = result.snapshot.experiment
    assert (experiment.steps, experiment.population) == (6, 5)
    assert (experiment.space["rate"].min, experiment.optimizer.options) == (0.2, {"power": 0.2})
    late = [trial for trial in result.trials.values() if trial.step > 4]
    assert late
    assert all(0.2 <= trial.hyperparameters["rate"] <= 0.3 for trial in late)
    # Now the search has this declaration.
    assert search(tmp_path, space=wider, **declared).best == result.best
    other = {**wider, "width": romul.Int(1, 3)}
    with pytest.raises(
        romul.ExperimentExistsError, match=r"(?s)width was added.*another name.*--from-run mine"
    ) as error:
        search(tmp_path, space=other, **declared, resume=True)
    assert "'min'" not in str(error.value)
    with pytest.raises(romul.ExperimentExistsError, match="max_attempts cannot be changed"):
        search(tmp_path, space=wider, **declared, max_attempts=9, resume=True)


def test_a_search_that_a_constant_has_stopped_goes_on_with_another_one(tmp_path, monkeypatch):
    install_overflowing(tmp_path, monkeypatch)
    absurd, sound = ({"name": "overflowing", "quorum_share": share} for share in (1e308, 0.5))
    with pytest.raises(romul.SearchFailedError, match=r"the decision failed .OverflowError: "):
        search(tmp_path, optimizer=absurd)
    result = search(tmp_path, optimizer=sound, resume=True)
    assert (result.status, result.snapshot.counts["reported"]) == ("finished", 8)
    alone(tmp_path)


def test_a_search_begins_with_what_another_one_has_found(tmp_path, system):
    def count(trial):
        n = 1 if trial.parent is None else 1 + int((trial.parent / "n").read_text())
        (trial.checkpoint / "n").write_text(str(n))
        return trial.hyperparameters["rate"] - 10 * n

    with pytest.raises(romul.RomulError, match=r"from_run: .*old: no run there"):
        search(tmp_path, count, name="new", from_run="old")
    old = search(tmp_path, count, name="old", steps=2)
    origin = {"name": "old", "what": "checkpoints"}
    (tmp_path / "old" / URL_FILE).write_text(NOBODY)  # As a killed run leaves it.
    new = search(tmp_path, count, name="new", steps=1, from_run=origin)
    assert new.best.value <= old.best.value - 10 + 1e-9
    assert search(tmp_path, count, name="new", steps=1, from_run=origin).best == new.best
    alone(tmp_path)
    # On a server, from a search there.
    system.submit()
    system.actor()
    system.worker()
    system.wait_for_status("finished")
    space = {"rate": romul.Float(1e-3, 1.0, log=True)}
    experiment = romul.submit(
        "romul_workers.tasks.toys:quadratic",
        space,
        redis=system.url,
        name="far",
        checkpoints=str(tmp_path / "far"),
        population=4,
        steps=1,
        from_run="e",
    )
    best = json.loads(system.meta("e")["best"])["hyperparameters"]["rate"]
    assert experiment.initial[0]["rate"] == pytest.approx(best)
    assert romul.wait("far", redis=system.url).status == "finished"


def test_the_command_line_goes_on_with_it_and_sees_it(system):
    class Stop(romul.Callback):
        def on_result(self, line):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        search(system.folder, callbacks=[Stop()], steps=4)
    done = system.call("run", "--resume=mine", f"--runs={system.folder}", "--json", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 16
    assert search(system.folder, steps=4).snapshot.counts["reported"] == 16


# -- how it ends ----------------------------------------------------------------------------------


def test_a_callback_may_end_it_in_order(tmp_path):
    class Enough(romul.Callback):
        def on_result(self, line):
            raise romul.StopSearch

    result = search(tmp_path, callbacks=[Enough()], steps=50)
    assert (result.status, result.reason) == ("stopped", "stopped by romul.run")
    assert result.best.value > 0
    alone(tmp_path)


LONG = """
import time
import traceback
import romul
def train(trial):
    while not trial.should_stop:
        time.sleep(0.02)
space = {"rate": romul.Float(0, 1)}
romul.run(train, space, population=4, steps=1, name="mine", progress=True, workers=1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_program(tmp_path, number):
    process = script(tmp_path, LONG, wait=False)
    logs = tmp_path / "runs" / "mine" / "logs"
    wait_for(lambda: "attempt 1" in "".join(log.read_text() for log in logs.glob("worker-*.log")))
    wait_for(lambda: any("workers.child" in line for line in processes_with(str(tmp_path))))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in err
        assert "interrupted: the same call with name='mine' continues the search\n" in err
    alone(tmp_path)


def test_an_interrupt_where_a_loop_runs_ends_all_too(tmp_path):
    text = LONG.replace("romul.run(", "async def cell():\n    romul.run(") + "\n"
    text += "import asyncio\nasyncio.run(cell())\n"
    process = script(tmp_path, text, wait=False)
    logs = tmp_path / "runs" / "mine" / "logs"
    wait_for(lambda: "attempt 1" in "".join(log.read_text() for log in logs.glob("worker-*.log")))
    wait_for(lambda: any("workers.child" in line for line in processes_with(str(tmp_path))))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    alone(tmp_path)


def test_a_function_that_always_fails_ends_the_run_with_its_error(tmp_path):
    def broken(trial):
        raise ValueError("no such data set: mnits")

    with pytest.raises(romul.SearchFailedError, match="no such data set: mnits") as raised:
        search(tmp_path, broken)
    assert "3 trials with different hyperparameters failed in the same way" in str(raised.value)
    assert "romul_workers" not in str(raised.value)
    alone(tmp_path)
    assert search(tmp_path, resume=True).status == "finished"


def test_when_all_trials_fail_the_error_says_how_to_go_on(tmp_path):
    def diverges(trial):
        return float("nan")

    with pytest.raises(romul.SearchFailedError, match="every trial of step 0 failed") as raised:
        search(tmp_path, diverges)
    assert "To try again, repeat the call with name='mine'" in str(raised.value)
    assert search(tmp_path, resume=True).status == "finished"


def test_two_runs_of_one_name_do_not_meet(tmp_path):
    process = script(tmp_path, LONG, wait=False)
    try:
        wait_for((tmp_path / "runs" / "mine" / "redis.url").is_file)
        with pytest.raises(romul.RomulError, match="a run is under way"):
            search(tmp_path / "runs", fresh=True)
    finally:
        # No process outlives a program that is asked to end, either.
        process.terminate()
        process.communicate(timeout=60)
    alone(tmp_path)


@pytest.mark.skipif(not has_broker(), reason="there is no broker program")
def test_an_operator_acts_on_a_run_from_a_program(tmp_path):
    class Act(romul.Callback):
        acted = False

        def on_result(self, line):
            if not self.acted:
                self.acted = True
                client = romul.Client(tmp_path / "mine", by="a test")
                assert client.status("mine") == "running"
                assert client.bounds("mine", "rate", max=0.2) == (1e-3, 0.2)
                client.pin("mine", 0)
                assert client.drain(line.worker) == ["mine"]
                client.stop("mine")

    result = search(tmp_path, callbacks=[Act()], steps=50)
    assert (result.status, result.reason) == ("stopped", "stopped by a test")
    assert [line.event for line in result.history if getattr(line, "by", "") == "a test"] == [
        "bounds",
        "pin",
        "drain",
        "stop",
    ]
    with pytest.raises(romul.RomulError, match="nor the folder of a local run whose server is up"):
        romul.Client(tmp_path / "mine").pause("mine")


def test_a_run_is_found_where_the_command_line_finds_it(searched, monkeypatch, tmp_path):
    folder, result, _, _ = searched
    monkeypatch.setenv("ROMUL_RUNS", str(folder))
    # As a killed run leaves it.
    (folder / "mine" / URL_FILE).write_text(NOBODY)
    assert romul.open("mine").best == result.best
    assert not (folder / "mine" / URL_FILE).exists()
    monkeypatch.setenv("ROMUL_RUNS", str(tmp_path))
    with pytest.raises(romul.UnknownExperimentError, match="no run there"):
        romul.open("mine")


# -- what is refused ------------------------------------------------------------------------------


async def awaited(trial):
    return 1.0


def yields(trial):
    yield 1.0


async def yields_awaited(trial):
    yield 1.0


class Called:
    async def __call__(self, trial):
        return 1.0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (awaited, "awaited is an `async def` function, which a trial does not await: write `def`"),
        (Called(), "Called is an `async def` function"),
        (yields, r"yields is a generator \(it has a `yield`\): train from trial.start"),
        (yields_awaited, "yields_awaited is a generator"),
        (lambda: 1.0, r"cannot be called with a trial alone \(too many positional arguments\)"),
        (lambda rate, width: 1.0, r"\(missing a required argument: 'width'\): write `def train"),
        (7, 'task: 7 is neither a function nor a name "module:function"'),
        (lambda trial, lock=threading.Lock(): 1.0, "belongs to this process"),  # noqa: B008
    ],
)
def test_what_cannot_train_is_refused_with_what_to_do(tmp_path, task, message):
    with pytest.raises(romul.TaskError, match=message):
        search(tmp_path, task)
    assert not processes_with(str(tmp_path))


def test_an_async_task_of_a_file_fails_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "awaits.py").write_text("async def train(trial):\n    return 1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path[1:]])
    with pytest.raises(romul.SearchFailedError, match="awaits:train is an `async def` function"):
        search(tmp_path, "awaits")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worker": 3}, r"run\(\) has no argument 'worker': did you mean 'workers'\?"),
        ({"redis": "redis://h"}, r"'redis': to run a search on a server, use romul.submit"),
        ({"name": "a/b"}, "name: 'a/b' is not allowed: use at most 64 letters, digits"),
        ({"budgt": 3}, "did you mean 'budget'"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, changes, message):
    with pytest.raises(romul.ExperimentError, match=message):
        search(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


# -- a server -------------------------------------------------------------------------------------


class Shown(Display):
    """Ends the watch with the first text that it is to show."""

    def show(self, standing):
        raise LookupError(standing.text)


def test_the_progress_of_a_search_on_a_server_names_what_it_waits_for(system):
    given = {"redis": system.url, "checkpoints": str(system.folder), "population": 4, "steps": 2}
    romul.submit("romul_workers.tasks.toys:quadratic", SPACE, name="far", **given)

    async def look():
        async with Client.connect(system.url) as client:
            await watch_search(client, "far", [], Shown())

    with pytest.raises(LookupError, match=r"^no actor has started it$"):
        asyncio.run(look())
    system.actor()
    assert wait_for(lambda: romul.Client(system.url).status("far") == "running")
    with pytest.raises(LookupError, match=r"^no worker is alive$"):
        asyncio.run(look())


def test_a_search_is_submitted_to_a_server_and_waited_for(system):
    given = {"redis": system.url, "checkpoints": str(system.folder), "population": 4, "steps": 2}
    task = "romul_workers.tasks.toys:quadratic"
    romul.submit(task, SPACE, name="far", **given)
    with pytest.raises(TimeoutError, match=r"far has not ended within 0\.1 s; `romul show far`"):
        romul.wait("far", redis=system.url, timeout_s=0.1)
    system.actor()
    system.worker()
    recorded = Recorded()
    result = romul.wait("far", redis=system.url, callbacks=[recorded], progress=False)
    assert (result.status, recorded.lines[-1]) == ("finished", ("end", "finished"))
    assert romul.open("far", redis=system.url).best == result.best
    assert romul.Client(system.url).statuses() == {"far": "finished"}
    with pytest.raises(romul.ExperimentExistsError):
        romul.submit(task, SPACE, name="far", **given)
    with pytest.raises(romul.ExperimentError, match="checkpoints: 'ck' is relative"):
        romul.submit(task, SPACE, name="near", **{**given, "checkpoints": "ck"})
    with pytest.raises(romul.TaskError, match="the workers of a server import a task by its name"):
        romul.submit(lambda trial: 1.0, SPACE, name="near", **given)
    assert romul.submit(flat, SPACE, name="near", **given).task == "tests.system.test_api:flat"


class Stop(Recorded):
    def on_result(self, line):
        super().on_result(line)
        raise romul.StopSearch

    def on_end(self, result):
        super().on_end(result)
        raise romul.StopSearch  # Has no effect on a search that has ended.


def test_a_callback_ends_a_search_on_a_server_in_order(system):
    given: dict[str, Any] = {"redis": system.url, "checkpoints": str(system.folder)}
    given["population"] = 4
    romul.submit("romul_workers.tasks.toys:quadratic", SPACE, name="far", steps=5000, **given)
    system.actor()
    system.worker()
    calls: list[tuple[Any, dict[str, Any]]] = [(romul.wait, {}), (romul.extend, {"steps": 6000})]
    for call, more in calls:
        stop = Stop()
        result = call("far", redis=system.url, callbacks=[stop], progress=False, **more)
        assert (result.status, romul.open("far", redis=system.url).status) == ("stopped",) * 2
        assert [kind for kind, _ in stop.lines if kind != "decision"] == ["result", "end"]


async def test_a_callback_ends_a_paused_search_before_it_has_resumed(redis_url, tmp_path):
    """The result that the callback gets was reported before the search was asked to resume."""
    space = {"rate": {"type": "float", "min": 0.1, "max": 1.0}}
    declared = {"name": "far", "task": "t", "population": 4, "space": space, "steps": 5}
    experiment = Experiment.model_validate({**declared, "checkpoints": str(tmp_path)})
    store = RedisStore(redis_url)
    await store.connection.client.flushdb()
    client, actor = Client(store), Actor(store, "a", ["far"], pace_s=0.01)
    await client.submit(experiment)
    await client.pause("far")
    while await client.status("far") != "paused":
        await actor.turn()
    given: dict[str, Any] = {"trial": "0-0", "slot": 0, "attempt": 1, "worker": "w", "seconds": 1.0}
    await store.send("far", encode(Reported(**given, value=0.5, checkpoint="0-0-1-aa")))
    calling = romul.extend_async("far", steps=6, redis=redis_url, callbacks=[Stop()])
    called = asyncio.create_task(calling)
    # The result, `extend` and `resume`.
    while len((await store.outstanding("far")).inbox) < 3:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while not called.done():
            await actor.turn()
            await asyncio.sleep(0.01)
    assert (await called).status == "stopped"
    await store.close()


def test_a_search_on_a_server_that_failed_is_an_error_in_every_call(system):
    given: dict[str, Any] = {"redis": system.url, "checkpoints": str(system.folder)}
    given |= {"population": 4, "steps": 2}
    romul.submit("misbehaving:absent", SPACE, name="far", max_attempts=1, **given)
    system.actor()
    system.worker()
    recorded = Recorded()
    with pytest.raises(romul.SearchFailedError, match="misbehaving has no function 'absent'"):
        romul.wait("far", redis=system.url, callbacks=[recorded])
    system.wait_for_status("failed", "far")
    why = r"(?s)every trial of step 0 failed.*use `romul resume far`. `romul failures far` says"
    with pytest.raises(romul.SearchFailedError, match=why):
        romul.wait("far", redis=system.url, callbacks=[recorded])
    with pytest.raises(romul.SearchFailedError, match="misbehaving has no function 'absent'"):
        romul.extend("far", steps=3, redis=system.url, callbacks=[recorded])
    assert "end" not in {kind for kind, _ in recorded.lines}
    system.wait_for_status("failed", "far")
    assert romul.open("far", redis=system.url).status == "failed"


# -- what is handed to workers --------------------------------------------------------------------


def test_a_function_is_read_only_from_a_file_of_this_users_own(tmp_path):
    from romul_workers import handed  # noqa: PLC0415

    handed.write(tmp_path / "task", train, None)
    file = tmp_path / "task" / handed.PICKLE
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    source = (file.parent / f"{handed.MODULE}.py").read_text()
    [digest] = [word for word in source.replace("'", '"').split('"') if len(word) == 64]
    assert handed.read(file, digest)[0].__name__ == "train"
    file.chmod(0o620)
    with pytest.raises(romul.TaskError, match="another user owns it or may read or change it"):
        handed.read(file, digest)
    file.chmod(0o600)
    with pytest.raises(romul.TaskError, match="has changed since its task module"):
        handed.read(file, "0" * 64)
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic link"):
        handed.read(link, digest)


def test_a_server_that_does_not_answer_is_told_without_its_clients_frames():
    with pytest.raises(StoreUnavailableError) as caught:
        romul.wait("mine", redis=NOBODY)
    shown = "".join(traceback.format_exception(caught.value))
    assert "the server does not answer" in shown
    assert "redis/asyncio" not in shown
    assert "secret" not in shown
