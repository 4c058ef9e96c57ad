"""A user's own suite in the bench: what its stored runs depend on, and errors."""

import importlib
import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from romul_sim.bench import runs as bench
from romul_sim.bench.fingerprint import covered, fingerprint
from romul_sim.bench.runs import BenchJob, key

PROBLEMS = """\
from functools import partial
from romul_sim.suite.problem import Problem, linear
{imports}
WIDTH = 3
SPACE = {{"x": linear(0.0, 1.0)}}
SUITE = {{"bowl": Problem("bowl", "mine", SPACE, 4, partial(step, width=WIDTH), {judge}, "0")}}
DEVELOP, REPORT = ("bowl",), ()
"""
STEP = """\
{imports}
def step(state, values, number, rng, width):
    return base() * width, base() * width
def judge(state):
    return state
"""
BASE = "def base():\n    return 1.0\n"

PACKAGE = {
    "pk/__init__.py": PROBLEMS.format(imports="from .models import judge, step", judge="judge"),
    "pk/models.py": STEP.format(imports="from .inner import base"),
    "pk/inner/__init__.py": "from ..data import base\n",
    "pk/data.py": BASE,
    "pk/beside.py": "A = 1\n",
}
"""A suite that is a package; its modules import each other by relative names."""

MODULES = {
    "problems.py": PROBLEMS.format(imports="from models import step", judge="float"),
    "models.py": STEP.format(imports="import data\nfrom data import base"),
    "data.py": BASE,
    "beside.py": "A = 1\n",
}
"""A suite that is a module outside packages, with others in the same folder."""


@pytest.fixture
def key_of(tmp_path, monkeypatch):
    """Return a function for the key of a suite's run, or for other calls, with fresh imports."""
    made: list[object] = []

    def found(files, called):
        folder = tmp_path / str(len(made))
        made.append(folder)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        before = set(sys.modules)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            importlib.invalidate_caches()
            for kept in (each for each in vars(bench).values() if hasattr(each, "cache_clear")):
                kept.cache_clear()
            try:
                return called()
            finally:
                for name in set(sys.modules) - before:
                    del sys.modules[name]

    return found


@pytest.mark.parametrize(
    ("files", "suite", "name", "before", "after"),
    [
        (PACKAGE, "pk", "pk/__init__.py", "WIDTH = 3", "WIDTH = 4"),
        (PACKAGE, "pk", "pk/models.py", "* width,", "* -width,"),
        (PACKAGE, "pk", "pk/data.py", "1.0", "2.0"),
        (PACKAGE, "pk", "pk/inner/__init__.py", "import base", "import base as base; A = 1"),
        (MODULES, "problems", "problems.py", "WIDTH = 3", "WIDTH = 4"),
        (MODULES, "problems", "models.py", "* width,", "* -width,"),
        (MODULES, "problems", "data.py", "1.0", "2.0"),
    ],
)
def test_a_run_is_not_used_again_where_anything_of_its_suite_has_changed(
    key_of, files, suite, name, before, after
):
    def its_key():
        return key(BenchJob("bowl", "random", 4, 4, 0, suite=suite))

    same = {**files, next(file for file in files if "beside" in file): "A = 2\n"}
    assert before in files[name]
    first = key_of(files, its_key)
    assert key_of(same, its_key) == first
    assert key_of({**files, name: files[name].replace(before, after)}, its_key) != first


def test_a_change_of_what_an_optimizer_imports_by_a_relative_name_counts(key_of):
    files = {
        "plug/__init__.py": "",
        "plug/mine.py": "from .rule import STEP\nfrom . import other\n",
        "plug/rule.py": "STEP = 0.2\n",
        "plug/other.py": "A = 1\n",
    }

    def of_it():
        return fingerprint("plug.mine", ("plug",))

    first = key_of(files, of_it)
    assert key_of({**files, "plug/rule.py": "STEP = 0.3\n"}, of_it) != first
    assert key_of({**files, "plug/other.py": "A = 2\n"}, of_it) != first


def test_what_is_compiled_is_left_to_the_identity(key_of):
    files = {
        "pk/__init__.py": PACKAGE["pk/__init__.py"],
        "pk/models.py": STEP.format(imports="def never():\n    from . import kern\n\nbase = float"),
        f"pk/kern{EXTENSION_SUFFIXES[-1]}": "",
    }
    assert key_of(files, lambda: key(BenchJob("bowl", "random", 4, 4, 0, suite="pk")))


def test_the_suite_of_many_hyperparameters_depends_on_the_modules_that_it_shares():
    many = "romul_sim.suite.many"
    parts = {f"romul_sim.suite.{name}" for name in ("networks", "training", "data")}
    assert parts < set(covered(many, bench._followed(many)))


