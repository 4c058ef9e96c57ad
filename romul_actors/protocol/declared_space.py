"""The declared search space: one table per hyperparameter; nested tables become dotted names."""

import math
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, LiteralString, Union, get_args, get_origin

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from romul_actors.core.parameter import identity
from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scale,
    Space,
    VectorParameter,
)
from romul_actors.errors import SpaceError
from romul_actors.protocol.mistakes import (
    Mistake,
    Mistakes,
    Where,
    did_you_mean,
    mistakes_of,
    shown,
)
from romul_actors.sendable import is_text

MAX_SIZE = 1_000
"""Maximal length of a list hyperparameter."""


class DeclaredTable(BaseModel):
    """Base class of the tables in a declaration: immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_it_is_written(cls, given: Any, info: ValidationInfo) -> Any:
        """Reject values that pydantic would convert, and texts that JSON cannot represent."""
        if (text := lone_half(given)) is not None:
            raise PydanticCustomError("lone_half", "text", {"text": ascii(text)})
        expected = _kinds(cls.model_fields[str(info.field_name)].annotation)
        for kind, (name, others) in _NOT_ALSO.items():
            if kind in expected and isinstance(given, others) and type(given) not in expected:
                raise PydanticCustomError(name, "of another type")
        return given


def lone_half(value: Any) -> str | None:
    """The first text in a value that contains a lone surrogate, or None.

    JSON escapes can produce such texts, but they can be neither stored nor sent.
    """
    if isinstance(value, str):
        return None if is_text(value) else value
    if isinstance(value, dict):
        return next(filter(None, map(lone_half, [*value, *value.values()])), None)
    if isinstance(value, list | tuple):
        return next(filter(None, map(lone_half, value)), None)
    return None


_NOT_ALSO: Mapping[type, tuple[LiteralString, tuple[type, ...]]] = {
    int: ("int_type", (str, bytes, bool)),
    float: ("float_type", (str, bytes, bool)),
    bool: ("bool_type", (str, bytes, int, float)),
    AwareDatetime: ("datetime_type", (bytes, int, float)),
}
"""For each type of a key, pydantic's error type, and types of values that are not accepted."""


def _kinds(annotation: Any) -> set[Any]:
    """The outermost types that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for each in get_args(annotation) for kind in _kinds(each)}
    return {get_origin(annotation) or annotation}


def plain(value: Any) -> Any:
    """A value with tuples converted to lists, as it would be read back from JSON."""
    if isinstance(value, list | tuple):
        return [plain(inside) for inside in value]
    if isinstance(value, dict):
        return {key: plain(inside) for key, inside in value.items()}
    return value


def _choices(given: Any) -> Any:
    return tuple(plain(given)) if isinstance(given, list | tuple) else given


def _conditions(given: Any) -> Any:
    """Convert single values of a condition to lists of one."""
    if not isinstance(given, dict):
        return given
    return {key: _choices(x if isinstance(x, list | tuple) else [x]) for key, x in given.items()}


Choices = Annotated[tuple[Any, ...], BeforeValidator(_choices)]


class _Spec(DeclaredTable):
    """The keys that all kinds of hyperparameters have.

    Attributes:
        size: length of the list, if the hyperparameter is a list of such values; else None.
        when: condition under which the hyperparameter is active: names of other hyperparameters,
            each with a list of values.
        mutable: whether the value may change along a line of descent.
    """

    size: int | None = Field(None, ge=1, le=MAX_SIZE)
    when: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_conditions)] = Field(
        default_factory=dict
    )
    mutable: bool = True

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `guarded` if it is not declared, as older programs do not know the key."""
        table: dict[str, Any] = written(self)
        if table.get("guarded", False) is None:
            del table["guarded"]
        return table

    def element(self, name: str) -> Parameter:
        """The core's parameter for a single value."""
        raise NotImplementedError

    def parameter(self, name: str) -> Parameter | VectorParameter:
        """The core's parameter.

        Raises:
            SpaceError: bounds, step or choices are invalid.
        """
        one = self.element(name)
        return one if self.size is None else VectorParameter(one, self.size)


