"""Several GPUs for each trial, by torch's DistributedDataParallel.

Run `romul run examples/frameworks/with_ddp.py --workers 1`. Without a GPU, two processes train on
the CPU.
"""

import io
import os
import tempfile

import torch
from sklearn.datasets import load_digits
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="ddp",
    task="with_ddp",
    metric="val_loss",
    population=8,
    steps=15,
    budget=40,
    budget_unit="update",
    space={
        "lr": FloatSpec(type="float", min=1e-5, max=0.1, scale="log"),
        "weight_decay": FloatSpec(type="float", min=1e-4, max=1.0, scale="log"),
    },
)
BATCH = 64


def setup(context):
    """Start the other ranks once; this process is rank 0."""
    gpus = context.device != "cpu"
    ranks = torch.cuda.device_count() if gpus else 2
    # On one machine, gloo needs no other network interface ("lo0" on macOS).
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"{tempfile.mkdtemp()}/ranks"
    spawn = torch.multiprocessing.get_context("spawn")
    jobs = [spawn.SimpleQueue() for _ in range(1, ranks)]
    for rank, queue in enumerate(jobs, start=1):
        spawn.Process(target=follow, args=(rank, ranks, meeting, gpus, queue), daemon=True).start()
    return jobs, join(0, ranks, meeting, gpus)


def join(rank, ranks, meeting, gpus):
    """Meet the other ranks; returns the device and the data."""
    device = torch.device(f"cuda:{rank}" if gpus else "cpu")
    if gpus:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if gpus else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
    )
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    return device, (x.float() / 16).to(device), y.to(device)


def follow(rank, ranks, meeting, gpus, queue):
    """Train with rank 0 in each of its trials."""
    state = join(rank, ranks, meeting, gpus)
    while True:
        train_rank(state, *queue.get())


def train_rank(state, start, stop, seed, trial=None):
    """One rank's part of a trial; only rank 0 has the trial."""
    device, x, y = state
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    if trial is not None:
        trial.attach(model=model, optimizer=optimizer)
    # Here all ranks get the weights of rank 0 ...
    parallel = DistributedDataParallel(model)
    # ... and here its optimizer, with the trial's hyperparameters. Sent as tensors of rank 0's GPU,
    # each rank would open that GPU, too.
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    sent = [file.getvalue()]
    distributed.broadcast_object_list(sent, device=device)
    if trial is None:
        restored = torch.load(io.BytesIO(sent[0]), map_location=device, weights_only=True)
        optimizer.load_state_dict(restored)
    for at in range(start, stop):
        batch = torch.randint(1200, (BATCH,), generator=torch.Generator().manual_seed(seed + at))
        mine = batch[rank::ranks].to(device)
        optimizer.zero_grad()
        cross_entropy(parallel(x[mine]), y[mine]).backward()
        optimizer.step()
        # All ranks must end at the same place. `should_stop` is not read after the last update.
        stopping = trial is not None and at + 1 < stop and trial.should_stop
        stopping = torch.tensor(int(stopping), device=device)
        distributed.broadcast(stopping, 0)
        if stopping:
            break
    return model, optimizer, at + 1


def train(trial):
    jobs, state = trial.state
    job = (int(trial.start), int(trial.stop), trial.seed)
    for queue in jobs:
        queue.put(job)
    model, optimizer, at = train_rank(state, *job, trial)
    trial.save()
    if at < trial.stop:
        return trial.pause(at)
    _, x, y = state
    with torch.no_grad():
        loss = cross_entropy(model(x[1200:]), y[1200:])
    return {"val_loss": loss, "lr": optimizer.param_groups[0]["lr"]}
