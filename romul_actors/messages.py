"""The protocol: events and trials as MessagePack on the queues.

A message is one map with a version, a type and the fields of its dataclass (see `events.py`).
Whatever comes from a queue is validated before anything looks at it; nothing is ever unpickled.
"""

from dataclasses import fields
from typing import Annotated, Any, TypeVar

import msgpack
from pydantic import Discriminator, TypeAdapter, ValidationError

from romul_actors.errors import MessageError
from romul_actors.events import Event, Trial

T = TypeVar("T")

VERSION = 1
MAX_BYTES = 256 * 1024
"""Longest message; a longer one is not even unpacked."""

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])
_TRIAL: TypeAdapter[Trial] = TypeAdapter(Trial)


def encode(message: Event | Trial) -> bytes:
    """Put a message into bytes.

    Raises:
        MessageError: it is longer than MAX_BYTES.
    """
    content = {field.name: getattr(message, field.name) for field in fields(message)}
    body: bytes = msgpack.packb({"v": VERSION, **content})
    if len(body) > MAX_BYTES:
        raise MessageError(f"a {message.type} message of {len(body)} bytes: at most {MAX_BYTES}")
    return body


def decode_event(body: bytes) -> Event:
    """Read an event for the decision actor.

    Raises:
        MessageError: `body` is oversized, truncated, of another version, or not an event.
    """
    return _validate(_EVENT, body)


def decode_trial(body: bytes) -> Trial:
    """Read a trial for a worker.

    Raises:
        MessageError: `body` is oversized, truncated, of another version, or not a trial.
    """
    return _validate(_TRIAL, body)


def _validate(adapter: TypeAdapter[T], body: bytes) -> T:
    content = _unpack(body)
    try:
        return adapter.validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise MessageError(f"{where}: {first['msg']}") from None


def _unpack(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise MessageError(f"oversized: {len(body)} bytes, at most {MAX_BYTES}")
    try:
        content = msgpack.unpackb(body)
    except ValueError as error:
        # msgpack's own exceptions are ValueErrors too; some of them carry no text.
        raise MessageError(f"not MessagePack: {error or type(error).__name__}") from None
    except RecursionError:
        raise MessageError("not MessagePack: nested too deeply") from None
    if not isinstance(content, dict):
        raise MessageError(f"a {type(content).__name__} in place of a map")
    version = content.pop("v", None)
    if version != VERSION:
        raise MessageError(f"version {version!r}: this program speaks {VERSION}")
    return content