class FloatSpec(_Spec):
    """A float between two bounds, both included; with `step`, on a grid.

    Attributes:
        guarded: whether the default optimizer never lowers it early in a run. Default: by name.
    """

    type: Literal["float"]
    min: FiniteFloat
    max: FiniteFloat
    scale: Scale = "linear"
    step: FiniteFloat | None = None
    guarded: bool | None = None

    def element(self, name: str) -> Parameter:
        """The core's parameter for a single value."""
        _check_width(name, self)
        how = self.scale, self.mutable, self.step, self.guarded
        return FloatParameter(name, self.min, self.max, *how)


def _check_width(name: str, spec: FloatSpec) -> None:
    """Check that calculations with the bounds do not overflow.

    Raises:
        SpaceError: the distance of the bounds, their ratio on a logarithmic scale, or the number of
            steps between them overflows.
    """
    low, high = spec.min, spec.max
    if math.isinf(high - low) or (spec.scale == "log" and low > 0 and math.isinf(high / low)):
        raise SpaceError(f"{name}: min {low!r} to max {high!r} is too wide a range for a float")
    if spec.step and math.isinf((high - low) / spec.step):
        raise SpaceError(
            f"{name}: step {spec.step!r} is too small for the range from min {low!r} to max "
            f"{high!r}: omit it, or make it larger"
        )


class IntSpec(_Spec):
    """An integer between two bounds, both included. For `guarded`, see `FloatSpec`."""

    type: Literal["int"]
    min: int
    max: int
    scale: Scale = "linear"
    step: int = 1
    guarded: bool | None = None

    def element(self, name: str) -> Parameter:
        """The core's parameter for a single value."""
        how = self.scale, self.mutable, self.step, self.guarded
        return IntParameter(name, self.min, self.max, *how)


class CategoricalSpec(_Spec):
    """One of a few choices, which may be any JSON values; with `ordinal`, they are ordered."""

    type: Literal["categorical"]
    choices: Choices
    ordinal: bool = False

    def element(self, name: str) -> Parameter:
        """The core's parameter for a single value."""
        return CategoricalParameter(name, self.choices, self.mutable, self.ordinal)


class BooleanSpec(_Spec):
    """False or true."""

    type: Literal["boolean"]

    def element(self, name: str) -> Parameter:
        """The core's parameter for a single value."""
        return BooleanParameter(name, self.mutable)


ParameterSpec = FloatSpec | IntSpec | CategoricalSpec | BooleanSpec
KINDS: Mapping[str, type[ParameterSpec]] = {
    "float": FloatSpec,
    "int": IntSpec,
    "categorical": CategoricalSpec,
    "boolean": BooleanSpec,
}
FOREIGN_KINDS = {
    "integer": "int",
    "randint": "int",
    "double": "float",
    "real": "float",
    "number": "float",
    "uniform": "float",
    "loguniform": 'float with scale = "log"',
    "log": 'float with scale = "log"',
    "bool": "boolean",
    "choice": "categorical",
    "enum": "categorical",
    "str": "categorical",
    "string": "categorical",
    "ordinal": "categorical with ordinal = true",
}
"""Names of the kinds in other programs, and the corresponding kinds here."""
_FIELDS = {name for kind in KINDS.values() for name in kind.model_fields} - {"type"}


def core_space(specs: Mapping[str, ParameterSpec]) -> Space:
    """The core's space.

    Raises:
        SpaceError: the bounds or choices of a hyperparameter, or a condition, are invalid.
    """
    when = {name: spec.when for name, spec in specs.items() if spec.when}
    return Space([spec.parameter(name) for name, spec in specs.items()], when)


def by_name(given: Mapping[str, Any], names: Collection[str], outer: str = "") -> dict[str, Any]:
    """Flatten nested tables of values to dotted names: {"a": {"b": 1}} becomes {"a.b": 1}.

    A table is flattened only if hyperparameters are nested in it, and none has its own name.
    """
    flat: dict[str, Any] = {}
    for key, value in given.items():
        name = f"{outer}{key}"
        inside = any(known.startswith(f"{name}.") for known in names)
        if name not in names and inside and isinstance(value, dict):
            flat |= by_name(value, names, f"{name}.")
        else:
            flat[name] = value
    return flat


