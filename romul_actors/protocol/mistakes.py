"""Describes the mistakes in a declaration or a message, each with its location."""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from romul_actors.protocol.toml_lines import line_at

Where = tuple[str | int, ...]

SHOWN = 80
"""Maximal length of a wrong value in a message, in characters."""

FOREIGN_KEYS = {
    "low": "min",
    "lower": "min",
    "minimum": "min",
    "high": "max",
    "upper": "max",
    "maximum": "max",
    "log": 'scale = "log"',
    "q": "step",
    "values": "choices",
    "categories": "choices",
    "options": "choices",
    "ordered": "ordinal = true",
    "length": "size",
    "shape": "size",
    "if": "when",
    "condition": "when",
    "mode": "direction",
    "pop_size": "population",
    "population_size": "population",
    "n_steps": "steps",
    "module": "task",
}
"""Keys of other programs, and the corresponding keys here."""

FORMS = {
    "name": "use at most 64 letters, digits, '.', '_' and '-', beginning with a letter or a digit",
    "task": "give a module, or module:function",
    "device": "use auto, cpu, mps, cuda or cuda:NUMBER",
}
"""Descriptions of valid texts, by key."""

_NOT = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
    "invalid-json-value": "a JSON value",
    "datetime": "a time such as 2030-01-31T18:00:00Z",
    "date": "a time such as 2030-01-31T18:00:00Z",
    "time": "a time such as 2030-01-31T18:00:00Z",
}
"""Expected types in words, by the first word of pydantic's error type."""
_MISSING = "required, but not given"
_MISPLACED = "no such key: a line belongs to the [table] above it: move this line above that table"
_SENTENCES = {
    "missing": _MISSING,
    "value_error": "{error}",
    "greater_than": "{value} is not above {gt}",
    "greater_than_equal": "{value} is below {ge}",
    "less_than": "{value} is not below {lt}",
    "less_than_equal": "{value} is above {le}",
    "finite_number": "{value} is not finite",
    "string_too_short": "must not be empty",
    "string_too_long": "{value} is longer than {max_length} characters",
    "timezone_aware": "{value} has no time zone: add one, as in 2030-01-31T18:00:00Z",
    "json_invalid": "not JSON: {error}",
    "lone_half": "{text} contains half of a surrogate pair, which can be neither stored nor sent",
}
"""Messages by pydantic's error type."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake.

    Attributes:
        where: path of keys to the mistake; empty for the whole declaration.
        message: what is wrong, and what to do.
        named: whether the message already contains the path.
    """

    where: Where
    message: str
    named: bool = False

    def __str__(self) -> str:
        if self.named or not self.where:
            return self.message
        return f"{'.'.join(map(str, self.where))}: {self.message}"


