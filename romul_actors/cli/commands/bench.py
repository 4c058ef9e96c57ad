"""`romul bench`: optimizers compared on small real training problems.

It needs numpy, pydantic, msgpack, typer and rich only: no server, no broker and none of their
clients.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED, INTERRUPTED
from romul_actors.cli.options import optimizers as choosing
from romul_actors.cli.options.shared import AsJson
from romul_actors.cli.output.printing import Console, Table, echo_json
from romul_actors.cli.output.progress import progress
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import ExperimentError
from romul_sim.baselines import PEERS
from romul_sim.bench import own_suite
from romul_sim.bench.plots import draw
from romul_sim.bench.results import Results
from romul_sim.bench.runs import SUITE, BenchJob, RunLine, canonical, jobs, key, play_all, shard
from romul_sim.bench.runs import suite as problems_of
from romul_sim.bench.standings import label, standings
from romul_sim.play import ASYNCHRONOUS, SYNCHRONOUS
from romul_sim.run_error import RunError

REMINDER = "The half `report` is for reporting: look at it at most twice for each redesign"
LOG = (
    ", and enter each look in docs/experiments/report-looks.md with its date, its reason and what "
    "was seen"
)

Half = Literal["develop", "report", "all"]


def bench(
    problems: Annotated[
        str | None, typer.Option(help="Problems to run instead of a half, separated by commas.")
    ] = None,
    half: Annotated[
        Half,
        typer.Option(help="Half of the suite: develop optimizers on one, report on the other."),
    ] = "develop",
    optimizers: Annotated[
        str,
        typer.Option(
            help="Optimizers, separated by commas; the first is compared with the others: "
            f"{', '.join(OPTIMIZERS)}. Options follow a name (romul:donors=0.5). Other libraries "
            "need the extra `peers` and run only without --asynchronous: "
            f"{', '.join(PEERS)}."
        ),
    ] = "romul,truncation,mf_pbt,random",
    population: Annotated[int, typer.Option(min=4, help="Number of slots.")] = 8,
    seeds: Annotated[
        int,
        typer.Option(min=1, help="Runs of each optimizer on each problem. Few runs can mislead."),
    ] = 40,
    first_seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    peer_seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds that other libraries run.")
    ] = 10,
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous",
            help="Workers differ in speed by up to 4x, and 20 % of attempts are preempted.",
        ),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="PBT steps per slot, instead of each problem's own number."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for bench.json, a page of plots and the runs.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="File of runs: those in it are not repeated, and new ones are added. "
            "Default: runs.jsonl in --out."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Run only part I of N (I from 1), and only store the runs.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Number of parallel runs. Default: the number of cores."),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            help="Module that defines the problems (SUITE, DEVELOP and REPORT), installed or in "
            "the current folder."
        ),
    ] = SUITE,
    as_json: AsJson = False,
) -> None:
    """Compare optimizers by their test losses on small real training problems, on all cores."""
    console = Console(stderr=True)
    chosen = _problems(suite, half, problems, console)
    conditions = ASYNCHRONOUS if asynchronous else SYNCHRONOUS
    texts = [canonical(text) for text in choosing.optimizers(optimizers, conditions)]
    path = results or (out / "runs.jsonl" if out is not None else None)
    todo = jobs(
        chosen,
        list(dict.fromkeys(texts)),
        population,
        range(first_seed, first_seed + seeds),
        peer_seeds,
        steps=steps,
        asynchronous=asynchronous,
        module=suite,
    )
    if part is not None:
        todo = _part(todo, part, path)
    lines = _played(todo, path, processes, console, hidden=as_json)
    if part is not None:
        console.print(f"{len(lines)} runs of shard {part} are in {path}.", markup=False)
        return
    result = {
        "population": population,
        "steps": steps,
        "conditions": "asynchronous" if asynchronous else "synchronous",
        "seeds": [first_seed, first_seed + seeds - 1],
        **standings(lines, chosen, list(dict.fromkeys(texts))),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
        try:
            draw(result, lines, out / "bench.png")
        except ImportError:
            console.print("bench.png needs: pip install 'romul[dashboard]'", markup=False)
    if as_json:
        echo_json(result)
    else:
        terminal = Console()
        # A file or a pipe has no width of its own.
        shown = terminal if terminal.is_terminal else Console(width=120)
        shown.print(_by_problem(result))
        shown.print(_over_all(result))


def _problems(suite: str, half: Half, given: str | None, console: Console) -> list[str]:
    try:
        halves = own_suite.halves(suite)
        known = list(problems_of(suite))
        chosen = halves[half] if given is None else choosing.names(given, known, "problem")
        own_suite.check(suite, chosen)
    except ExperimentError as error:
        raise typer.BadParameter(str(error)) from None
    if not chosen:
        raise typer.BadParameter(
            f"half {half!r} of suite {suite!r} has no problem: name another --half, or --problems"
        )
    if set(chosen) & set(halves["report"]):
        # The log is this project's.
        said = f"{REMINDER}{LOG if suite == SUITE else ''}."
        console.print(said, style="yellow", markup=False)
    return list(dict.fromkeys(chosen))


def _part(todo: Sequence[BenchJob], part: str, path: Path | None) -> list[BenchJob]:
    index, _, n_shards = part.partition("/")
    if not (index.isdigit() and n_shards.isdigit() and 1 <= int(index) <= int(n_shards)):
        raise typer.BadParameter(f"--shard {part!r}: give I/N, with I from 1 to N")
    if path is None:
        raise typer.BadParameter("--shard needs --results or --out to store the runs")
    return shard(todo, int(index), int(n_shards))


def _played(
    todo: Sequence[BenchJob],
    path: Path | None,
    processes: int | None,
    console: Console,
    *,
    hidden: bool,
) -> list[RunLine]:
    """Lines of all jobs: those in the file, and the others, which are run and added to it."""
    wanted = {key(job): job for job in todo}
    with Results(path) as results, progress(hidden=hidden) as bar:
        if results.dropped:
            console.print(
                f"{path}: the last line was incomplete and has been dropped.", markup=False
            )
        left = {name: job for name, job in wanted.items() if name not in results.lines}
        task = bar.add_task("runs", total=len(wanted), completed=len(wanted) - len(left))
        try:
            for line in play_all(left, processes):
                results.append(line)
                bar.advance(task)
        except (KeyboardInterrupt, RunError) as error:
            raised = isinstance(error, RunError)
            known = sum(name in results.lines for name in wanted)
            kept = "none is kept without --out or --results" if path is None else f"kept in {path}"
            said = f"{error}\n\nended" if raised else "interrupted"
            console.print(f"{said}: {known} of {len(wanted)} runs done, {kept}.", markup=False)
            raise typer.Exit(EXPERIMENT_FAILED if raised else INTERRUPTED) from None
        return [results.lines[name] for name in wanted]


def _runs(row: dict[str, Any]) -> str:
    without = row["without_loss"]
    return f"{row['runs']} ({without} without)" if without else str(row["runs"])


def _number(value: float | None, digits: int = 4) -> str:
    return "none" if value is None else f"{value:.{digits}g}"


def _won(share: dict[str, Any] | None) -> str:
    if share is None:
        return ""
    return f"{share['share']:.0%} {_interval(share)}"


def _interval(share: dict[str, Any] | None) -> str:
    return "" if share is None else f"[{share['low']:.0%}, {share['high']:.0%}]"


def _by_problem(result: dict[str, Any]) -> Table:
    wins = f"{result['first']} wins"
    figures = ("runs", "median", "quartiles", "at the last step", wins, "p (Holm)")
    table = Table("problem", "optimizer", right=figures)
    table.title = f"Test losses, {result['conditions']}"
    rows = result["problems"]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        low, high = row["quartiles"]
        table.add_row(
            row["problem"],
            label(row),
            _runs(row),
            _number(row["median"]),
            f"{_number(low, 3)} - {_number(high, 3)}",
            _number(row["median_last"]),
            _won(row["first_wins"]),
            "" if row["p_holm"] is None else f"{row['p_holm']:.2g}",
            end_section=following is None or following["problem"] != row["problem"],
        )
    return table


def _over_all(result: dict[str, Any]) -> Table:
    wins = f"{result['first']} wins"
    others = "on other problems"
    figures = ("mean rank", wins, others, "P(more than half)", "P(lower mean rank)", "surely")
    table = Table("optimizer", right=figures)
    table.title = "Over all problems"
    for row in result["all"]:
        won, lower = row["first_wins"], row["first_ranks_lower"]
        table.add_row(
            label(row),
            f"{row['mean_rank']:.2f}",
            _won(won),
            _interval(row["other_problems"]),
            "" if won is None else f"{won['chance']:.3f}",
            "" if lower is None else f"{lower:.3f}",
            _surely(row),
        )
    return table


def _surely(row: dict[str, Any]) -> str:
    if row["first_wins"] is None:
        return ""
    if not row["enough_runs"]:
        return "too few runs"
    return "yes" if row["first_wins"]["surely"] else "no"
