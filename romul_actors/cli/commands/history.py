"""`romul history`: the lines of an experiment's history."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import typer

from romul_actors.cli.options.shared import AsJson, Name, SearchUrl
from romul_actors.cli.output.printing import Console, echo, echo_json
from romul_actors.cli.servers.followed import LINES, Followed, following
from romul_actors.core.history import KINDS, ControlIgnored, Line, TrialCreated, Unknown, to_json
from romul_actors.observe.explain import last_line
from romul_actors.observe.snapshot import moment
from romul_actors.observe.stored_history import read_line
from romul_actors.protocol.mistakes import did_you_mean
from romul_actors.protocol.statuses import OVER
from romul_actors.store import Glance, ReaderStore

HIDDEN = ("event", "at_ms", "vector", "why", "seed")
"""Fields of a line that are not shown as they are stored."""
LONGEST_TEXT = 200
"""Maximum length of a field's text, in characters; longer texts are cut."""


def history(
    name: Name,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Show new lines as they arrive, until the search ends."
        ),
    ] = False,
    count: Annotated[
        int,
        typer.Option("-n", min=0, help="Number of latest lines; with --event, of that kind only."),
    ] = 20,
    event: Annotated[
        str | None, typer.Option(help="Show only this kind of line (result, failed ...).")
    ] = None,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the history: results, decisions and operators' actions, with times in UTC."""
    if event is not None and event not in KINDS:
        text = (
            f"warning: this version knows no kind {event!r} of line: {did_you_mean(event, KINDS)}"
        )
        Console(stderr=True).print(text, soft_wrap=True)

    def show(line: Line) -> None:
        echo_json(to_json(line)) if as_json else echo(line_in_words(line))

    async def run() -> None:
        async with following(name, redis) as followed:
            glance = await followed.store.glance(name, count=1)
            after, lines = await latest(followed.store, name, count, event)
            for line in lines:
                show(line)
            if follow and not over(glance.meta["status"], glance.history):
                async for line in coming(followed, name, after, glance.now_ms):
                    if event in (None, event_of(line)):
                        show(line)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit from None


async def coming(followed: Followed, name: str, after: str, seen_ms: int) -> AsyncIterator[Line]:
    """Lines of history as they arrive, until the search is over.

    Args:
        followed: the search.
        name: the search's name.
        after: id of the line before the first new one.
        seen_ms: the server's time of its last answer, in milliseconds.

    Raises:
        StoreUnavailableError: the local run has ended before the search; all lines were shown.
    """
    said = False

    def silent(why: str) -> None:
        nonlocal said
        if not said:
            echo(f"as of {moment(seen_ms)}: {why}; trying again", err=True)
        said = True

    async def glance_from(store: ReaderStore) -> Glance:
        return await store.glance(name, after=after, count=LINES)

    while True:
        await asyncio.sleep(0.5)
        glance = await followed.look_to_the_end(glance_from, silent)
        seen_ms, said = glance.now_ms, False
        for entry_id, text in glance.history:
            after = entry_id
            yield read_line(name, entry_id, text)
        if over(glance.meta["status"], glance.history):
            return
        if followed.ended is not None and len(glance.history) < LINES:
            raise followed.ended


async def latest(
    store: ReaderStore, name: str, count: int, event: str | None
) -> tuple[str, list[Line]]:
    """The latest lines, of one kind or of any.

    Returns:
        The id of the last line of any kind ("0" if there is none), and the lines, oldest first.
    """
    found: list[Line] = []
    last, before = "0", ""
    size = LINES if event is not None else min(max(1, count), LINES)
    while page := await store.history_before(name, before, size):
        last = last if before else page[0][0]
        for entry_id, text in page:
            if len(found) == count:
                return last, found[::-1]
            line = read_line(name, entry_id, text)
            if event in (None, event_of(line)):
                found.append(line)
        before = page[-1][0]
    return last, found[::-1]


def over(status: str, lines: Sequence[Any]) -> bool:
    """Whether the search is over and all of its lines have been shown."""
    return status in OVER and len(lines) < LINES


def event_of(line: Line) -> str:
    """The stored name of a line's kind, even if this version does not know it."""
    return line.name if isinstance(line, Unknown) else line.event


def line_in_words(line: Line) -> str:
    """A line of history as text for people."""
    fields = {key: value for key, value in to_json(line).items() if key not in HIDDEN}
    match line:
        case TrialCreated(why=why):
            fields["rule"] = why.get("rule", "")
        case ControlIgnored(why=why):
            fields["why"] = why
    if "message" in fields:
        fields["message"] = last_line(str(fields["message"]))
    shown = "  ".join(f"{key}={_short(value)}" for key, value in fields.items() if value != "")
    return f"{moment(line.at_ms)}  {event_of(line):<9} {shown}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."
