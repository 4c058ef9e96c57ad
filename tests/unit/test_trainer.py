"""The trainer: its warm child process, and trials in which something goes wrong."""

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from romul_actors.core.events import TrialMessage
from romul_workers.child import output
from romul_workers.child.messages import PrepareTask, TaskProgress, encode
from romul_workers.child.process import ChildProcess
from romul_workers.child.provenance import code_of
from romul_workers.child.trainer import ChildTrainer
from romul_workers.trainer import Failure, NoRoom, Outage, Stopped, Success
from romul_workers.trial import Context
from romul_workers.trial import Trial as Task
from tests.trials import declare

TASKS = Path(__file__).parents[1] / "tasks"


def experiment(folder, task="counting", **fields):
    return declare(**{"task": task, "checkpoints": str(folder / "checkpoints"), **fields})


def trial(step=0, parent=None, attempt=1, **hyperparameters):
    return TrialMessage(
        id=f"0-{step}",
        slot=0,
        step=step,
        attempt=attempt,
        hyperparameters=hyperparameters or {"x": 0.5},
        parent=parent,
        start=float(step),
        stop=step + 1.0,
        seed=7,
    )


@pytest.fixture
async def trainer(tmp_path):
    made = ChildTrainer(tmp_path / "scratch", [TASKS])
    yield made
    await made.close()


async def test_the_process_is_kept_warm_and_setup_runs_once(trainer, tmp_path):
    e = experiment(tmp_path)
    first = await trainer.train(e, trial(0))
    second = await trainer.train(e, trial(1, parent=first.checkpoint))
    assert isinstance(first, Success)
    assert [one.checkpoint.rpartition("-")[0] for one in (first, second)] == ["0-0-1", "0-1-1"]
    assert first.metrics["pid"] == second.metrics["pid"] != os.getpid()
    assert (first.metrics["setups"], second.metrics["setups"]) == (1.0, 1.0)
    assert (first.value, second.value) == (1.0, 2.0)
    # An extended search is the same task; one with another constant is not.
    third = await trainer.train(e.model_copy(update={"steps": 9}), trial(0))
    fourth = await trainer.train(e.model_copy(update={"constants": {"c": 1}}), trial(0))
    assert (third.metrics["setups"], fourth.metrics["setups"]) == (1.0, 2.0)


async def test_what_a_trial_leaves_as_it_was_is_shared_with_its_parent(trainer, tmp_path):
    e = experiment(tmp_path, "frozen")
    parent, values = None, []
    for step in range(4):
        ending = await trainer.train(e, trial(step, parent=parent))
        if parent is not None and step < 3:
            # Its file stays with its child; a third one's is looked at below.
            await trainer.discard(e, parent)
        parent = ending.checkpoint
        values.append(ending.value)
    assert sorted(values, reverse=True) == values
    last = tmp_path / "checkpoints" / parent
    shared, own = sorted(last.glob("*.safetensors"), key=lambda path: path.name)
    assert (shared.stat().st_nlink, own.stat().st_nlink) == (2, 1)
    # The first checkpoint, of all weights and one momentum; in place of what has changed since:
    numbers = 4 * (1 << 18)
    assert 11 * numbers < shared.stat().st_size < 11.1 * numbers
    assert own.stat().st_size < 2.1 * numbers


async def started_early(folder, source):
    """A trainer whose child imports a task of the given source before the first trial."""
    (folder / "early.py").write_text(
        f"from pathlib import Path\nPath({str(folder / 'imported')!r}).touch()\n{source}"
    )
    log = folder / "log"
    child = await ChildProcess.start([folder], log, ["early"])
    async with asyncio.timeout(30):
        while not (folder / "imported").exists():
            await asyncio.sleep(0.01)
    return ChildTrainer(folder / "scratch", [folder], log, child=child), child


COUNTING = """
import os
TIMES = []
TIMES.append(1)
print("imported by", os.getpid(), flush=True)

def train(trial):
    (trial.checkpoint / "nothing").touch()
    return {"loss": len(TIMES), "pid": os.getpid()}
"""


