"""The table of all benchmarks: figures and goals, and benchmarks that fail."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "table.py"


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("benchmark_table", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def benchmark(folder, source):
    (folder / "one.py").write_text(source)


@pytest.fixture
def bench(table, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    figures = [
        table.Figure("seconds", "a.b", 1.5),
        table.Figure("rate", "rate", 10.0, most=False),
        table.Figure("beside", "peer.rate"),
    ]
    return table.Bench("one.py short", "one.py full", [figures])


def test_each_figure_stands_beside_its_goal(table, bench, tmp_path):
    line = '{"a": {"b": 2}, "rate": 12.5, "peer": null}'
    benchmark(tmp_path, f"import sys\nassert sys.argv[1:] == ['short']\nprint('{line}')")
    rows, ended = table.measured(bench, "short")
    assert ended
    assert [(row.what, row.value, row.goal, row.met) for row in rows] == [
        ("seconds", "2", "at most 1.5", "no"),
        ("rate", "12.5", "at least 10", "yes"),
        ("beside", "not measured", "", ""),
    ]
    head, _, first, *_ = table.table(rows).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["figure", "value", "goal", "met"]
    assert len(head) == len(first)


def test_a_benchmark_that_fails_is_a_row_that_says_why(table, bench, tmp_path):
    benchmark(tmp_path, "raise SystemExit('no server')")
    [row], ended = table.measured(bench, "full")
    assert not ended
    assert (row.value, row.met, row.command) == ("no server", "failed", "one.py full")


def test_every_benchmark_of_the_table_exists_and_takes_its_options(table):
    for bench in table.BENCHES:
        for kind in ("short", "full"):
            name, *options = bench.command(kind).split()
            source = (table.FOLDER / name).read_text()
            wanted = [option for option in options if option.startswith("--")]
            assert all(f'"{option}"' in source for option in wanted), (name, wanted)


def test_the_page_holds_the_command_beside_each_table(table):
    row = table.Row("seconds", "2", "at most 1.5", "no", "one.py full")
    page = table.page([("one.py full", [row])])
    assert page.index("`python benchmarks/one.py full`") < page.index("| seconds |")


def test_what_was_written_by_hand_stays_on_the_page(table, tmp_path, monkeypatch):
    file = tmp_path / "page.md"
    file.write_text("# Performance\n\nold\n\n## Measured apart\n\nby hand\n")
    monkeypatch.setattr(table, "BENCHES", [])
    monkeypatch.setattr("sys.argv", ["table.py", "--page", str(file)])
    table.main()
    first, second = (file.read_text(), table.main(), file.read_text())[::2]
    assert first == second
    assert first.endswith("\n## Measured apart\n\nby hand\n")
    assert "old" not in first
    file.unlink()
    table.main()
    assert "by hand" not in file.read_text()
