"""Which of several actors goes on with a search, where two of them decide it at a time.

Any number of actors may serve a search: the version that each commit is checked against keeps it
right. But two busy ones outrun each other all the time, and each batch decided in vain costs a
reading of the whole population. Therefore the one that comes later in an order leaves the search's
inbox to the other for a moment (`GIVE_WAY_S`). Each search has an order of its own, so that many of
them are spread over all actors; no actor knows how many there are.
"""

import zlib


def nonce_of(actor: str, number: int) -> str:
    """What makes a version unique: which actor committed it, and the number of its commit."""
    return f"{actor}#{number}"


def gives_way(search: str, actor: str, version: str) -> bool:
    """Whether an actor leaves a search to the one that committed a version of it.

    Args:
        search: its name.
        actor: the name of the one that asks.
        version: EPOCH.NUMBER.NONCE, as the store gives it.
    """
    other = version.split(".", 2)[-1].rpartition("#")[0]
    return other not in ("", actor) and _rank(search, other) < _rank(search, actor)


def _rank(search: str, actor: str) -> tuple[int, str]:
    return zlib.crc32(f"{search}\n{actor}".encode()), actor
