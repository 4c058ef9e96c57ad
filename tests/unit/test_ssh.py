"""Workers by ssh; a program replaces ssh and runs the command on this machine."""

import asyncio
import logging
import shlex
import sys

from romul_actors.launch import Fleet
from romul_actors.launch.ssh import Hosts
from romul_actors.local.processes import RETRY_S

_SSH = """#!/bin/sh
for command; do :; done
exec /bin/sh -c "$command"
"""
_WORKER = """
import signal, sys
sys.stdout.write("progress " * 50_000)
sys.stdout.flush()
sys.stdout.write("and on\\nthe next line\\n")
sys.stdout.flush()
signal.pause()
"""


async def test_a_worker_that_prints_a_line_of_any_length_is_not_ended(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "ssh").write_text(_SSH)
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "worker.py").write_text(_WORKER)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stop = asyncio.Event()
    program = shlex.join([sys.executable, f"{tmp_path}/worker.py"])
    hosts = Hosts(Fleet(workers=1), ["h"], program=program)
    with caplog.at_level(logging.INFO, "romul.launch"):
        running = asyncio.create_task(hosts.run(stop))
        async with asyncio.timeout(30):
            while "h/0: the next line" not in caplog.messages:
                await asyncio.sleep(0.02)
        assert not [text for text in caplog.messages if "ended" in text]
        printed = "".join(text.removeprefix("h/0: ") for text in caplog.messages)
        assert printed.count("progress") == 50_000
        stop.set()
        await running


async def test_a_worker_that_ends_at_once_is_restarted_after_the_first_pause(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stop = asyncio.Event()
    running = asyncio.create_task(Hosts(Fleet(workers=1), ["h"]).run(stop))
    async with asyncio.timeout(30):
        while not caplog.messages:
            await asyncio.sleep(0.02)
    stop.set()
    await running
    assert caplog.messages == [f"h: worker 0 ended (255); restart in {RETRY_S[0]:g} s"]
