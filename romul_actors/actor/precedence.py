"""Decides which actor continues a search when two actors compete for it.

Any number of actors may serve a search: the version check of each commit keeps it correct. But two
busy actors often invalidate each other's batches, and each batch decided in vain costs a read of
the whole population. Therefore actors are ordered, and the later one leaves the inbox of the search
to the other for `GIVE_WAY_S`. The order differs from search to search, so many searches are spread
over all actors. No actor needs to know how many there are.
"""

import zlib


def nonce_of(actor: str, number: int) -> str:
    """The part that makes a version unique: the actor's name and the number of its commit."""
    return f"{actor}#{number}"


def gives_way(search: str, actor: str, version: str) -> bool:
    """Whether an actor should leave a search to the actor that committed a version of it.

    Args:
        search: name of the search.
        actor: name of the actor in question.
        version: the version, EPOCH.NUMBER.NONCE.
    """
    other = version.split(".", 2)[-1].rpartition("#")[0]
    return other not in ("", actor) and _rank(search, other) < _rank(search, actor)


def _rank(search: str, actor: str) -> tuple[int, str]:
    return zlib.crc32(f"{search}\n{actor}".encode()), actor
