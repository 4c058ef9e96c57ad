"""History as the store has it: the whole of it, or the lines about one trial.

A search of many trials has hundreds of thousands of lines. What a view does not show is left out
before it is decoded: a line's text names its trial.
"""

from collections.abc import Mapping

from pydantic_core import from_json

from romul_actors.core.history import Line, TrialCreated, TrialReported
from romul_actors.core.history import from_json as line_from_json
from romul_actors.protocol.stored_fields import StoredFields
from romul_actors.store import ReaderStore

PAGE = 5_000
"""Lines of history read at a time."""


def read_line(name: str, entry: str, text: str) -> Line:
    """A line of history from its JSON.

    Args:
        name: the experiment's.
        entry: id of the line's entry.
        text: its JSON.

    Raises:
        StoredDataError: it is no JSON object.
    """
    try:
        values = from_json(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        # Raises what says so. Made for a wrong line alone: it takes as long as the JSON itself.
        place = f"experiment {name!r}, history entry {entry}"
        values = StoredFields(place, {"json": text}).table("json")
    return line_from_json(values)


async def read_history(store: ReaderStore, name: str) -> list[Line]:
    """All lines of history that the store still has, oldest first."""
    lines: list[Line] = []
    after = "0"
    while page := await store.history(name, after, PAGE):
        lines += [read_line(name, entry, text) for entry, text in page]
        after = page[-1][0]
    return lines


async def origin_of(store: ReaderStore, name: str, trial: str) -> Mapping[str, str]:
    """Where a trial's result comes from; empty: the store has it no more.

    A worker says it with its first result, and when it changes. History is read from its end, no
    further than to the line that says it.
    """
    before, worker = "", None
    while page := await store.history_before(name, before, PAGE):
        for entry, text in page:
            # Nearly all lines concern neither: they are not even parsed.
            if f'"{trial}"' not in text and '"provenance"' not in text:
                continue
            line = read_line(name, entry, text)
            if not isinstance(line, TrialReported):
                continue
            if line.trial == trial:
                worker = line.worker
            if line.worker == worker and line.provenance:
                return line.provenance
        before = page[-1][0]
    return {}


async def read_descent(
    store: ReaderStore, name: str, trial: str, generations: int | None = None
) -> list[Line]:
    """The lines about a trial, and those about its ancestors up to their own decisions.

    History is read from its end, no further than to the decision of the last ancestor: a trial is
    decided once, and after its parent.

    Args:
        store: where the search is.
        name: the search's.
        trial: the trial's id.
        generations: how many ancestors; None: all.

    Returns:
        The lines, oldest first; empty: the store has none about the trial.
    """
    found: list[Line] = []
    wanted, before = trial, ""
    while page := await store.history_before(name, before, PAGE):
        for entry, text in page:
            if f'"{wanted}"' not in text:
                continue
            line = read_line(name, entry, text)
            if getattr(line, "trial", None) != wanted:
                continue
            found.append(line)
            if isinstance(line, TrialCreated):
                if line.parent is None or generations == 0:
                    return found[::-1]
                wanted = line.parent
                generations = None if generations is None else generations - 1
        before = page[-1][0]
    return found[::-1]
