"""The protocol: events and trials as MessagePack on the queues.

A message is one map with a version, a type and the fields of its dataclass (see `events.py`).
A message from a queue is validated before anything else reads it; nothing is ever unpickled.

Within one `VERSION` fields may be added, with a default: older programs ignore them. A field whose
absence changes what a message means, a new value of a field with few, or another meaning raises
`VERSION`; a program that raises it still reads the version before, which workers send and queues
hold until all have been replaced. An operator's request is taken whole or not at all.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_args, get_type_hints

import msgpack
from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    JsonValue,
    ValidationError,
    create_model,
)
from pydantic import Field as Default

from romul_actors.core.events import Control, Event, Released, Result, TrialMessage
from romul_actors.core.space import Value
from romul_actors.errors import MessageError, MessageVersionError
from romul_actors.protocol.checkpoint_names import is_name, misnamed
from romul_actors.protocol.mistakes import mistakes_of

VERSION = 1
_WIRE = {
    Mapping[str, Value]: Mapping[str, JsonValue],
    float: FiniteFloat,
    float | None: FiniteFloat | None,
}
"""Types that say less in the core than a validator needs: MessagePack knows more than JSON, and a
NaN among a population's times could not be read back."""
_ANY_NUMBER = ("value",)
"""Fields that may hold NaN or an infinity: a metric that does is an outcome of its own."""
MOST_STEPS = 10**9
"""Most steps of a search; one of far more could not be read back."""
MAX_BYTES = 256 * 1024
"""Longest message; a longer one is not even unpacked."""


def _model(kind: type) -> type[BaseModel]:
    """Validator of one kind of message: its dataclass's fields, their very types."""

    def default(field: Field[Any]) -> Any:
        if field.default_factory is not MISSING:
            return Default(default_factory=field.default_factory)
        return ... if field.default is MISSING else field.default

    def wire(hint: Any) -> Any:
        return _WIRE.get(hint, hint)

    hints = get_type_hints(kind)
    columns: dict[str, Any] = {
        f.name: (hints[f.name] if f.name in _ANY_NUMBER else wire(hints[f.name]), default(f))
        for f in fields(kind)
    }
    config = ConfigDict(strict=True, extra="forbid" if kind is Control else "ignore")
    return create_model(kind.__name__, __config__=config, **columns)


def _by_type(*kinds: type) -> Mapping[str, tuple[type, type[BaseModel]]]:
    names = (get_args(get_type_hints(kind)["type"])[0] for kind in kinds)
    return {name: (kind, _model(kind)) for name, kind in zip(names, kinds, strict=True)}


_EVENTS = _by_type(*get_args(Event))
_TRIALS = _by_type(TrialMessage)
_NAMES = {kind: tuple(f.name for f in fields(kind)) for kind in (*get_args(Event), TrialMessage)}


def encode(message: Event | TrialMessage) -> bytes:
    """Put a message into bytes.

    Raises:
        MessageError: it is longer than MAX_BYTES, or holds what no message can: half of a
            character, or a whole number of more than 64 bits.
    """
    content: dict[str, Any] = {"v": VERSION}
    for name in _NAMES[type(message)]:
        content[name] = getattr(message, name)
    try:
        body: bytes = msgpack.packb(content)
    except (UnicodeEncodeError, OverflowError) as error:
        raise MessageError(f"a {message.type} message cannot be sent: {error}") from None
    if len(body) > MAX_BYTES:
        raise MessageError(f"a {message.type} message of {len(body)} bytes: at most {MAX_BYTES}")
    return body


def is_spoken(stored: str) -> bool:
    """Whether an experiment's actors speak this version.

    Args:
        stored: the experiment's field `protocol`, which the first version does not write: "".
    """
    return (stored or "1") == str(VERSION)


def decode_event(body: bytes) -> Event:
    """Read an event for the decision actor.

    Raises:
        MessageVersionError: `body` is of another version.
        MessageError: it is oversized, truncated, or not an event.
    """
    event: Event = _validate(_EVENTS, body)
    if isinstance(event, Result | Released):
        _check_checkpoint(event)
    if isinstance(event, Control) and event.steps > MOST_STEPS:
        raise MessageError(f"control.steps: {event.steps} is above {MOST_STEPS}")
    if isinstance(event, Control) and math.isinf(event.high - event.low):
        raise MessageError(f"control.high: {event.high} is too far from {event.low}")
    return event


def _check_checkpoint(report: Result | Released) -> None:
    # A path is made of it wherever the best model is read.
    if report.checkpoint is not None and not is_name(report.checkpoint):
        raise MessageError(f"{report.type}.checkpoint: {misnamed(report.checkpoint)}")


def request_of(body: bytes) -> Control | None:
    """An operator's request that a message is; None: it is another event, or none at all."""
    try:
        event = decode_event(body)
    except MessageError:
        return None
    return event if isinstance(event, Control) else None


def decode_trial(body: bytes) -> TrialMessage:
    """Read a trial for a worker.

    Raises:
        MessageVersionError: `body` is of another version.
        MessageError: it is oversized, truncated, or not a trial.
    """
    trial: TrialMessage = _validate(_TRIALS, body)
    if trial.id != (right := f"{trial.slot}-{trial.step}"):
        raise MessageError(f"trial.id: {trial.id!r:.100} is not {right!r}, its slot and step")
    return trial


def _validate(kinds: Mapping[str, tuple[type, type[BaseModel]]], body: bytes) -> Any:
    content = _unpack(body)
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise MessageError(f"unknown type {kind!r}: not one of {', '.join(kinds)}")
    dataclass, model = kinds[kind]
    try:
        # Called for each message, hence without the options of `model_validate`.
        return dataclass(**model.__pydantic_validator__.validate_python(content).__dict__)
    except ValidationError as error:
        raise MessageError(f"{kind}.{mistakes_of(error, model)[0]}") from None


def _unpack(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise MessageError(f"oversized: {len(body)} bytes, at most {MAX_BYTES}")
    try:
        content = msgpack.unpackb(body)
    except (ValueError, TypeError) as error:
        # msgpack's own exceptions are ValueErrors too; some of them carry no text. A list as a
        # map's key is a TypeError.
        raise MessageError(f"not MessagePack: {error or type(error).__name__}") from None
    if not isinstance(content, dict):
        raise MessageError(f"a {type(content).__name__} in place of a map")
    version = content.pop("v", None)
    if version != VERSION:
        raise MessageVersionError(f"version {version!r}: this program speaks {VERSION}")
    return content