class Mistakes(ValueError):  # noqa: N818  (it holds several errors)
    """Several mistakes in one part of a declaration."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


def did_you_mean(name: object, known: Collection[str], most: int | None = None) -> str:
    """A suggestion for an unknown name, or the list of known names, as the end of a sentence.

    Args:
        name: the unknown name.
        known: the known names.
        most: maximal number of names to list; None lists all.
    """
    near = get_close_matches(str(name), known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if not known:
        return "none is taken"
    listed = list(known)[:most]
    left_out = len(known) - len(listed)
    return f"there are {', '.join(listed)}" + (f" and {left_out} more" if left_out else "")


def unknown_key(key: str, known: Collection[str]) -> str:
    """The message for an unknown key."""
    if (here := FOREIGN_KEYS.get(key, "")).partition(" ")[0] in known:
        return f"no such key: it is called {here} here"
    return f"no such key: {did_you_mean(key, known)}"


def shown(value: object) -> str:
    """A wrong value for a message, truncated to `SHOWN` characters."""
    try:
        text = value.isoformat() if isinstance(value, datetime | date | time) else repr(value)
    except ValueError:
        # Python does not convert very long integers to text.
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, without the error number and the file name."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return str(getattr(error, "strerror", None) or error)


def mistakes_of(
    error: ValidationError, model: type[BaseModel], before: Sequence[str | int] = ()
) -> list[Mistake]:
    """Convert pydantic's errors to mistakes.

    Args:
        error: pydantic's exception.
        model: the model that was validated.
        before: path of keys to the model.
    """
    mistakes: list[Mistake] = []
    for finding in error.errors(include_url=False):
        found = finding.get("ctx", {}).get("error")
        if isinstance(found, Mistakes):
            mistakes += found.mistakes
            continue
        where = (*before, *finding["loc"])
        mistakes.append(Mistake(where, _in_words(finding, where, model)))
    return [one for one in mistakes if not any(_misspelt(one, other) for other in mistakes)]


def _misspelt(missing: Mistake, other: Mistake) -> bool:
    """Whether a key is missing only because it was misspelled or misplaced as `other` says."""
    if not missing.where or not other.where:
        # A mistake in the declaration as a whole.
        return False
    if (missing.message, other.message) == (_MISSING, _MISPLACED):
        return missing.where[-1] == other.where[-1]
    hints = (f"did you mean {missing.where[-1]!r}?", f"it is called {missing.where[-1]} ")
    return (
        missing.message == _MISSING
        and other.where[:-1] == missing.where[:-1]
        and other.message.startswith("no such key: ")
        and any(hint in other.message for hint in hints)
    )


def _in_words(finding: Mapping[str, Any], where: Where, model: type[BaseModel]) -> str:
    """The message for one of pydantic's errors in a model."""
    kind, given, context = finding["type"], finding["input"], finding.get("ctx", {})
    key = str(finding["loc"][-1]) if finding["loc"] else ""
    if kind == "extra_forbidden":
        if len(where) > 1 and (isinstance(given, dict) or key in model.model_fields):
            return _MISPLACED
        return unknown_key(key, _keys(model, finding["loc"]))
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(**{"value": shown(given), **context})
    what = _NOT.get(kind.partition("_")[0], "allowed for this key")
    if kind == "literal_error":
        what = str(context["expected"])
        words = what.replace("'", "").replace(" or ", ", ").split(", ")
        begun = [word for word in words if _begins(word, str(given))]
        near = begun or get_close_matches(str(given), words, n=1)
        what += f": did you mean {near[0]!r}?" if near else ""
    elif kind == "string_pattern_mismatch" and key in FORMS:
        return f"{shown(given)} is not allowed: {FORMS[key]}"
    return f"{shown(given)} is not {what}"


def _begins(word: str, given: str) -> bool:
    """Whether one text is the beginning of the other."""
    return bool(given) and (word.startswith(given) or given.startswith(word))


def _keys(model: type[BaseModel], where: Sequence[str | int]) -> Collection[str]:
    """The valid keys at the location of the last key of a path."""
    for part in where[:-1]:
        if isinstance(part, int):
            # An index in a list of tables, which are all of the same kind.
            continue
        field = model.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        # The annotation of an optional table is `Model | None`.
        inner = [
            kind
            for kind in (annotation, *get_args(annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if not inner:
            return ()
        model = inner[0]
    own = [key for key in model.model_fields if key in model.__annotations__]
    return tuple(dict.fromkeys((*own, *model.model_fields)))


def in_lines(mistakes: Iterable[Mistake], source: str, lines: Mapping[str, int]) -> str:
    """Format mistakes, one per line with its location, in the order of the file.

    Args:
        mistakes: the mistakes.
        source: name of the file.
        lines: line numbers by path; empty if they are not known.
    """
    placed = [(line_at(mistake.where, lines), str(mistake)) for mistake in mistakes]
    return "\n".join(
        f"{source}:{line}: {text}" if line else f"{source}: {text}"
        for line, text in sorted(dict.fromkeys(placed), key=lambda pair: pair[0])
    )


def not_toml(error: tomllib.TOMLDecodeError, text: str, source: str) -> str:
    """The message for a TOML syntax error, with the text of the line."""
    found = re.search(r"at line (\d+)", str(error))
    if found is None:
        return f"{source}: not TOML: {error}"
    number = int(found[1])
    line = text.split("\n")[number - 1].strip()
    hint = ""
    if re.search(r"=\s*(True|False|None|null)\b", line):
        hint = "; in TOML, write true or false, and omit a key that has no value"
    elif re.search(r"=\s*[A-Za-z_]", line):
        hint = "; write text in quotes"
    return f"{source}:{number}: not TOML: {error}{hint}: {shown(line)}"
