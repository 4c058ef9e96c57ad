"""Plugins from packages that are installed into a folder, as pip does."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

import romul
from romul_actors import plugins
from romul_actors.core.optimizers import OPTIMIZERS, make
from romul_actors.errors import OptimizerError, PluginError, StoreError, StoreUnavailableError
from romul_actors.protocol.advice import advice
from romul_actors.protocol.declared_tables import OptimizerSpec
from romul_actors.protocol.plan import load
from romul_actors.store.memory import MemoryStore
from romul_actors.store.opening import open_store
from romul_actors.store.redis import RedisStore
from romul_sim.bench.fingerprint import fingerprint
from romul_sim.bench.runs import BenchJob, key, optimizer_source, play
from romul_sim.run_error import RunError
from tests.conftest import romul_anew as command

DOCS = Path(__file__).parents[2] / "docs"
SPACE = {"x": romul.Float(0, 1), "kind": romul.Choice("a", "b", "c")}


def blocks(page, language="python"):
    """Code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def install(folder, package, module, **groups):
    """Install a package with its entry points where Python finds it."""
    (folder / f"{package}.py").write_text(module)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[romul.{group}]\n{point}\n" for group, point in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages that child processes find, too."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    yield tmp_path
    # Those from the folder alone: a module of ROMUL that is imported twice has each class twice.
    here = str(tmp_path)
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(here):
            del sys.modules[name]


def test_the_documented_optimizer_is_30_lines_and_searches(site):
    [optimizer] = blocks("plugins.md")
    assert len(optimizer.splitlines()) <= 30
    install(site, "halves", optimizer, optimizers="halves = halves:Halves")
    assert vars(make("halves", {"step": 0.1}))["step"] == 0.1
    population = romul.Population(SPACE, population=8, steps=10, optimizer="halves", clock=None)
    values = {}
    while (trial := population.ask()) is not None:
        values[trial.id] = abs(trial.hyperparameters["x"] - 0.3)
        population.tell(trial, values[trial.id])
    assert population.status == "finished"
    assert min(v for t, v in values.items() if t.endswith("-9")) < 0.1
    done = command("lab", "--optimizers=halves", "--problems=rosenbrock-2", "--seeds=2")
    assert done.returncode == 0, done.stderr
    assert "halves" in done.stdout


def test_the_bench_plays_an_optimizer_of_a_package(site):
    [optimizer] = blocks("plugins.md")
    install(site, "halves", optimizer, optimizers="halves = halves:Halves")
    job = BenchJob("bowl", "halves", 4, 2, 0, suite="tests.unit.bench_problems")
    before = key(job)
    assert play(job, before)["optimizer"] == "halves"
    # A line of it counts as long as the package's code is the same.
    optimizer_source.cache_clear()
    fingerprint.cache_clear()
    (site / "halves.py").write_text(optimizer.replace("0.2", "0.3"))
    assert key(job) != before


WRONG_MOVES = [
    ("moves[1:]", r"moves for slots \[1, 2, 3\] instead of \[0, 1, 2, 3\]"),
    ("moves + moves[:1]", r"moves for slots \[0, 1, 2, 3, 0\] instead of"),
    ("[replace(m, source=99) for m in moves]", "slot 0 would continue from 99, which has no known"),
    ("[replace(m, vector=m.vector * 2) for m in moves]", "is not a tuple of 2 numbers"),
]


@pytest.mark.parametrize(("moves", "message"), WRONG_MOVES)
def test_moves_that_cannot_be_carried_out_are_named(site, moves, message):
    [optimizer] = blocks("plugins.md")
    module = optimizer.replace("return moves", f"return {moves}")
    assert module != optimizer
    module = module.replace("import dataclass", "import dataclass, replace")
    install(site, "halves", module, optimizers="halves = halves:Halves")
    population = romul.Population(SPACE, population=4, steps=3, optimizer="halves", clock=None)
    trials = [population.ask() for _ in range(4)]
    for trial in trials[:3]:
        population.tell(trial, 0.5)
    with pytest.raises(OptimizerError, match=f"optimizer 'halves': .*{message}"):
        population.tell(trials[3], 0.5)


def test_moves_may_be_given_one_by_one_and_a_quorum_is_at_most_the_pool(site):
    [optimizer] = blocks("plugins.md")
    module = optimizer.replace("return moves", "yield from moves")
    module += "\n    def quorum(self, n_pool):\n        return n_pool + 1\n"
    install(site, "halves", module, optimizers="halves = halves:Halves")
    population = romul.Population(SPACE, population=4, steps=3, optimizer="halves", clock=None)
    while (trial := population.ask()) is not None:
        population.tell(trial, 0.5)
    assert population.status == "finished"


def test_an_optimizer_that_decides_nothing_more_is_an_error_of_the_lab(site):
    [optimizer] = blocks("plugins.md")
    module = optimizer + "\n    def pool(self, slots, slot, steps):\n        return []\n"
    install(site, "halves", module, optimizers="halves = halves:Halves")
    job = BenchJob("bowl", "halves", 4, 2, 0, suite="tests.unit.bench_problems")
    said = "^problem 'bowl' with halves, seed 0: optimizer 'halves': no slot is decided"
    with pytest.raises(RunError, match=said):
        play(job, key(job))


