"""Rules for all code: short modules, flat functions, no event names, tests that assert."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from romul_actors.core.history import KINDS

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for folder in ("romul", "romul_actors", "workers/romul_workers", "sim/romul_sim")
    for path in (ROOT / folder).rglob("*.py")
)
HISTORY = ROOT / "romul_actors" / "core" / "history.py"

MAX_LINES, MAX_BODY, MAX_NESTING = 400, 60, 4

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines of a body, without the signature and the docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def nesting(node: ast.AST) -> int:
    """Nesting depth of blocks: an `elif` is as deep as its `if`; inner functions do not count."""
    deepest = 0
    for name, value in ast.iter_fields(node):
        children = [v for v in (value if isinstance(value, list) else [value]) if _is_node(v)]
        chained = name == "orelse" and isinstance(node, ast.If) and len(children) == 1
        for child in children:
            if isinstance(child, Function | ast.ClassDef | ast.Lambda):
                continue
            block = isinstance(child, BLOCKS) and not (chained and isinstance(child, ast.If))
            deepest = max(deepest, block + nesting(child))
    return deepest


def _is_node(value: object) -> bool:
    return isinstance(value, ast.AST)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))


def faults(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    found = []
    if (n := text.count("\n")) > MAX_LINES:
        found.append(f"{n} lines")
    for function in functions(ast.parse(text)):
        if (n := body_lines(function)) > MAX_BODY:
            found.append(f"{function.name}: a body of {n} lines")
        if (n := nesting(function)) > MAX_NESTING:
            found.append(f"{function.name}: blocks {n} deep")
    return found


def test_modules_are_short_and_flat():
    checked = [*MODULES, *BENCHMARKS]
    assert len(checked) > 100
    assert {relative(path): found for path in checked if (found := faults(path))} == {}


# Traces of machines and the frames of a record have a key of that name, too.
TRACES = {
    ROOT / "sim" / "romul_sim" / name for name in ("records/record.py", "churn/trace_files.py")
}


def names_of_events(path: Path) -> list[int]:
    """Lines with `line["event"]`, `line.get("event")`, or a comparison of `line.event`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Subscript(slice=ast.Constant(value="event")):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="event"), *_]):
                found.append(node.lineno)
            case ast.Compare(left=ast.Attribute(attr="event")):
                found.append(node.lineno)
    return found


def test_no_module_but_history_reads_the_names_of_events():
    """Other modules use the types of core/history.py."""
    reading = {path: lines for path in MODULES if (lines := names_of_events(path))}
    # The check finds names where they exist.
    assert reading.keys() >= TRACES
    others = reading.keys() - TRACES - {HISTORY}
    assert {relative(path): reading[path] for path in others} == {}


def test_history_knows_every_kind_that_it_defines():
    tree = ast.parse(HISTORY.read_text(encoding="utf-8"))
    lines = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Line" for base in node.bases)
    ]
    assert sorted(lines) == sorted([*(kind.__name__ for kind in KINDS.values()), "Unknown"])


def test_every_room_has_its_layer():
    """A room without a layer could import anything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    first = project["tool"]["importlinter"]["contracts"][0]
    assert "every room has its layer" in first["name"]
    layers = {name for layer in first["layers"] for name in re.split(r" [|:] ", layer)}
    rooms = {
        f"romul_actors.{path.stem}"
        for path in (ROOT / "romul_actors").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    packages = {"romul", "romul_workers", "romul_sim"}
    assert layers == rooms - {"romul_actors.__init__"} | packages


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
ASSERTING = {"expect", "pytest.fail", "pytest.raises", "pytest.warns", "run_state_machine_as_test"}
"""Calls that can fail a test; helpers that can have names with assert_, check_ or expect_."""


def asserts(test: Function) -> bool:
    for node in ast.walk(test):
        match node:
            case ast.Assert():
                return True
            case ast.Call(func=called):
                name = ast.unparse(called)
                helper = name.rpartition(".")[2].startswith(("assert_", "check_", "expect_"))
                if helper or name in ASSERTING:
                    return True
    return False


def test_every_test_asserts_something():
    tests = [
        (relative(path), function)
        for path in TESTS
        for function in functions(ast.parse(path.read_text(encoding="utf-8")))
        if function.name.startswith("test_")
    ]
    assert {place for place, _ in tests} == {relative(path) for path in TESTS}
    assert [(place, test.name) for place, test in tests if not asserts(test)] == []
