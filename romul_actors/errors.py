"""Exceptions and warnings that are shared by several packages.

An exception that only one module raises is defined in that module.
"""

from collections.abc import Sequence
from typing import Self


class RomulError(Exception):
    """Base class of all exceptions of this project."""


class SpaceError(RomulError, ValueError):
    """A hyperparameter or its value is invalid in the search space."""


class OptimizerError(RomulError, ValueError):
    """The optimizer is unknown, has no such option, or does not accept its value."""


class ExperimentError(RomulError, ValueError):
    """The declaration of an experiment is invalid; the message names the field or line."""


class PluginError(RomulError):
    """A plugin of an installed package cannot be used (see `romul_actors.plugins`)."""


class MessageError(RomulError, ValueError):
    """Bytes from a queue are not a message of this protocol."""


class MessageVersionError(MessageError):
    """A message has another protocol version; programs of that version can read it."""


class StoreError(RomulError):
    """The store cannot be used: it is unreachable or misconfigured, or its data is unusable."""


class StoreUnavailableError(StoreError):
    """The store does not answer. A later attempt may succeed."""


class TlsError(StoreUnavailableError):
    """The TLS connection to the server cannot be set up. Trying again does not help."""


class AccessError(StoreError):
    """The server denies this user the requested action."""


class WrongTypeError(StoreError):
    """A key on the server has an unexpected type.

    Args:
        keys: the candidates; the error concerns one of them.
        error: the server's error.
    """

    def __init__(self, keys: Sequence[str], error: object) -> None:
        which = " or ".join(keys) or "a key"
        super().__init__(
            f"{which} has the wrong type (see docs/redis.md): remove that key, or restore the "
            f"server's data ({error})"
        )


class StoredDataError(StoreError):
    """The stored data of an experiment is invalid.

    Args:
        what: description with the experiment, the slot, the field and its value.

    Attributes:
        what: the same description.
        remedy: advice for the operator.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.remedy = "correct it (see docs/redis.md), or restore the server's data"
        super().__init__(f"{what}: {self.remedy}")


class UndecidableError(StoreError):
    """The actor cannot make a decision for an experiment.

    Either the optimizer has failed, or the stored data is inconsistent.

    Args:
        what: what the actor was doing, and the error.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the actor's log has the traceback; if the optimizer is a plugin, correct it, "
            "otherwise compare the slots with docs/redis.md"
        )


class NoAnswerError(StoreError):
    """The broker cannot be used, or a worker does not answer a request sent through it."""


class UnknownExperimentError(StoreError):
    """There is no experiment of that name."""


class UnknownSlotError(UnknownExperimentError):
    """The experiment has no slot of that number."""


class UnknownWorkerError(RomulError):
    """Neither a running local run nor the broker has a worker of that name."""


class UnknownTrialError(RomulError, ValueError):
    """The history has no such trial or slot, or no trial has succeeded yet."""


class ExperimentExistsError(StoreError):
    """An experiment of that name already exists."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The error for an experiment in a store."""
        return cls(
            f"experiment {name!r} already exists: choose another name, or remove it first with "
            f"`romul remove {name}`"
        )


class AclError(RomulError, ValueError):
    """A user of the server cannot be created: its role, name, pattern or the file is invalid."""


class BrokerError(RomulError, ValueError):
    """The URL of a broker is invalid, or a name cannot be part of a topic."""


class CheckpointError(RomulError):
    """A checkpoint is missing, damaged, or cannot be written."""


class LostParentError(CheckpointError):
    """The checkpoint that a trial continues from is missing or damaged."""


class NoRoomError(CheckpointError):
    """The disk or the quota for checkpoints is full. Space may become free later."""


class StorageOutageError(CheckpointError):
    """The checkpoint storage fails or does not answer. A later attempt may succeed."""


class TaskError(RomulError):
    """The user's training function is invalid, or does not meet the contract of a task.

    The contract is described in `romul_workers.trial`.
    """


class TellError(RomulError, ValueError):
    """`romul.Population` cannot accept a reported result."""


class AdviceWarning(UserWarning):
    """An experiment is valid, but may work worse than expected.

    The checks are in `romul_actors.protocol.advice`.
    """