@pytest.mark.parametrize("raised", ["SystemExit(0)", "ValueError('odd')"])
def test_an_optimizer_that_raises_costs_the_lab_only_its_own_rows(site, raised):
    [optimizer] = blocks("plugins.md")
    # With some seeds only.
    module = optimizer.replace(
        "return moves",
        f"if view.rng(0).random() < 0.02:\n            raise {raised}\n        return moves",
    )
    install(site, "halves", module, optimizers="halves = halves:Halves")
    sizes = ("--problems=rosenbrock-2", "--seeds=3", "--population=8", "--json")
    done = command("lab", "--optimizers=halves,random", *sizes)
    assert done.returncode == 1
    [row] = json.loads(done.stdout)["rows"]
    assert (row["optimizer"], row["seeds"]) == ("random", 3)
    kind = raised.partition("(")[0]
    assert "problem 'rosenbrock-2' with halves, seed " in done.stderr
    assert f"{kind}: " in done.stderr
    assert "halves.py" in done.stderr
    assert "2 of 6 runs failed: the rows that they belong to are left out." in done.stderr


def test_an_optimizer_that_ends_the_program_is_named_by_a_population(site):
    [optimizer] = blocks("plugins.md")
    module = optimizer.replace("return moves", "raise SystemExit(0)")
    install(site, "halves", module, optimizers="halves = halves:Halves")
    population = romul.Population(SPACE, population=4, steps=3, optimizer="halves", clock=None)
    trials = [population.ask() for _ in range(4)]
    for trial in trials[:3]:
        population.tell(trial, 0.5)
    # The result is not lost: it can be told again, for example after a correction.
    for _ in range(2):
        with pytest.raises(OptimizerError, match="optimizer 'halves': SystemExit: 0"):
            population.tell(trials[3], 0.5)
        assert population.out == [trials[3]]
    assert romul.Population.load(population.state, clock=None).out == [trials[3]]


def test_what_is_added_wrongly_is_named(site):
    install(site, "first", "import nosuchmodule\n", optimizers="broken = first:Broken")
    install(site, "second", "class Odd:\n    pass\n", optimizers="odd = second:Odd")
    install(site, "third", "thing = 1\n", optimizers="odd2 = third:thing\nbroken2 = third:thing")
    with pytest.raises(PluginError, match="'broken' of the package first cannot be loaded from"):
        make("broken", {})
    words = r"'odd' of the package second \(second:Odd\) is not a dataclass derived from Optimizer"
    with pytest.raises(PluginError, match=words):
        make("odd", {})
    with pytest.raises(
        OptimizerError, match=r"'none' is not one of romul, .*, broken, broken2, odd"
    ):
        make("none", {})
    install(site, "fourth", "thing = 1\n", optimizers="odd = fourth:thing")
    with pytest.raises(PluginError, match="'odd' is added by fourth and second: uninstall one"):
        make("odd", {})


INCOMPLETE = [
    (
        '    name: ClassVar[str] = "halves"\n',
        "",
        r'has no name: add name: ClassVar\[str\] = "halves" to it',
    ),
    ('"halves"', '"thirds"', "has the name 'thirds': the two names must agree"),
    ("step: float = 0.2", "step: float", "has a constant 'step' without a default"),
    ("def quorum", "def needed", "lacks the method quorum"),
    (
        "def quorum",
        "def __post_init__(self):\n        self.x\n\n    def quorum",
        "cannot be created: ",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "why"), INCOMPLETE)
def test_an_optimizer_that_lacks_something_is_named_with_its_package(site, right, wrong, why):
    [optimizer] = blocks("plugins.md")
    assert right in optimizer
    install(site, "halves", optimizer.replace(right, wrong), optimizers="halves = halves:Halves")
    words = rf"optimizers: 'halves' of the package halves \(halves:Halves\) {why}"
    with pytest.raises(PluginError, match=words):
        make("halves", {})


def test_an_optimizer_with_the_name_of_one_that_comes_with_romul_is_ignored_and_named(site):
    [optimizer] = blocks("plugins.md")
    module = optimizer.replace('"halves"', '"truncation"')
    install(site, "halves", module, optimizers="truncation = halves:Halves")
    assert type(make("truncation", {})) is OPTIMIZERS["truncation"]
    (site / "e.toml").write_text('name = "e"\ntask = "t"\nsteps = 20\noptimizer = "truncation"\n')
    with (site / "e.toml").open("a") as file:
        file.write("[space]\nx = { type = 'float', min = 0, max = 1 }\n")
    said = (
        "optimizer = 'truncation' is the built-in one: the optimizer of that name in the package "
        "halves (halves:Halves) is ignored"
    )
    assert said in command("check", str(site / "e.toml")).stdout
    # There is no server and no run; the warning comes first.
    for rest in (["submit", "--redis=redis://127.0.0.1:1"], ["run", "--redis=redis://127.0.0.1:1"]):
        assert f"warning: {said}" in command(*rest, str(site / "e.toml")).stderr
    experiment = load(site / "e.toml")
    assert [text.startswith(said) for text in advice(experiment)] == [True]
    assert advice(experiment.model_copy(update={"optimizer": OptimizerSpec(name="asha")})) == []