async def test_a_task_that_is_imported_before_its_first_trial_is_imported_once(tmp_path):
    trainer, _ = await started_early(tmp_path, COUNTING)
    first = await trainer.train(experiment(tmp_path, "early"), trial())
    printed = trainer.output
    second = await trainer.train(experiment(tmp_path, "early"), trial(1))
    await trainer.close()
    assert (first.value, second.value) == (1.0, 1.0)
    assert printed == f"imported by {int(first.metrics['pid'])}\n"
    assert trainer.output == ""


async def test_a_temporary_file_of_output_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "LONGEST_LOG", 40)
    scratch, kept = tmp_path / "scratch", tmp_path / "kept.log"
    for log in (scratch / "task.log", kept):
        trainer, sizes = ChildTrainer(scratch, [TASKS], log), []
        for step in range(4):
            e = experiment(tmp_path, "chatty")
            assert isinstance(await trainer.train(e, trial(step, rate=0.5)), Success)
            assert trainer.output == f"to stdout 0-{step}\nto stderr 0-{step}\n"
            sizes.append(log.stat().st_size)
        # The end of a crashed process's output is found, too.
        e = experiment(tmp_path, "misbehaving")
        crashed = await trainer.train(e, trial(how="kills itself", x=0.5))
        assert isinstance(crashed, Failure)
        assert "last words" in crashed.message
        await trainer.close()
        # A file that an operator has named is theirs.
        assert sizes == ([28, 56, 28, 56] if log != kept else [28, 56, 84, 112])


@pytest.mark.parametrize("source", ["import nothing_of_that_name", "raise SystemExit('no')"])
async def test_an_import_that_fails_early_fails_the_first_trial_in_the_same_words(tmp_path, source):
    trainer, _ = await started_early(tmp_path, source)
    early = await trainer.train(experiment(tmp_path, "early"), trial())
    late = await trainer.train(experiment(tmp_path, "early"), trial(attempt=2))
    await trainer.close()
    assert isinstance(early, Failure)
    assert early == late
    assert (early.reason, "no" in early.message) == ("task", True)


async def test_a_child_that_ended_between_two_trials_is_replaced(tmp_path):
    trainer, child = await started_early(tmp_path, COUNTING)
    first = await trainer.train(experiment(tmp_path, "early"), trial())
    os.kill(int(first.metrics["pid"]), signal.SIGKILL)
    async with asyncio.timeout(30):
        while not child.ended:
            await asyncio.sleep(0.01)
    second = await trainer.train(experiment(tmp_path, "early"), trial(1))
    await trainer.close()
    assert isinstance(second, Success), second
    assert second.metrics["pid"] != first.metrics["pid"]


async def test_another_experiment_is_set_up_in_the_same_process(trainer, tmp_path):
    first = await trainer.train(experiment(tmp_path), trial())
    other = experiment(tmp_path, name="f", constants={"weight": 3}, checkpoints=str(tmp_path / "f"))
    second = await trainer.train(other, trial())
    assert first.metrics["pid"] == second.metrics["pid"]
    assert second.metrics["weight"] == 3.0


async def test_the_same_seed_is_the_same_randomness(trainer, tmp_path):
    first = await trainer.train(experiment(tmp_path), trial(attempt=1))
    again = await trainer.train(experiment(tmp_path), trial(attempt=2))
    assert first.metrics["random"] == again.metrics["random"]


async def test_after_a_failure_the_process_is_another(trainer, tmp_path):
    first = await trainer.train(experiment(tmp_path), trial())
    failed = await trainer.train(experiment(tmp_path), trial(x=-1.0))
    assert (failed.reason, "below 0" in failed.message) == ("exception", True)
    # The traceback begins with the task's own first frame.
    title, frame = failed.message.splitlines()[:2]
    assert title == "Traceback (most recent call last):"
    assert frame.startswith(f'  File "{TASKS / "counting.py"}", line ')
    second = await trainer.train(experiment(tmp_path), trial(attempt=2))
    assert second.metrics["pid"] != first.metrics["pid"]


async def test_a_signal_without_a_name_is_told_by_its_number(tmp_path):
    number = signal.SIGRTMIN + 6
    (tmp_path / "signalled.py").write_text(
        f"import os\ndef train(trial):\n    os.kill(os.getpid(), {number})\n"
    )
    made = ChildTrainer(tmp_path / "scratch", [tmp_path])
    failed = await made.train(experiment(tmp_path, "signalled"), trial())
    await made.close()
    assert isinstance(failed, Failure)
    assert (failed.reason, f"ended by signal {number}" in failed.message) == ("killed", True)


