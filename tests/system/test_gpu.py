"""Real training on a GPU, for what a CPU cannot test. Skipped without a GPU."""

import json
import os
import signal

import pytest
import torch

from tests.conftest import wait_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

HELD = 4 * 2**30
HOW = {
    "asks for too much": ("out_of_memory", "out of memory"),
    "reads beyond the end": ("exception", "device-side assert"),
}


def free():
    """Free memory of the GPU, in bytes."""
    return torch.cuda.mem_get_info()[0]


def gpu_worker(system, *options):
    return system.worker("--allow=on_gpu", *options)


def hanging(system, **fields):
    system.submit(
        task="on_gpu",
        space={"how": {"type": "categorical", "choices": ["hangs", "is fine"]}},
        initial=[{"how": "hangs"}] * 4,
        constants={"bytes": HELD},
        steps=1,
        max_attempts=1,
        **fields,
    )
    system.actor()


def test_every_way_a_gpu_fails_has_its_reason_and_the_next_trial_finds_it_well(system):
    choices = ["is fine", *HOW]
    system.submit(
        task="on_gpu",
        space={"how": {"type": "categorical", "choices": choices}},
        # The bad ones first, and all by the same worker.
        initial=[{"how": how} for how in (*HOW, "is fine", "is fine")],
        steps=2,
        max_attempts=1,
    )
    system.actor()
    gpu_worker(system)
    system.wait_for_status("finished", seconds=100)
    tried = {
        line["trial"]: line["hyperparameters"]["how"] for line in system.history(event="trial")
    }
    failures = system.history(event="failed")
    assert {tried[line["trial"]] for line in failures} == set(HOW)
    for line in failures:
        reason, words = HOW[tried[line["trial"]]]
        assert line["reason"] == reason
        assert words in line["message"]
    results = system.history(event="result")
    assert {line["value"] for line in results} == {3.0}
    assert len(results) + len(failures) == len(tried)


@pytest.mark.parametrize("ending", ["the trial stalls", "the worker is killed"])
def test_whatever_ends_a_trial_its_memory_is_free_again(system, ending):
    before = free()
    stalls = ending == "the trial stalls"
    hanging(system, timeouts={"stall_s": 10.0 if stalls else 1000.0, "lease_s": 5.0})
    worker = gpu_worker(system)
    wait_for(lambda: free() < before - HELD, 60)
    if not stalls:
        os.kill(worker.pid, signal.SIGKILL)
        # A separate process must notice by itself that it should end.
        wait_for(lambda: free() > before - HELD / 2, 60)
        return
    wait_for(lambda: system.history(event="failed"), 60)
    system.call("stop", "e")
    worker.terminate()
    worker.wait(30)
    assert free() > before - HELD / 2
    assert {line["reason"] for line in system.history(event="failed")} == {"stalled"}


def test_a_trial_cut_short_draws_what_it_would_have_drawn(system, tmp_path):
    """The random state of the GPU goes with the partial checkpoint."""
    fields = {
        "task": "on_gpu:draws",
        "space": {"unused": {"type": "float", "min": 0.0, "max": 1.0}},
        "steps": 1,
        "budget": 40,
    }
    notice = tmp_path / "notice"
    for name, seconds in (("calm", 0.0), ("cut", 0.1)):
        system.submit(name=name, constants={"seconds": seconds}, **fields)
        system.actor(f"--experiment={name}")
    gpu_worker(system, "--experiment=calm")
    first = gpu_worker(system, "--experiment=cut", f"--notice={notice}", "--grace=30")
    wait_for(lambda: any(at >= 3 for at in places(system, "cut")), 60)
    notice.write_text("20")
    assert first.wait(30) == 0
    gpu_worker(system, "--experiment=cut")
    for name in ("calm", "cut"):
        system.wait_for_status("finished", name, seconds=100)
    calm, cut = (
        {line["trial"]: line["value"] for line in system.history(name, "result")}
        for name in ("calm", "cut")
    )
    assert len(set(calm.values())) == 4
    assert cut == calm
    [line] = system.history("cut", "released")
    assert line["reason"] == "preempted"
    assert line["checkpoint"]


def places(system, name):
    """The progress of the trials of an experiment, as its workers announce it."""
    found = system.client.hvals(f"romul:{{{name}}}:workers")
    return [json.loads(worker).get("at", 0.0) for worker in found]


def test_a_population_moves_between_gpu_and_cpu(system):
    """A checkpoint written on one device is read on the other."""
    system.submit(
        task="romul_workers.tasks.digits",
        metric="val_loss",
        space={"learning_rate": {"type": "float", "min": 0.01, "max": 0.1, "scale": "log"}},
        constants={
            "momentum": 0.9,
            "weight_decay": 0.0,
            "dropout": 0.1,
            "label_smoothing": 0.0,
            "input_noise": 0.1,
            "noise_kind": "gaussian",
            "shift": 1,
        },
        steps=8,
        timeouts={"lease_s": 5.0},
    )
    workers = {device: f"on-{device}" for device in ("cuda", "cpu")}
    for device, name in workers.items():
        system.worker(f"--device={device}", f"--name={name}")
    for name in workers.values():
        wait_for(lambda name=name: name in str(system.client.hgetall("romul:{e}:workers")), 60)
    system.actor()
    system.wait_for_status("finished", seconds=100)
    results = {line["trial"]: line for line in system.history(event="result")}
    where = {trial: line["worker"] for trial, line in results.items()}
    assert set(where.values()) == set(workers.values())
    moves = {
        (where[line["parent"]], where[line["trial"]])
        for line in system.history(event="trial")
        if line["parent"]
    }
    assert {("on-cuda", "on-cpu"), ("on-cpu", "on-cuda")} <= moves
    assert min(line["value"] for line in results.values()) < 1.0