def test_a_value_that_an_installed_optimizer_refuses_is_named(site):
    [optimizer] = blocks("plugins.md")
    check = (
        "def __post_init__(self):\n        if self.step > 1:\n            raise ValueError('far')"
    )
    module = optimizer.replace("def quorum", f"{check}\n\n    def quorum")
    install(site, "halves", module, optimizers="halves = halves:Halves")
    assert make("halves", {"step": 1.0})
    with pytest.raises(OptimizerError, match="optimizer 'halves': far"):
        make("halves", {"step": 2.0})


def test_a_package_that_ends_the_program_when_it_is_imported_is_a_broken_one(site):
    install(site, "leaving", "import sys\nsys.exit('bye')\n", optimizers="leaves = leaving:Leaves")
    with pytest.raises(PluginError, match=r"of the package leaving cannot be .*: SystemExit: bye"):
        make("leaves", {})


def test_a_store_that_cannot_be_opened_is_named_without_its_password(site):
    module = (
        "from romul_actors.errors import StoreUnavailableError\n"
        "def raises(url):\n    raise KeyError(url)\n"
        "def silent(url):\n    raise StoreUnavailableError('not now')\n"
        "def leaves(url):\n    raise SystemExit(url)\n"
        "number = 7\n"
    )
    names = ("raises", "silent", "leaves", "number")
    points = "\n".join(f"{name} = badstore:{name}" for name in names)
    install(site, "badstore", module, stores=points)
    for name, error in {"raises": "KeyError", "leaves": "SystemExit"}.items():
        words = f"'{name}' of the package badstore .*{error}: "
        with pytest.raises(PluginError, match=words) as found:
            open_store(f"{name}://me:secret@host/7")
        assert "secret" not in str(found.value)
    with pytest.raises(StoreUnavailableError, match="not now"):
        open_store("silent://host")
    with pytest.raises(PluginError, match=r"badstore:number. is a int, which is not callable"):
        open_store("number://host")


def test_a_store_is_opened_by_its_scheme(site):
    module = (
        "from romul_actors.store.memory import MemoryStore\n"
        "class Mine(MemoryStore):\n"
        "    def __init__(self, url):\n        super().__init__()\n        self.url = url\n"
    )
    install(site, "minestore", module, stores="mine = minestore:Mine\nodd = builtins:len")
    store = open_store("mine://host/7")
    assert isinstance(store, MemoryStore)
    assert vars(store)["url"] == "mine://host/7"
    assert isinstance(open_store("redis://localhost"), RedisStore)
    words = r"'odd' of the package minestore \(builtins:len\) returns a int instead of a Store"
    with pytest.raises(PluginError, match=words):
        open_store("odd://host")
    with pytest.raises(StoreError):
        open_store("none://host")


def test_a_launcher_starts_a_fleet(site):
    module = (
        "import pathlib\n"
        "async def launch(fleet, stop):\n"
        "    pathlib.Path(fleet.arguments[1]).write_text(str(fleet.workers))\n"
    )
    install(site, "minelaunch", module, launchers="mine = minelaunch:launch")
    done = command("launch", "--on=mine", "--workers=3", "--", "--path", str(site / "given"))
    assert done.returncode == 0, done.stderr
    assert (site / "given").read_text() == "3"
    assert "'x' is not one of local, ssh, slurm, ray, mine" in " ".join(
        command("launch", "--on=x").stderr.replace("│", " ").split()
    )


WRONG_LAUNCHERS = ["def launch(fleet, stop)", "async def launch(fleet)", "class launch"]


@pytest.mark.parametrize("begin", WRONG_LAUNCHERS)
def test_what_is_no_launcher_is_named_with_its_package(site, begin):
    install(site, "badlaunch", f"{begin}:\n    pass\n", launchers="bad = badlaunch:launch")
    done = command("launch", "--on=bad", "--workers=3")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    words = "'bad' of the package badlaunch (badlaunch:launch) is not async def launch(fleet, stop)"
    assert words in " ".join(done.stderr.split())


def test_a_task_trains_by_its_name(site, tmp_path):
    module = (
        "def train(trial):\n"
        "    (trial.checkpoint / 'x').write_text('x')\n"
        "    return trial.hyperparameters['x']\n"
    )
    install(site, "minetask", module, tasks="valley = minetask")
    assert plugins.names("tasks") == ["valley"]
    given = {"runs": tmp_path / "runs", "workers": 1, "population": 4, "steps": 1}
    result = romul.run("valley", SPACE, name="byname", progress=False, **given)
    assert result.status == "finished"
