"""A short drill with real processes; `romul drill --faults 300` is the long one."""

import json
import os
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
    output = json.loads(done.stdout)
    # Only root can fill a disk.
    skipped = output["skipped"] if os.geteuid() else {}
    assert (output["skipped"], skipped.keys() - {"fill disk"}) == (skipped, set())
    assert output["faults"] + sum(skipped.values()) == 30
    assert (output["lost"], output["doubled"], output["invariants_broken"]) == (0, 0, 0)
    assert output["completed"]
    assert output["trials"] >= 300
    assert json.loads((tmp_path / "runs/drill/verdict.json").read_text()) == output
    again = (tmp_path / "runs/drill/schedule.jsonl").read_text()
    assert len(again.splitlines()) == 30
