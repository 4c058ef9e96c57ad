"""`romul failures`, `waste`: lost attempts, and the machine time lost with them."""

import asyncio

from romul_actors.actor.timing import collect_rarely
from romul_actors.cli.options.shared import AsJson, Name, SearchUrl
from romul_actors.cli.output.printing import Console, Table, echo, echo_json, shortened
from romul_actors.cli.output.rows import counted
from romul_actors.cli.servers.connection import connected_to, snapshot_of
from romul_actors.core.history import Line
from romul_actors.observe.failures import by_region, latest_by_cause
from romul_actors.observe.snapshot import Snapshot, read_glance
from romul_actors.observe.stored_history import read_history
from romul_actors.observe.waste import waste as waste_of


def failures(name: Name, redis: SearchUrl = None, as_json: AsJson = False) -> None:
    """Show why attempts failed or were lost, and in which parts of the search space."""

    async def run() -> tuple[Snapshot, list[Line]]:
        async with connected_to(name, redis) as client:
            seen = read_glance(await client.store.glance(name), name)
            return seen, await read_history(client.store, name)

    collect_rarely()
    seen, lines = asyncio.run(run())
    regions, latest = by_region(seen.experiment, lines), latest_by_cause(lines)
    if as_json:
        echo_json({"causes": seen.causes, "latest": latest, "regions": regions})
        return
    console = Console()
    console.print(f"{name}: {counted(seen.causes) or 'no attempt was lost'}")
    for cause, last in latest.items():
        where = f"trial {last['trial']}, {last['worker']}"
        text = f"{cause}: {last['message'] or 'no message'} ({where})"
        console.print(text, soft_wrap=True)
    table = Table("hyperparameter", "region", "failed", "attempts", "reasons")
    for parameter, rows in regions.items():
        for row in rows:
            if row["failed"]:
                table.add_row(
                    shortened(parameter),
                    shortened(row["region"]),
                    str(row["failed"]),
                    str(row["attempts"]),
                    counted(row["reasons"]),
                )
    if table.row_count:
        console.print(table)


def waste(name: Name, redis: SearchUrl = None, as_json: AsJson = False) -> None:
    """Show how much machine time was useful, and how much was lost, by cause and by worker."""
    spent = waste_of(snapshot_of(name, redis).history).as_json()
    if as_json:
        echo_json(spent)
        return
    echo(
        f"{name}: {spent['useful_s']:.1f} s useful, {spent['lost_s']:.1f} s lost "
        f"({100 * spent['share_lost']:.1f} %)"
    )
    for title in ("by_cause", "by_worker"):
        for key, seconds in sorted(spent[title].items(), key=lambda item: -item[1]):
            n = spent["attempts"].get(key)
            echo(f"  {key:<40} {seconds:10.1f} s" + (f"   {n} attempts" if n else ""))
