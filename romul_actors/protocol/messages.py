"""The protocol: encodes events and trials for the queues, as MessagePack.

A message is a map with a version, a type and the fields of its dataclass (see `events.py`). It is
validated before anything else reads it, and nothing is ever unpickled.

Fields with defaults may be added without changing `VERSION`: older programs ignore them. `VERSION`
must be raised for a field without which a message has another meaning, for a new value of an
enumerated field, and for a change of meaning. A program of a new version must still read the
previous one, because older workers send it and queues contain it. The request of an operator is
rejected if it has unknown fields.
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
"""Stricter types for validation than in the core: MessagePack allows more than JSON, and NaN in the
times of a population could not be read back."""
_ANY_NUMBER = ("value",)
"""Fields that may contain NaN or an infinity: the core handles such metrics."""
MOST_STEPS = 10**9
"""Maximal number of steps of a search; far larger numbers could not be read back."""
MAX_BYTES = 256 * 1024
"""Maximal length of a message; a longer one is rejected without being unpacked."""


def _model(kind: type) -> type[BaseModel]:
    """A strict validator for one kind of message, made from the fields of its dataclass."""

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
    """Encode a message.

    Raises:
        MessageError: the message is longer than MAX_BYTES, or contains a lone surrogate or an
            integer of more than 64 bits.
    """
    content: dict[str, Any] = {"v": VERSION}
    for name in _NAMES[type(message)]:
        content[name] = getattr(message, name)
    try:
        body: bytes = msgpack.packb(content)
    except (UnicodeEncodeError, OverflowError) as error:
        raise MessageError(f"a {message.type} message cannot be sent: {error}") from None
    if len(body) > MAX_BYTES:
        raise MessageError(
            f"a {message.type} message of {len(body)} bytes is too long: at most {MAX_BYTES} bytes"
        )
    return body


def is_spoken(stored: str) -> bool:
    """Whether the actors of an experiment use this version of the protocol.

    Args:
        stored: the experiment's field `protocol`; empty if it is missing, as the first version does
            not store it.
    """
    return (stored or "1") == str(VERSION)


def decode_event(body: bytes) -> Event:
    """Decode an event for the decision actor.

    Raises:
        MessageVersionError: `body` has another protocol version.
        MessageError: `body` is too long, truncated, or not an event.
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
    # The name becomes part of a path when the best model is read.
    if report.checkpoint is not None and not is_name(report.checkpoint):
        raise MessageError(f"{report.type}.checkpoint: {misnamed(report.checkpoint)}")


def request_of(body: bytes) -> Control | None:
    """Decode an operator's request; None if the message is not one."""
    try:
        event = decode_event(body)
    except MessageError:
        return None
    return event if isinstance(event, Control) else None


def decode_trial(body: bytes) -> TrialMessage:
    """Decode a trial for a worker.

    Raises:
        MessageVersionError: `body` has another protocol version.
        MessageError: `body` is too long, truncated, or not a trial.
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
        # Called for each message: faster than `model_validate`.
        return dataclass(**model.__pydantic_validator__.validate_python(content).__dict__)
    except ValidationError as error:
        raise MessageError(f"{kind}.{mistakes_of(error, model)[0]}") from None


def _unpack(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise MessageError(f"oversized: {len(body)} bytes, at most {MAX_BYTES}")
    try:
        content = msgpack.unpackb(body)
    except (ValueError, TypeError) as error:
        # msgpack's own exceptions are ValueErrors, some without a text. A list as a key of a map
        # is a TypeError.
        raise MessageError(f"not MessagePack: {error or type(error).__name__}") from None
    if not isinstance(content, dict):
        raise MessageError(f"a {type(content).__name__} in place of a map")
    version = content.pop("v", None)
    if version != VERSION:
        raise MessageVersionError(f"version {version!r}: this program speaks {VERSION}")
    return content