def test_what_is_installed_beside_a_suite_is_taken_as_it_is(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_suite.py").write_text("import installed_other\n")
    (folder / "installed_other.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(folder)
    bench._followed.cache_clear()
    assert bench._followed("installed_suite") == ("installed_suite", bench.SUITE)
    assert set(covered("installed_suite", bench._followed("installed_suite"))) == {
        "installed_suite"
    }


# -- the command ----------------------------------------------------------------------------------

OWN = """\
from romul_sim.suite.problem import Problem, linear
def step(state, values, number, rng):
    return 0.0, values["x"] / DIVISOR
def judge(state):
    return 1.0
DIVISOR = 1.0
SPACE = {"x": linear(0.0, 1.0)}
SUITE = {"own": Problem("own", "mine", SPACE, 3, step, judge, "0")}
DEVELOP, REPORT = ("own",), ()
"""


@pytest.fixture
def bench_of(tmp_path, monkeypatch):
    """The installed command, in a folder with a suite `mine.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def called(text, *arguments, suite="mine"):
        (tmp_path / "mine.py").write_text(text)
        # Like the console script, this Python does not search the current folder.
        command = [sys.executable, "-P", "-m", "romul_actors.cli", "bench", "--suite", suite]
        sizes = ["--optimizers", "random,romul", "--seeds", "1", "--population", "4"]
        done = subprocess.run(
            [*command, *sizes, "--processes", "1", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, " ".join(done.stderr.replace("\u2502", "").split())

    return called


def test_a_suite_of_the_current_folder_is_found_and_needs_no_log_of_looks(bench_of):
    code, shown, said = bench_of(OWN.replace('("own",), ()', "(), ('own',)"), "--half", "report")
    assert code == 0, said
    assert "own" in shown
    assert "at most twice" in said
    assert "report-looks.md" not in said


def test_the_suite_of_the_documentation_is_played(bench_of):
    page = Path(__file__).parents[2] / "docs" / "bench.md"
    [example] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    code, shown, said = bench_of(example)
    assert code == 0, said
    assert "creep" in shown
    assert "none" not in shown


@pytest.mark.parametrize(
    ("text", "suite", "half", "words"),
    [
        (OWN, "mime", "develop", "suite 'mime' cannot be imported: ModuleNotFoundError: No module"),
        (OWN + "1 / 0\n", "mine", "develop", "mine.py:10: ZeroDivisionError: division by zero"),
        (OWN.replace(", REPORT = ", " = ").replace(", ()", ""), "mine", "develop", "has no REPORT"),
        (OWN, "mine", "report", "half 'report' of suite 'mine' has no problem"),
        (OWN.replace(", ()", ", None"), "mine", "develop", "DEVELOP and REPORT names: 'NoneType'"),
        (OWN.replace('("own",)', '("owm",)'), "mine", "develop", "SUITE has no problem 'owm'"),
        (
            OWN.replace("0.0, 1.0", "1.0, 0.0"),
            "mine",
            "develop",
            "problem 'own' of mine: x: min 1.0 is not below max 0.0",
        ),
    ],
)
def test_a_suite_that_cannot_be_played_is_wrong_usage_in_words(bench_of, text, suite, half, words):
    code, _, said = bench_of(text, "--half", half, suite=suite)
    assert code == 2, said
    assert words in said
    assert "Traceback" not in said


def test_a_run_that_ends_the_program_is_named_and_the_others_are_kept(bench_of, tmp_path):
    leaving = OWN.replace("return 1.0", "import sys; sys.exit(0)").replace('"own"', '"leaving"')
    text = leaving + OWN.replace('SUITE = {"own"', 'SUITE |= {"own"').replace(
        '("own",), ()', '("own", "leaving"), ()'
    )
    code, _, said = bench_of(text, "--out", "out", "--optimizers", "random")
    assert code == 1
    assert "problem 'leaving' with random, seed 0: SystemExit: 0" in said
    assert "mine.py" in said
    assert "ended: 1 of 2 runs done, kept in out/runs.jsonl." in said
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 1


def test_a_run_that_raises_is_named(bench_of):
    code, _, said = bench_of(OWN.replace("DIVISOR = 1.0", "DIVISOR = 0"), "--first-seed", "7")
    assert code == 1
    assert "problem 'own' with random, seed 7: ZeroDivisionError" in said
    assert "mine.py" in said
    assert "romul_sim/play.py" not in said
    assert "ended: 0 of 2 runs done, none is kept without --out or --results." in said
