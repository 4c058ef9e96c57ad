"""Read history from a store: all of it, or the lines about one trial.

A search of many trials has hundreds of thousands of lines. Lines that a view does not show are
skipped before they are decoded, since a line's text contains its trial's id.
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
        name: the experiment's name.
        entry: id of the line's entry.
        text: the line's JSON.

    Raises:
        StoredDataError: the text is not a JSON object.
    """
    try:
        values = from_json(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        # This raises the error. Only for a wrong line, since it takes as long as parsing the JSON.
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
    """The provenance of a trial's result; empty if the store no longer has it.

    A worker reports its provenance with its first result, and when it changes. History is read
    backwards from its end, only as far as the line with the provenance.
    """
    before, worker = "", None
    while page := await store.history_before(name, before, PAGE):
        for entry, text in page:
            # Most lines contain neither, and are not even parsed.
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

    History is read backwards from its end, only as far as the decision of the last ancestor: a
    trial is decided once, and after its parent.

    Args:
        store: the store that holds the search.
        name: the search's name.
        trial: the trial's id.
        generations: number of ancestors; None for all.

    Returns:
        The lines, oldest first; empty if the store has none about the trial.
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
