"""A short drill with real processes; `romul drill --faults 300` is the long one."""

import json
import subprocess
import sys

import pytest


@pytest.mark.long(35)
@pytest.mark.timeout(400)
def test_thirty_faults_cost_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "romul_actors.cli", "drill", "--faults=30", "--every=0.6", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["faults"], told["skipped"]) == (30, {})
    assert (told["lost"], told["doubled"], told["invariants_broken"]) == (0, 0, 0)
    assert told["completed"]
    assert told["trials"] >= 300
    assert json.loads((tmp_path / "runs/drill/verdict.json").read_text()) == told
    again = (tmp_path / "runs/drill/schedule.jsonl").read_text()
    assert len(again.splitlines()) == 30