def read_space(given: Any) -> Any:
    """The hyperparameters of a declared space, by dotted names.

    Raises:
        Mistakes: the space is invalid.
    """
    if not isinstance(given, Mapping):
        return given
    tables: dict[str, tuple[Where, Any]] = {}
    mistakes = _flatten(given, ("space",), tables)
    specs: dict[str, ParameterSpec] = {}
    for name, (where, table) in tables.items():
        try:
            specs[name] = _spec(table, where, tables)
            specs[name].parameter(name)
        except Mistakes as found:
            mistakes += found.mistakes
        except SpaceError as error:
            mistakes.append(Mistake(where, str(error), named=True))
    if not mistakes:
        mistakes += _joint_faults(specs, {name: where for name, (where, _) in tables.items()})
    if mistakes:
        raise Mistakes(mistakes)
    return specs


def _joint_faults(specs: Mapping[str, ParameterSpec], places: Mapping[str, Where]) -> list[Mistake]:
    """Mistakes in the names and conditions of hyperparameters that are valid one by one."""
    plain_specs = {name: spec.model_copy(update={"when": {}}) for name, spec in specs.items()}
    try:
        core_space(plain_specs)
    except SpaceError as error:
        return [Mistake(("space",), str(error), named=True)]
    mistakes = []
    for name, spec in specs.items():
        try:
            core_space({**plain_specs, name: spec})
        except SpaceError as error:
            mistakes.append(Mistake((*places[name], "when"), str(error), named=True))
    if not mistakes:
        try:
            core_space(specs)
        except SpaceError as error:
            where = places.get(str(error).partition(":")[0], ("space",))
            mistakes.append(Mistake((*where, "when"), str(error), named=True))
    return mistakes


def _flatten(
    given: Mapping[str, Any], outer: Where, tables: dict[str, tuple[Where, Any]]
) -> list[Mistake]:
    """Add the table of every hyperparameter to `tables`; return mistakes in their names."""
    mistakes = []
    for key, table in given.items():
        where = (*outer, key)
        name = ".".join(map(str, where[1:]))
        if _is_nested(table):
            mistakes += _flatten(table, where, tables)
        elif name in tables:
            mistakes.append(Mistake(where, f"{name}: declared twice", named=True))
        else:
            tables[name] = (where, table)
    return mistakes


def _is_nested(table: Any) -> bool:
    """Whether a table contains tables of hyperparameters, instead of being that of one.

    The table of a hyperparameter has the key `type`, or, if that was forgotten, other keys of one.
    """
    if not isinstance(table, dict) or not table:
        return False
    own = {key for key, inside in table.items() if not isinstance(inside, dict)}
    return "type" not in own and not (_FIELDS & own)


def _spec(table: Any, where: Where, tables: Mapping[str, Any]) -> ParameterSpec:
    if isinstance(table, FloatSpec | IntSpec | CategoricalSpec | BooleanSpec):
        return table
    if not isinstance(table, dict):
        message = (
            f"{shown(table)} is not a hyperparameter: declare one as "
            '{ type = "float", min = 0.0, max = 1.0 }, and fixed values under [constants]'
        )
        raise Mistakes([Mistake(where, message)])
    kind = table.get("type")
    if kind is None:
        message = f"has no type: set type to one of {', '.join(KINDS)}"
        raise Mistakes([Mistake(where, message)])
    if not isinstance(kind, str) or kind not in KINDS:
        called = FOREIGN_KINDS.get(str(kind).lower())
        hint = f"it is called {called} here" if called else did_you_mean(kind, KINDS)
        message = f"{shown(kind)} is not a type of hyperparameter: {hint}"
        raise Mistakes([Mistake((*where, "type"), message)])
    model = KINDS[kind]
    if isinstance(table.get("when"), dict):
        table = {**table, "when": by_name(table["when"], tables)}
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise Mistakes(mistakes_of(error, model, where)) from None


def check_json(values: Mapping[str, Any], where: Where) -> list[Mistake]:
    """Mistakes in values that must be JSON."""
    mistakes = []
    for name, value in values.items():
        try:
            identity(value)
        except SpaceError as error:
            mistakes.append(Mistake((*where, name), f"{shown(value)} is {error}"))
    return mistakes