LATE = """
import os, threading, time
from pathlib import Path
import romul_workers.trial

FOLDER = Path(__file__).parent
romul_workers.trial.SIGN_OF_LIFE_S = 0.0

def wait_for(name):
    while not (FOLDER / name).exists():
        time.sleep(0.01)

def sign(trial, number):
    wait_for(f"sign {number}")
    trial.progress(trial.stop)
    (FOLDER / f"signed {number}").touch()

def train(trial):
    (trial.checkpoint / "state").touch()
    for number in (1, 2) if trial.step == 0 else ():
        threading.Thread(target=sign, args=(trial, number), daemon=True).start()
    if trial.step == 1:
        (FOLDER / "sign 2").touch()
        wait_for("signed 2")
    return {"loss": 1.0, "pid": os.getpid()}
"""


async def test_a_sign_of_progress_that_comes_after_its_trial_is_none_of_the_next(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    e = experiment(tmp_path, "late", timeouts={"stall_s": 30.0})
    made = ChildTrainer(tmp_path / "scratch", [tmp_path])
    first = await made.train(e, trial(0))
    assert isinstance(first, Success), first
    (tmp_path / "sign 1").touch()
    async with asyncio.timeout(30):
        while not (tmp_path / "signed 1").exists():
            await asyncio.sleep(0.01)
    second = await made.train(e, trial(1, parent=first.checkpoint))
    at = made.at
    await made.close()
    assert isinstance(second, Success), second
    assert first.metrics["pid"] == second.metrics["pid"]
    assert at is None


async def test_a_sign_that_belongs_to_no_request_is_passed_over(trainer, tmp_path):
    e = experiment(tmp_path, timeouts={"stall_s": 30.0})
    first = await trainer.train(e, trial(0))
    trainer._child._answers.data_received(encode(TaskProgress(1.0)))
    second = await trainer.train(e, trial(1))
    assert (first.metrics["pid"], trainer.at) == (second.metrics["pid"], None)


async def test_a_killed_process_that_does_not_end_is_left_behind(tmp_path, monkeypatch, caplog):
    child = await ChildProcess.start([], tmp_path / "log")
    pid = child._process.pid
    # Like a process that hangs in the kernel, it ignores every signal.
    os.kill(pid, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda *_: None)
        patched.setattr(os, "kill", lambda *_: None)
        patched.setattr("romul_workers.child.process.KILLED_S", 0.01)
        await asyncio.wait_for(child.end(), 30)
    assert not child.ended
    assert f"the task's process {pid} was killed and has not ended" in caplog.text
    os.kill(pid, signal.SIGKILL)
    await child.end()
    assert child.ended


async def test_a_removal_that_hangs_holds_up_no_failed_trial(trainer, tmp_path, monkeypatch):
    gate, rmtree = threading.Event(), shutil.rmtree

    def hanging_rmtree(path, **options):
        assert threading.current_thread() is not threading.main_thread()
        gate.wait()
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", hanging_rmtree)
    monkeypatch.setattr("romul_workers.child.trainer.DISCARD_S", 0.01)
    failed = await trainer.train(experiment(tmp_path), trial(x=-1.0))
    part = tmp_path / "checkpoints" / ".part"
    left = list(part.iterdir())
    gate.set()
    assert (failed.reason, len(left)) == ("exception", 1)
    async with asyncio.timeout(30):
        while list(part.iterdir()):
            await asyncio.sleep(0.01)


async def test_after_a_loss_that_is_not_finite_it_is_the_same(trainer, tmp_path):
    first = await trainer.train(experiment(tmp_path), trial())
    failed = await trainer.train(experiment(tmp_path), trial(x=0.5, diverges=True))
    assert failed.reason == "not_finite"
    second = await trainer.train(experiment(tmp_path), trial(attempt=2))
    assert second.metrics["pid"] == first.metrics["pid"]


@pytest.mark.parametrize(
    ("beside", "kept", "left_out"),
    [
        ("plain", {"true": 1.0, "np": 0.5, "np_true": 1.0, "0-d": 3.0}, 0),
        ("odd", {"\\udcff": 1.0}, 9),
        ("many", {f"figure {n}": float(n) for n in range(256)}, 44),
    ],
)
async def test_nothing_beside_the_metric_fails_a_trial(trainer, tmp_path, beside, kept, left_out):
    e = experiment(tmp_path, task="figures", constants={"beside": beside})
    ending = await trainer.train(e, trial())
    assert isinstance(ending, Success), ending
    assert (ending.value, ending.metrics, len(ending.left_out)) == (0.25, kept, left_out)


async def test_a_parent_that_is_gone_fails_the_trial_with_its_name(trainer, tmp_path):
    failed = await trainer.train(experiment(tmp_path), trial(1, parent="9-9-1"))
    assert failed.reason == "lost_parent"
    assert "checkpoint 9-9-1: none of that name" in failed.message


async def test_a_place_that_cannot_be_written_is_a_storage_failure(trainer, tmp_path):
    (tmp_path / "checkpoints").write_text("a file, no folder")
    failed = await trainer.train(experiment(tmp_path), trial())
    assert isinstance(failed, Failure)
    assert failed.reason == "storage"


def refuse(folder):
    """Make a folder unusable, even for root, by a link to itself."""
    folder.rename(folder.with_suffix(".away"))
    folder.symlink_to(folder)


def let(folder):
    folder.unlink()
    folder.with_suffix(".away").rename(folder)


async def test_a_storage_that_has_worked_and_refuses_is_an_outage(trainer, tmp_path):
    e = experiment(tmp_path)
    first = await trainer.train(e, trial(0))
    refuse(tmp_path / "checkpoints")
    # With or without a parent, and even if another worker has never used the storage.
    other = ChildTrainer(tmp_path / "other", [TASKS])
    later = trial(1, parent=first.checkpoint)
    for made, asked in ((trainer, trial(0)), (trainer, later), (other, later)):
        ending = await made.train(e, asked)
        assert isinstance(ending, Outage)
        assert f"checkpoints '{tmp_path}/checkpoints': it refuses" in ending.message
    let(tmp_path / "checkpoints")
    assert isinstance(await other.train(e, later), Success)
    await other.close()


async def test_a_storage_that_refuses_from_the_beginning_is_a_failure_at_once(trainer, tmp_path):
    (tmp_path / "checkpoints").symlink_to(tmp_path / "checkpoints")
    ending = await trainer.train(experiment(tmp_path), trial())
    assert isinstance(ending, Failure)
    assert (ending.reason, "it refuses" in ending.message) == ("storage", True)


async def until_it_writes(folder):
    """Wait until the task has written into its folder; return the parent of such folders."""
    part = folder / "checkpoints" / ".part"
    async with asyncio.timeout(30):
        while not list(part.glob("*/state.txt")):
            await asyncio.sleep(0.01)
    return part


async def test_a_storage_that_refuses_while_a_task_writes_is_an_outage(trainer, tmp_path):
    e = experiment(tmp_path, task="misbehaving:writing")
    running = asyncio.create_task(trainer.train(e, trial()))
    await until_it_writes(tmp_path)
    refuse(tmp_path / "checkpoints")
    ending = await running
    assert isinstance(ending, Outage)
    assert "refuses or does not answer: " in ending.message


async def test_a_machine_that_cannot_start_a_process_fails_the_trial_only(tmp_path):
    (tmp_path / "log").mkdir()
    trainer = ChildTrainer(tmp_path / "scratch", [TASKS], log=tmp_path / "log")
    failed = await trainer.train(experiment(tmp_path), trial())
    assert isinstance(failed, Failure)
    assert (failed.reason, "this machine cannot train" in failed.message) == ("storage", True)


async def test_a_trial_that_is_cancelled_leaves_nothing(trainer, tmp_path):
    e = experiment(tmp_path, task="misbehaving:slow")
    running = asyncio.create_task(trainer.train(e, trial()))
    part = await until_it_writes(tmp_path)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert list(part.iterdir()) == []
    assert not (tmp_path / "checkpoints" / "0-0-1").exists()


async def test_a_stop_while_the_process_starts_ends_the_trial(trainer, tmp_path):
    running = asyncio.create_task(
        trainer.train(experiment(tmp_path, task="misbehaving:slow"), trial())
    )
    await asyncio.sleep(0)
    trainer.ask_to_stop()
    assert await running == Stopped()


async def test_an_object_store_is_a_place_for_checkpoints_too(trainer, tmp_path):
    e = experiment(tmp_path, checkpoints="memory://trainer/c")
    first = await trainer.train(e, trial(0))
    second = await trainer.train(e, trial(1, parent=first.checkpoint))
    assert second.value == 2.0
    await trainer.discard(e, second.checkpoint)
    failed = await trainer.train(e, trial(2, parent="7-7-7"))
    assert failed.reason == "lost_parent"


@pytest.mark.parametrize("unread", [False, True])
async def test_the_process_ends_with_its_worker_however_that_ends(tmp_path, unread):
    (ours, theirs), (control, controlled) = socket.socketpair(), socket.socketpair()
    with ours, theirs, control, controlled:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "romul_workers.child.loop",
            str(theirs.fileno()),
            str(controlled.fileno()),
            pass_fds=(theirs.fileno(), controlled.fileno()),
            start_new_session=True,
        )
        theirs.close()
        controlled.close()
        ours.send(encode(PrepareTask("k", "e", "none", "f", "cpu", {})))
        # An answer that is not read makes the kernel reset the socket in place of closing it.
        await asyncio.to_thread(ours.recv, 1, socket.MSG_PEEK)
        if not unread:
            ours.recv(65_536)
    async with asyncio.timeout(20):
        assert await process.wait() == -signal.SIGKILL


