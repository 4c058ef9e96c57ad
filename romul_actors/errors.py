"""Errors and warnings that several packages raise; others stand with their module."""

from collections.abc import Sequence
from typing import Self


class RomulError(Exception):
    """Base of all of this project's errors."""


class SpaceError(RomulError, ValueError):
    """A hyperparameter, or a value for one, that the search space does not allow."""


class OptimizerError(RomulError, ValueError):
    """An unknown optimizer, or an option that it does not take."""


class ExperimentError(RomulError, ValueError):
    """An experiment's declaration is wrong; the message names the field or line."""


class PluginError(RomulError):
    """What an installed package adds cannot be used (see romul_actors.plugins)."""


class MessageError(RomulError, ValueError):
    """Bytes from a queue that are not a message of this protocol."""


class MessageVersionError(MessageError):
    """A message of another version of the protocol; programs of that version can read it."""


class StoreError(RomulError):
    """The store cannot be used: it is unreachable, misconfigured, or holds unusable data."""


class StoreUnavailableError(StoreError):
    """The store does not answer now; it may later."""


class TlsError(StoreUnavailableError):
    """The server and this machine do not agree about TLS: it does not help to wait."""


class AccessError(StoreError):
    """The server does not let this user do what was asked for."""


class WrongTypeError(StoreError):
    """A key on the server is not of the type that this project gives it.

    Args:
        keys: one of them it is.
        error: as the server says it.
    """

    def __init__(self, keys: Sequence[str], error: object) -> None:
        which = " or ".join(keys) or "a key"
        super().__init__(
            f"{which} is not of the type that docs/redis.md says: remove that key, or restore the "
            f"server's data ({error})"
        )


class StoredDataError(StoreError):
    """What is stored of an experiment is not what this project writes.

    Args:
        what: which field of which experiment and slot, and the value.

    Attributes:
        what: the same.
        remedy: what to do.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.remedy = "set it right (docs/redis.md), or restore the server's data"
        super().__init__(f"{what}: {self.remedy}")


class UndecidableError(StoreError):
    """No decision follows from what is stored of an experiment and from its events.

    Args:
        what: what was done, and the error that ended it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the actor's log has the traceback; correct the optimizer if it is one of an "
            "installed package, else compare the slots with docs/redis.md"
        )


class NoAnswerError(StoreError):
    """The broker cannot be used, or a worker does not answer a request sent over it."""


class UnknownExperimentError(StoreError):
    """No experiment of that name is in the store."""


class UnknownSlotError(UnknownExperimentError):
    """The experiment has no slot of that number."""


class UnknownWorkerError(RomulError):
    """No local run under way has a worker of that name, or the broker knows others only."""


class UnknownTrialError(RomulError, ValueError):
    """A trial, or a slot, that history does not hold; or the best one, before any has succeeded."""


class ExperimentExistsError(StoreError):
    """An experiment of that name is already in the store."""

    @classmethod
    def of(cls, name: str) -> Self:
        """Say that a store's experiment has the name."""
        return cls(
            f"experiment {name!r} exists already: choose another name, or remove it first: "
            f"`romul remove {name}`"
        )


class AclError(RomulError, ValueError):
    """A user of the server cannot be made: its role, name or pattern, or the file, is wrong."""


class BrokerError(RomulError):
    """A broker's URL, or a name that is to stand in a topic, is wrong."""


class CheckpointError(RomulError):
    """A checkpoint is missing, damaged, or cannot be written."""


class LostParentError(CheckpointError):
    """The checkpoint that a trial continues from is not what was written."""


class NoRoomError(CheckpointError):
    """The disk, or the quota, for checkpoints is full; later there may be room."""


class StorageOutageError(CheckpointError):
    """The storage of checkpoints refuses, or does not answer; later it may."""


class TaskError(RomulError):
    """The user's training function broke its contract (see romul_workers.trial)."""


class TellError(RomulError, ValueError):
    """A result that a population without a server cannot take (see romul.Population)."""


class AdviceWarning(UserWarning):
    """An experiment is right, and may work worse than expected (romul_actors.protocol.advice)."""
