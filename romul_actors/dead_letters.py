"""Dead letters: what an operator does with messages that no actor or worker could use."""

from collections.abc import Collection
from dataclasses import dataclass

from romul_actors.errors import StoreError
from romul_actors.store import DeadLetter, Store

PAGE = 1_000
"""Dead letters that are read, or removed, in one step."""


@dataclass(frozen=True, slots=True)
class Resubmitted:
    """How many dead letters went back into their queues.

    Attributes:
        back: those that did.
        cut: those that could not: only their beginning was kept.
    """

    back: int
    cut: int


class DeadLetters:
    """Lists dead letters, puts them back into their queues, and removes them.

    Args:
        store: where the experiments are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def letters(
        self, name: str, ids: Collection[str] = (), limit: int | None = None
    ) -> list[DeadLetter]:
        """Messages that could not be used, oldest first.

        Args:
            name: the experiment.
            ids: which; all of them if none are given.
            limit: how many at most.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            StoreError: an id is not among them.
        """
        await self._store.spec(name)
        found: list[DeadLetter] = []
        after = "0"
        while (limit is None or len(found) < limit) and (
            page := await self._store.dead(name, after, PAGE)
        ):
            after = page[-1].id
            found += [letter for letter in page if not ids or letter.id in ids]
        missing = sorted(set(ids) - {letter.id for letter in found})
        if missing:
            raise StoreError(f"{name}: no dead letter {missing[0]}")
        return found[:limit]

    async def resubmit(self, name: str, ids: Collection[str] = ()) -> Resubmitted:
        """Put dead letters back into the queues that they came from.

        Args:
            name: the experiment.
            ids: which; all of them if none are given.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            StoreError: an id is not among the dead letters.
        """
        found = await self.letters(name, ids)
        whole = [letter for letter in found if len(letter.body) == letter.size]
        back = [await self._store.resubmit(name, letter) for letter in whole]
        return Resubmitted(sum(back), len(found) - len(whole))

    async def drop(self, name: str, ids: Collection[str] = ()) -> int:
        """Remove dead letters for good.

        Args:
            name: the experiment.
            ids: which; all of them if none are given.

        Returns:
            How many there were.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            StoreError: an id is not among the dead letters.
        """
        found = [letter.id for letter in await self.letters(name, ids)]
        dropped = 0
        for start in range(0, len(found), PAGE):
            dropped += await self._store.drop(name, found[start : start + PAGE])
        return dropped
