"""A fault in a schedule, for virtual time (`chaos/`) and for real processes (`drill/`)."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from romul_actors.protocol.mistakes import did_you_mean, shown

LATEST_S = 1e6
"""Limit of times and durations in a file, in seconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; a schedule is a list of them.

    Attributes:
        at_s: when it strikes, in seconds from the start.
        kind: what breaks: a name in `chaos.schedule.KINDS` or `drill.schedule.FAULTS`.
        pick: selects one of the parts that it may strike, in [0, 1).
        for_s: how long something stays frozen, down or full, in seconds; for lost writes, how many
            of the store's last seconds are lost.
    """

    at_s: float
    kind: str
    pick: float
    for_s: float


class DeclaredFault(BaseModel):
    """A fault in a file; see `Fault`. The validation context holds the kinds that are allowed."""

    model_config = ConfigDict(extra="forbid", strict=True)
    at_s: float = Field(ge=0, le=LATEST_S)
    kind: str
    pick: float = Field(ge=0, lt=1)
    for_s: float = Field(ge=0, le=LATEST_S)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str, info: ValidationInfo) -> str:
        kinds: dict[str, float] = info.context or {}
        if kind not in kinds:
            raise ValueError(f"{shown(kind)} is no kind of fault: {did_you_mean(kind, kinds)}")
        return kind

    def fault(self) -> Fault:
        """The fault itself."""
        return Fault(self.at_s, self.kind, self.pick, self.for_s)
