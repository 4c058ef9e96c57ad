"""How a line of history is stored: as JSON values, without what follows from the rest of the line.

Nothing is lost, and each line can be read by itself. In lines about trials:

- `slot` and `step` are omitted if the trial's id is SLOT-STEP;
- `parent` is omitted if it is the slot's own trial of the previous step;
- `attempt` is omitted if it is 1;
- `checkpoint` begins with "-" instead of TRIAL-ATTEMPT-;
- `why.copied` is omitted if it is the slot of a parent in another slot, `why.pool` if it equals
  `why.known`, and `why.outside` if it is empty and there is `why.drawn`; null means that such a
  value is absent from the original line;
- `vector` and `why.base` are texts: the base64 of little-endian doubles;
- `in_effect` is a list of such a text and the names, if all its values are floats.

Lines of older versions are not shortened, and can still be read.
"""

import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any

BETWEEN = " "
"""Separator of names; if a name contains it, values are not packed."""
MARK = "-"
"""First character of a shortened checkpoint name; it replaces TRIAL-ATTEMPT-."""
_FLOATS = {float}


class PackedError(ValueError):
    """A text is not the base64 encoding of doubles."""


def pack(numbers: Sequence[float]) -> str:
    """Encode doubles as a text."""
    data = struct.pack(f"<{len(numbers)}d", *numbers)
    return b2a_base64(data, newline=False).rstrip(b"=").decode()


def unpack(text: str) -> list[float]:
    """Decode a text from `pack`.

    Raises:
        PackedError: the text does not come from `pack`.
    """
    try:
        data = a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
        return list(struct.unpack(f"<{len(data) // 8}d", data))
    except (ValueError, struct.error) as error:
        raise PackedError(f"{text!r:.40}: {error}") from None


# -- writing --------------------------------------------------------------------------------------


def shorten(values: dict[str, Any]) -> dict[str, Any]:
    """Shorten a line's JSON values in place, and return them; `expand` reverses it."""
    trial = values.get("trial")
    if trial is None:
        return values
    checkpoint = values.get("checkpoint")
    if checkpoint is not None:
        values["checkpoint"] = _without_trial(checkpoint, f"{trial}-{values['attempt']}")
    if in_effect := values.get("in_effect"):
        values["in_effect"] = _packed_by_name(in_effect)
    if "vector" in values:
        _shorten_reasons(values)
    if values.get("attempt") == 1:
        del values["attempt"]
    if "step" in values and trial == f"{values['slot']}-{values['step']}":
        if values.get("parent") == f"{values['slot']}-{values['step'] - 1}":
            del values["parent"]
        del values["slot"], values["step"]
    return values


def _without_trial(checkpoint: str, start: str) -> str | list[str]:
    """A checkpoint name with `start` replaced by `MARK`; in a list if it begins with `MARK`."""
    if checkpoint.startswith(f"{start}{MARK}"):
        return checkpoint[len(start) :]
    return [checkpoint] if checkpoint.startswith(MARK) else checkpoint


def _packed_by_name(values: Mapping[str, Any]) -> Mapping[str, Any] | list[str]:
    """Pack values by name into a text and the names, if all values are floats."""
    if set(map(type, values.values())) == _FLOATS:
        names = BETWEEN.join(values)
        if names.count(BETWEEN) == len(values) - 1:
            return [pack(list(values.values())), names]
    return values


def _shorten_reasons(values: dict[str, Any]) -> None:
    """Pack the vector, and omit those of the optimizer's reasons that follow from other values.

    The line is left unchanged if `expand` could not restore it.
    """
    why = values["why"]
    implied = _implied(values, why)
    short = dict(why)
    base = short.get("base")
    if isinstance(base, list) and set(map(type, base)) == _FLOATS:
        short["base"] = pack(base)
    elif isinstance(base, str):
        return
    for key, value in implied.items():
        if key not in short:
            short[key] = None
        elif short[key] is None:
            # None would be read as absent.
            return
        elif type(short[key]) is type(value) and short[key] == value:
            del short[key]
    values["vector"], values["why"] = pack(values["vector"]), short


def _implied(values: Mapping[str, Any], why: Mapping[str, Any]) -> dict[str, Any]:
    """Reasons that follow from the other values of a line."""
    implied: dict[str, Any] = {}
    if "drawn" in why:
        implied["outside"] = []
    if "rank" in why and "known" in why:
        implied["pool"] = why["known"]
    slot, _, step = str(values["parent"]).partition("-")
    if step.isdecimal() and slot.isdecimal() and int(slot) != values["slot"]:
        implied["copied"] = int(slot)
    return implied


# -- reading --------------------------------------------------------------------------------------


def expand(values: dict[str, Any], fields: Collection[str]) -> None:
    """Restore in place what `shorten` has omitted or packed.

    Args:
        values: the stored values of a line.
        fields: names of the fields of this kind of line.

    Raises:
        PackedError: packed values are damaged.
    """
    trial = values.get("trial")
    if not isinstance(trial, str):
        return
    if "step" in fields and "step" not in values:
        slot, _, step = trial.partition("-")
        if slot.isdecimal() and step.isdecimal():
            values |= {"slot": int(slot), "step": int(step)}
            if "parent" in fields and "parent" not in values:
                values["parent"] = f"{slot}-{int(step) - 1}"
    if "attempt" in fields and "attempt" not in values:
        values["attempt"] = 1
    checkpoint = values.get("checkpoint")
    if isinstance(checkpoint, str) and checkpoint.startswith(MARK):
        values["checkpoint"] = f"{trial}-{values['attempt']}{checkpoint}"
    elif isinstance(checkpoint, list):
        (values["checkpoint"],) = checkpoint
    if isinstance(in_effect := values.get("in_effect"), list):
        values["in_effect"] = _by_name(in_effect)
    if isinstance(vector := values.get("vector"), str):
        values["vector"] = unpack(vector)
        values["why"] = _whole_reasons(values, values["why"])


def _by_name(packed: Sequence[Any]) -> dict[str, float]:
    """Unpack values by name from a text and the names."""
    match packed:
        case [str(text), str(joined)]:
            numbers, names = unpack(text), joined.split(BETWEEN)
            if len(names) == len(numbers):
                return dict(zip(names, numbers, strict=True))
    raise PackedError(f"{packed!r:.80}: not values and names")


def _whole_reasons(values: Mapping[str, Any], why: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's reasons, with those that `shorten` has omitted."""
    whole = dict(why)
    for key, value in _implied(values, why).items():
        if key not in whole:
            whole[key] = value
        elif whole[key] is None:
            del whole[key]
    if isinstance(base := whole.get("base"), str):
        whole["base"] = unpack(base)
    return whole