async def test_a_task_that_pauses_leaves_a_partial_checkpoint(trainer, tmp_path):
    e = experiment(tmp_path, "counting:pausing", timeouts={"stall_s": 10})
    training = asyncio.create_task(trainer.train(e, trial(0)))
    while trainer.at is None:
        await asyncio.sleep(0.01)
    trainer.ask_to_stop()
    ending = await asyncio.wait_for(training, 10)
    assert isinstance(ending, Stopped)
    assert 0.0 < ending.at < 1.0
    count = tmp_path / "checkpoints" / ending.checkpoint / "count"
    assert float(count.read_text()) == ending.at


async def test_a_task_that_pauses_outside_its_trial_fails(trainer, tmp_path):
    e = experiment(tmp_path, "counting:pausing")
    training = asyncio.create_task(trainer.train(e, trial(0, says=7.5)))
    while trainer.at is None:
        await asyncio.sleep(0.01)
    trainer.ask_to_stop()
    ending = await asyncio.wait_for(training, 10)
    assert isinstance(ending, Failure)
    assert "pause(7.5): this trial goes from 0 to 1" in ending.message


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (1.0, "pause(1): the whole budget is trained: return the result"),
        (0.0, "pause(0): nothing was trained, and the worker was not asked to stop"),
    ],
)
async def test_a_pause_after_which_the_trial_would_be_repeated_for_ever_fails(
    trainer, tmp_path, says, message
):
    e = experiment(tmp_path, "counting:pausing_unasked")
    ending = await asyncio.wait_for(trainer.train(e, trial(0, says=says)), 10)
    assert isinstance(ending, Failure)
    assert message in ending.message
    # Inside the trial there is no end without progress.
    assert (await asyncio.wait_for(trainer.train(e, trial(0, says=0.5)), 10)).at == 0.5


