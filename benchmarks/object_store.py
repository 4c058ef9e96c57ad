"""Measure checkpoints in an object store, compared with the store's raw client.

    python benchmarks/object_store.py --megabytes 64 256 --rounds 3

A checkpoint of tensors is stored and fetched. The same bytes are sent and received with boto3's
`upload_file` and `download_file`, with pieces of the same size and the same number of connections;
these neither hash nor list anything. Then the checkpoint is stored again with a tenth of its
tensors changed. The store is a local server (moto), or the real one that `--url` names; the raw
copy stays there until the end. Prints one JSON line for each size, with medians of the rounds and
of their ratios.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import boto3
import torch
from boto3.s3.transfer import TransferConfig

from romul_workers.checkpoints.object_store import PIECE_BYTES
from romul_workers.checkpoints.storage import Checkpoints
from romul_workers.tensors.file import write

FILE = "state.safetensors"
TENSORS = 20
PIECES_AT_ONCE = 10
"""The number of pieces that s3fs sends at the same time."""
STARTED_S = 30.0


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    """Start moto's server; yields the URL of a bucket in it.

    Raises:
        SystemExit: it did not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }
    command = [sys.executable, "-m", "moto.server", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        limit = time.monotonic() + STARTED_S
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > limit:
                raise SystemExit("moto's server did not start: is moto[server] installed?")
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="romul")
        yield "s3://romul/checkpoints"
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        urlopen(f"{address}/moto-api/", timeout=1).close()  # noqa: S310
    except (URLError, OSError):
        return False
    return True


def measure(url: str, megabytes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Run all rounds, the ways in turn."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    config = TransferConfig(multipart_chunksize=PIECE_BYTES, max_concurrency=PIECES_AT_ONCE)
    client, raw = boto3.client("s3"), f"{prefix}/raw"
    numbers = megabytes * 2**20 // 4 // TENSORS
    state = {f"{i}": torch.randn(numbers) for i in range(TENSORS)}
    found: dict[str, list[float]] = {
        name: [] for name in ("store", "raw_store", "fetch", "raw_fetch", "store_tenth")
    }
    for index in range(rounds + 1):
        ours, elsewhere = (Checkpoints(url, folder / f"{name}{index}") for name in "ab")
        parent, child = f"0-{index}-1", f"1-{index}-1"
        state["0"] += 1
        made = ours.begin(parent)
        written = write(made / FILE, state)
        shutil.copyfile(made / FILE, folder / "file")
        seconds = [
            timed(lambda: ours.publish(made, parent, written)),  # noqa: B023
            timed(lambda: client.upload_file(str(folder / "file"), bucket, raw, Config=config)),
            timed(lambda: elsewhere.fetch(parent)),  # noqa: B023
            timed(lambda: client.download_file(bucket, raw, str(folder / "got"), Config=config)),
        ]
        for i in range(TENSORS // 10):
            state[f"{i}"] += 1
        made = ours.begin(child)
        written = write(made / FILE, state, ours.fetch(parent))
        seconds.append(timed(lambda: ours.publish(made, child, written, parent)))  # noqa: B023
        for name in (parent, child):
            ours.delete(name)
        for place in "ab":
            shutil.rmtree(folder / f"{place}{index}", ignore_errors=True)
        # The first round does not count: it opens connections and imports modules.
        for times, took in zip(found.values(), seconds, strict=True):
            times.extend([took] if index else [])
    client.delete_object(Bucket=bucket, Key=raw)
    pairs = (("store", "raw_store"), ("fetch", "raw_fetch"), ("store_tenth", "raw_store"))
    return {f"{name}_s": round(median(times), 4) for name, times in found.items()} | {
        f"{name}_ratio": round(
            median(x / y for x, y in zip(found[name], found[beside], strict=True)), 3
        )
        for name, beside in pairs
    }


def timed(work: Any) -> float:
    """Duration of a call, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print one JSON line for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 64, 256], metavar="MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="s3://BUCKET/PREFIX. Default: a local server.")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = given.url or stack.enter_context(local_server())
        for megabytes in given.megabytes:
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(url, megabytes, given.rounds, Path(folder))
            line = {
                "benchmark": "object_store",
                "store": given.url or "moto",
                "megabytes": megabytes,
                "rounds": given.rounds,
                **figures,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
