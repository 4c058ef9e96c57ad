"""Provenance (code, packages, machine) is sent once, and found for each trial."""

import os
import socket
import subprocess
import sys

import numpy as np

from romul_actors.core.history import from_json, to_json
from romul_actors.observe.trial_records import origins, trial_rows, trials
from romul_workers.child.provenance import code_of, provenance
from tests.trials import created, reported


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_tasks_code_is_found_and_whether_it_was_changed(tmp_path):
    assert code_of(tmp_path) == {}
    git(tmp_path, "init", "--quiet")
    assert code_of(tmp_path) == {}
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "task.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_of(inner) == {"commit": commit, "uncommitted": "no"}
    # A file outside version control does not count as a change of the code.
    (inner / "notes").write_text("x")
    assert code_of(inner)["uncommitted"] == "no"
    (inner / "task.py").write_text("x = 2\n")
    assert code_of(inner) == {"commit": commit, "uncommitted": "yes"}


def test_a_git_hooks_repository_is_not_that_of_the_code(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=one")
    here = code_of(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert code_of(tmp_path) == here != {}


def test_a_module_with_an_odd_name_is_no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, ".odd", sys)
    assert f"numpy {np.__version__}" in provenance({})["packages"].split(", ")


def test_the_packages_are_those_that_are_imported_whatever_their_number(tmp_path):
    # The name of the package, its module, and which of its files says so.
    for name, module, listing, text in (
        ("one", "one", None, ""),
        ("two", "two", None, ""),
        ("Three", "drei", "top_level.txt", "_drei\ndrei\n"),
        ("Four", "vier", "RECORD", "vier.py,sha256=a,0\nFour-1.0.dist-info/METADATA,,\n"),
        ("fives", "drei_five", "RECORD", "drei_five/__init__.py,,\n"),
    ):
        (tmp_path / f"{module}.py").write_text("")
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if listing:
            (info / listing).write_text(text)
    # What an unfinished removal leaves.
    (tmp_path / "left.py").write_text("")
    (tmp_path / "left-1.0.dist-info").mkdir()
    program = (
        "import sys\n"
        "from romul_workers.child.provenance import provenance\n"
        "import one\n"
        "assert 'one 1.0' in provenance({})['packages'] and provenance({})\n"
        "del sys.modules['one']\n"
        "import two, drei, vier, left\n"
        "print(provenance({})['packages'])\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    packages = done.stdout.strip().split(", ")
    assert {"two 1.0", "Three 1.0", "Four 1.0"} <= set(packages)
    assert not {"one 1.0", "fives 1.0"} & set(packages)


def test_a_process_says_its_python_its_machine_and_the_packages_it_imported():
    found = provenance({"commit": "abc", "uncommitted": "no"})
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["host"] == socket.gethostname()
    assert f"numpy {np.__version__}" in found["packages"].split(", ")
    assert found["commit"] == "abc"
    assert all(found.values())


def test_each_trial_has_what_its_worker_said_last():
    old, new, other = {"commit": "a"}, {"commit": "b"}, {"commit": "a", "host": "h"}
    lines = [
        *(created(f"{slot}-0") for slot in range(6)),
        reported("0-0", worker="v", provenance=old),
        reported("1-0", worker="w", provenance=other),
        reported("2-0", worker="v"),
        reported("3-0", worker="v", provenance=new),
        reported("4-0", worker="v"),
        reported("5-0", worker="unknown"),
    ]
    found = trials([from_json(to_json(line)) for line in lines])
    assert [record.provenance for record in found.values()] == [old, other, old, new, new, {}]
    assert [row.get("p.commit") for row in trial_rows(lines)] == ["a", "a", "a", "b", "b", None]
    assert origins(found) == [
        {"trials": 2, "commit": "a"},
        {"trials": 1, "commit": "a", "host": "h"},
        {"trials": 2, "commit": "b"},
    ]


def test_a_line_without_it_is_stored_as_it_always_was():
    assert "provenance" not in to_json(reported("0-0", worker="v"))