async def test_a_task_that_was_asked_to_stop_and_pauses_at_the_end_is_told_what_to_do(
    trainer, tmp_path
):
    e = experiment(tmp_path, "counting:pausing")
    training = asyncio.create_task(trainer.train(e, trial(0, says=1.0)))
    while trainer.at is None:
        await asyncio.sleep(0.01)
    trainer.ask_to_stop()
    ending = await asyncio.wait_for(training, 10)
    assert isinstance(ending, Stopped)
    assert (ending.checkpoint, ending.at) == (None, None)
    assert ending.message.startswith("pause(1): the whole budget is trained, but no result was")


async def test_a_stall_is_another_reason_than_a_trial_that_takes_too_long(trainer, tmp_path):
    slow = {"stall_s": 0.4, "trial_s": 60.0}
    ending = await trainer.train(experiment(tmp_path, "misbehaving", timeouts=slow), hanging())
    assert (ending.reason, ending.message[:22]) == ("stalled", "no sign of progress fo")
    slow = {"stall_s": 60.0, "trial_s": 0.4}
    ending = await trainer.train(experiment(tmp_path, "misbehaving", timeouts=slow), hanging())
    assert ending.reason == "timed_out"


def test_each_sign_of_progress_says_where_training_stands(tmp_path, monkeypatch):
    now = [0.0]
    positions: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    context = Context("e", "cpu", {})
    one = Task(
        "0-0", {}, None, tmp_path, 0.0, 9.0, 0, 0, context, _report_progress=positions.append
    )
    for epoch in range(9):
        one.progress(epoch)
        now[0] += 0.6
        # Asked at the end of an epoch, it is the sign that is due.
        assert not one.should_stop
    assert positions == [0.0, *range(9)]


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0, 1e17])
def test_a_sign_of_progress_counts_without_a_place_that_is_none(tmp_path, monkeypatch, at):
    now = itertools.count()
    positions: list[float | None] = []
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    context = Context("e", "cpu", {})
    one = Task("0-0", {}, None, tmp_path, 0, 9, 0, 0, context, _report_progress=positions.append)
    one.progress(at)
    one.progress(4)
    one.progress(at)
    assert positions == [None, 4.0, 4.0]
    # Nor does it report that the whole budget is trained.
    one._stopping.set()
    assert (one.should_stop, one.cut_short) == (True, True)


