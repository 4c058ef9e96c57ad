"""Runs the examples of the Python API from the pages and the notebook, unchanged."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from romul_actors.protocol.experiment import parse
from tests.conftest import wait_for
from tests.system.conftest import processes_with

ROOT = Path(__file__).parents[2]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"


def blocks(page):
    """Code blocks of a page that use this project, as (line, code)."""
    text = (ROOT / page).read_text()
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [code for code in found if "romul" in code]


def lines(code):
    return len(code.splitlines())


# All workers import the same, so one worker is enough here.
SMALLER = [
    ("steps=30", "steps=2"),
    ('"steps": 30', '"steps": 2'),
    ("workers=2", "workers=1"),
    ('"workers": 2', '"workers": 1'),
    ("population=8", "population=4"),
    ('"population": 8', '"population": 4'),
]


def run_code(code, folder, *changes):
    """Run a program in a folder, at a smaller size than on the page."""
    for before, after in (*SMALLER, *changes):
        code = code.replace(before, after)
    (folder / "program.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert not processes_with(str(folder))
    return done.stdout


def test_the_page_of_the_python_api_runs(tmp_path, system):
    first, hooks, server, ask_and_tell = blocks("docs/python.md")
    out = run_code(first + hooks + ask_and_tell, tmp_path)
    assert "Best(trial=" in out
    assert (tmp_path / "schedule.json").is_file()
    # On a server: with a task that the test's worker may import, and a folder it reaches.
    task = "romul_workers.tasks.toys:quadratic"
    system.actor()
    system.worker()
    space = 'import romul\nspace = {"rate": romul.Float(1e-3, 1, log=True)}\n'
    run_code(
        f"{space}url = {system.url!r}\n{server}",
        tmp_path,
        ('"mymodel:train"', repr(task)),
        ("s3://bucket/far", str(tmp_path / "far")),
        ("steps=2", "steps=2, population=4"),
    )


def test_the_readmes_first_code_is_the_quick_start_and_runs(tmp_path):
    first = blocks("README.md")[0]
    assert "romul.run(" in first
    assert float(run_code(first, tmp_path).split()[0]) >= 0
    assert (tmp_path / "schedule.json").is_file()


@pytest.mark.parametrize(
    ("page", "other"),
    [
        ("from-ray-tune", "Ray Tune"),
        ("from-optuna", "Optuna"),
        ("from-syne-tune", "Syne Tune"),
    ],
)
def test_the_same_search_side_by_side(tmp_path, page, other):
    text = (DOCS / f"{page}.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ours, theirs = programs[0], programs[1:]
    found = dict(
        re.findall(r"^\| (ROMUL|Ray Tune|Optuna|Syne Tune) \| (\d+) \|$", text, re.MULTILINE)
    )
    assert found == {"ROMUL": str(lines(ours)), other: str(sum(map(lines, theirs)))}
    for program in theirs:
        compile(program, page, "exec")
    # All three pages show the same program of ours: one is run.
    assert ours == blocks("docs/from-optuna.md")[0]
    if page == "from-optuna":
        assert "'momentum'" in run_code(ours, tmp_path)


def test_a_short_script_tunes_two_models(tmp_path):
    code = (EXAMPLES / "two_models.py").read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 25
    out = run_code(code, tmp_path, ("steps=10", "steps=2, workers=1"))
    assert [line.split()[0] for line in out.splitlines()] == ["linear", "network"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_in_its_own_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Written by Jupyter at its first start.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("workers=2", "workers=1")
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [[output.get("data", {}) for output in cell.outputs] for cell in cells]
    # The last state of the progress is the whole of it, below the cell that asked for it.
    progress, result = shown[2]
    assert "48/48 trials" in progress["text/plain"]
    assert "<progress" in progress["text/html"]
    assert "<th>best val_loss</th>" in result["text/html"]
    assert "h.momentum" in shown[3][0]["text/plain"]
    assert "image/png" in shown[4][0]
    assert shown[5][-1]["text/plain"] == "True"
    assert not processes_with(str(tmp_path))


ENDLESS = """
import time
import romul
def train(trial):
    while not trial.should_stop:
        time.sleep(0.02)
romul.run(train, {"rate": romul.Float(0, 1)}, population=4, steps=1, name="endless")
"""


@pytest.mark.parametrize("how", ["interrupted", "shut down"])
def test_a_kernel_that_is_interrupted_or_shut_down_leaves_no_process(tmp_path, monkeypatch, how):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:
        # With the default, a kernel aborts what it is asked shortly after an error.
        client.execute(ENDLESS, stop_on_error=False)
        wait_for(lambda: any("workers.child" in line for line in processes_with(str(tmp_path))))
        if how == "interrupted":
            manager.interrupt_kernel()
            # Messages from the kernel's start may come first.
            while (reply := client.get_shell_msg(timeout=60))["msg_type"] != "execute_reply":
                pass
            assert reply["content"]["ename"] == "KeyboardInterrupt"
            # The kernel still works.
            assert client.execute_interactive("1 + 1", timeout=60)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    wait_for(lambda: not processes_with(str(tmp_path)), 60)


def test_examples_in_toml_are_whole():
    found = [parse(file.read_text(), str(file)) for file in sorted(EXAMPLES.glob("*.toml"))]
    assert len({experiment.name for experiment in found}) == len(found) >= 4


def test_what_programs_see_of_a_search_on_a_server(toy, tmp_path):
    look, history, *_ = re.findall(
        r"```python\n(.*?)```", (DOCS / "inspect.md").read_text(), re.DOTALL
    )
    out = run_code(
        look + history + "print(search.status, len(search.trials))",
        tmp_path,
        ("redis://127.0.0.1:6379/0", toy.url),
        ('"mymodel"', '"toy"'),
    )
    assert out.split() == ["finished", "24"]
