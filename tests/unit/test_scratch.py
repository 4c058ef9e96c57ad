"""A worker's scratch folder."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from romul_workers.checkpoints.scratch import LEFT_S, scratch_folder


def test_a_worker_removes_what_killed_ones_have_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import time\nfrom romul_workers.checkpoints.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'copy').write_text('x')\n    print(folder, flush=True)\n    time.sleep(60)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]
    killed, alive = (Path(process.stdout.readline().strip()) for process in started)
    started[0].kill()
    started[0].communicate()
    long_ago = time.time() - 2 * LEFT_S
    for folder in (killed, alive):
        os.utime(folder, (long_ago, long_ago))
    fresh = tmp_path / "romul-worker-fresh"
    fresh.mkdir()
    with scratch_folder() as own:
        assert sorted(tmp_path.iterdir()) == sorted([alive, fresh, own])
        assert (alive / "copy").read_text() == "x"
    assert not own.exists()
    started[1].kill()
    started[1].communicate()


@pytest.mark.timeout(30)
def test_what_another_user_puts_beside_it_holds_up_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pipe, link, file = (tmp_path / f"romul-worker-{kind}" for kind in ("pipe", "link", "file"))
    os.mkfifo(pipe)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    link.symlink_to(theirs)
    file.touch()
    long_ago = time.time() - 2 * LEFT_S
    for left in (pipe, theirs, file):
        os.utime(left, (long_ago, long_ago))
    with scratch_folder() as own:
        assert sorted(tmp_path.iterdir()) == sorted([pipe, link, file, theirs, own])