async def test_a_trial_that_has_trained_its_whole_budget_returns_a_result_when_asked_to_stop(
    trainer, tmp_path
):
    training = asyncio.create_task(
        trainer.train(experiment(tmp_path, "counting:finishing"), trial(0))
    )
    while trainer.at is None:
        await asyncio.sleep(0.01)
    trainer.ask_to_stop()
    ending = await asyncio.wait_for(training, 10)
    assert isinstance(ending, Success), ending
    assert (ending.value, ending.metrics) == (1.0, {"stops": 0.0})


@pytest.mark.parametrize(("at", "stops"), [(None, True), (8.9, True), (9.0, False), (9.1, False)])
def test_only_a_trial_that_has_not_said_that_all_is_trained_should_stop(tmp_path, at, stops):
    one = Task("0-0", {}, None, tmp_path, 0, 9, 0, 0, Context("e", "cpu", {}))
    one._stopping.set()
    one.progress(at)
    assert (one.should_stop, one.cut_short) == (stops, stops)


async def test_signs_of_progress_keep_a_trial_alive(trainer, tmp_path):
    e = experiment(tmp_path, "counting:pausing", timeouts={"stall_s": 2.0})
    ending = await trainer.train(e, trial(0))
    assert isinstance(ending, Success)


async def test_a_full_quota_is_no_fault_of_the_trial(tmp_path):
    made = ChildTrainer(tmp_path / "scratch", [TASKS], quota=0)
    ending = await made.train(experiment(tmp_path), trial(0))
    await made.close()
    assert isinstance(ending, NoRoom)
    assert "of a quota of 0" in ending.message


def hanging():
    return trial(0, how="hangs", x=0.5)


def test_a_worker_leaves_frameworks_to_its_child():
    program = (
        "import sys\n"
        "from romul_workers.checkpoints import scratch\n"
        "from romul_workers.child import trainer\n"
        "from romul_workers.worker import loop, notices, presence\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    frameworks = {"torch", "safetensors", "sklearn", "scipy", "pandas", "matplotlib", "optuna"}
    assert not frameworks & set(done.stdout.split())


async def test_a_result_says_where_it_comes_from(trainer, tmp_path):
    ending = await trainer.train(experiment(tmp_path), trial())
    assert isinstance(ending, Success), ending
    found = ending.provenance
    assert found["host"] == socket.gethostname()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "numpy " in found["packages"]
    # The tests' tasks lie in this project's repository, if it is one.
    assert found.get("commit") == code_of(TASKS).get("commit")
