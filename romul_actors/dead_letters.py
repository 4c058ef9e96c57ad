"""Operations on dead letters, the messages that no actor or worker could use."""

from collections.abc import Collection
from dataclasses import dataclass

from romul_actors.errors import StoreError
from romul_actors.store import DeadLetter, Store

PAGE = 1_000
"""Number of dead letters that are read or removed in one call of the store."""


@dataclass(frozen=True, slots=True)
class Resubmitted:
    """How many dead letters were resubmitted.

    Attributes:
        back: number of messages put back into their queues.
        cut: number of messages that could not be put back, because they had been stored truncated.
    """

    back: int
    cut: int


class DeadLetters:
    """Lists dead letters, puts them back into their queues, and removes them.

    Args:
        store: store that holds the experiments.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def letters(
        self, name: str, ids: Collection[str] = (), limit: int | None = None
    ) -> list[DeadLetter]:
        """The dead letters of an experiment, oldest first.

        Args:
            name: name of the experiment.
            ids: ids of the dead letters to return. Default: all.
            limit: maximal number of dead letters to return. None (the default) sets no limit.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            StoreError: there is no dead letter with one of the ids.
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
            name: name of the experiment.
            ids: ids of the dead letters. Default: all.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            StoreError: there is no dead letter with one of the ids.
        """
        found = await self.letters(name, ids)
        whole = [letter for letter in found if len(letter.body) == letter.size]
        back = [await self._store.resubmit(name, letter) for letter in whole]
        return Resubmitted(sum(back), len(found) - len(whole))

    async def drop(self, name: str, ids: Collection[str] = ()) -> int:
        """Delete dead letters.

        Args:
            name: name of the experiment.
            ids: ids of the dead letters. Default: all.

        Returns:
            The number of dead letters deleted.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
            StoreError: there is no dead letter with one of the ids.
        """
        found = [letter.id for letter in await self.letters(name, ids)]
        dropped = 0
        for start in range(0, len(found), PAGE):
            dropped += await self._store.drop(name, found[start : start + PAGE])
        return dropped
