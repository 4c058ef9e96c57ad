"""The search space as a user declares it: a table a hyperparameter, tables of tables by dots."""

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
"""Longest list of one hyperparameter."""


class DeclaredTable(BaseModel):
    """A table of a declaration: no key but those that are known, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_it_is_written(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuse what the validator would turn into another type, or JSON could not hold."""
        if (text := lone_half(given)) is not None:
            raise PydanticCustomError("lone_half", "text", {"text": ascii(text)})
        expected = _kinds(cls.model_fields[str(info.field_name)].annotation)
        for kind, (name, others) in _NOT_ALSO.items():
            if kind in expected and isinstance(given, others) and type(given) not in expected:
                raise PydanticCustomError(name, "of another type")
        return given


def lone_half(value: Any) -> str | None:
    """The first text in a value that holds half of a character, as JSON's escape of one makes it.

    It can be neither stored nor sent.
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
"""By the type of a key's value, a name for the mistake and types that do not stand for it."""


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation admits at its outside."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for each in get_args(annotation) for kind in _kinds(each)}
    return {get_origin(annotation) or annotation}


def plain(value: Any) -> Any:
    """A value with lists in place of tuples, as JSON gives it back."""
    if isinstance(value, list | tuple):
        return [plain(inside) for inside in value]
    if isinstance(value, dict):
        return {key: plain(inside) for key, inside in value.items()}
    return value


def _choices(given: Any) -> Any:
    return tuple(plain(given)) if isinstance(given, list | tuple) else given


def _conditions(given: Any) -> Any:
    """A single value is a list of one."""
    if not isinstance(given, dict):
        return given
    return {key: _choices(x if isinstance(x, list | tuple) else [x]) for key, x in given.items()}


Choices = Annotated[tuple[Any, ...], BeforeValidator(_choices)]


class _Spec(DeclaredTable):
    """What all kinds of hyperparameters share.

    Attributes:
        size: how many values of this kind; None: one, which is no list.
        when: by the name of another hyperparameter, the values under which this one counts.
        mutable: whether it may change along a line of descent.
    """

    size: int | None = Field(None, ge=1, le=MAX_SIZE)
    when: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_conditions)] = Field(
        default_factory=dict
    )
    mutable: bool = True

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `guarded` where it is not declared: older programs do not know the key."""
        table: dict[str, Any] = written(self)
        if table.get("guarded", False) is None:
            del table["guarded"]
        return table

    def element(self, name: str) -> Parameter:
        """Make the core's parameter of one value."""
        raise NotImplementedError

    def parameter(self, name: str) -> Parameter | VectorParameter:
        """Make the core's parameter.

        Raises:
            SpaceError: bounds, step or choices are wrong.
        """
        one = self.element(name)
        return one if self.size is None else VectorParameter(one, self.size)


class FloatSpec(_Spec):
    """A real number between two bounds; with `step`, one of equally spaced ones.

    Attributes:
        guarded: whether the default optimizer never lowers it early in a run; None: learning rates.
    """

    type: Literal["float"]
    min: FiniteFloat
    max: FiniteFloat
    scale: Scale = "linear"
    step: FiniteFloat | None = None
    guarded: bool | None = None

    def element(self, name: str) -> Parameter:
        """Make the core's parameter of one value."""
        _check_width(name, self)
        how = self.scale, self.mutable, self.step, self.guarded
        return FloatParameter(name, self.min, self.max, *how)


def _check_width(name: str, spec: FloatSpec) -> None:
    """Make sure that what lies between two bounds can be counted on.

    Raises:
        SpaceError: the distance of the bounds, their ratio on a logarithmic scale, or the number of
            steps between them is beyond the largest number.
    """
    low, high = spec.min, spec.max
    if math.isinf(high - low) or (spec.scale == "log" and low > 0 and math.isinf(high / low)):
        raise SpaceError(f"{name}: from min {low!r} to max {high!r} is too far to be counted on")
    if spec.step and math.isinf((high - low) / spec.step):
        raise SpaceError(
            f"{name}: step {spec.step!r} is too short from min {low!r} to max {high!r}: leave it "
            "out, or make it longer"
        )


class IntSpec(_Spec):
    """A whole number between two bounds, both included; `guarded`: as of a real number."""

    type: Literal["int"]
    min: int
    max: int
    scale: Scale = "linear"
    step: int = 1
    guarded: bool | None = None

    def element(self, name: str) -> Parameter:
        """Make the core's parameter of one value."""
        how = self.scale, self.mutable, self.step, self.guarded
        return IntParameter(name, self.min, self.max, *how)


class CategoricalSpec(_Spec):
    """One of a few choices, which may be any JSON values; `ordinal`: they have an order."""

    type: Literal["categorical"]
    choices: Choices
    ordinal: bool = False

    def element(self, name: str) -> Parameter:
        """Make the core's parameter of one value."""
        return CategoricalParameter(name, self.choices, self.mutable, self.ordinal)


class BooleanSpec(_Spec):
    """False or true."""

    type: Literal["boolean"]

    def element(self, name: str) -> Parameter:
        """Make the core's parameter of one value."""
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
"""What other programs call the kinds."""
_FIELDS = {name for kind in KINDS.values() for name in kind.model_fields} - {"type"}


def core_space(specs: Mapping[str, ParameterSpec]) -> Space:
    """Make the core's space.

    Raises:
        SpaceError: a parameter's bounds or choices, or a condition, are wrong.
    """
    when = {name: spec.when for name, spec in specs.items() if spec.when}
    return Space([spec.parameter(name) for name, spec in specs.items()], when)


def by_name(given: Mapping[str, Any], names: Collection[str], outer: str = "") -> dict[str, Any]:
    """Values of hyperparameters from tables of tables: {"a": {"b": 1}} is {"a.b": 1}.

    A table is taken apart only where no hyperparameter has its name, and one has a name inside it.
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
    """The specs of a declared space by flattened names.

    Raises:
        Mistakes: all that is wrong with it.
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
    """What is wrong with hyperparameters together: names and conditions."""
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
    """Put every hyperparameter's table into `tables`; what is wrong with their names."""
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
    """Whether a table holds tables of hyperparameters, and is not that of one.

    That of one has a `type` that is text. One that lacks it is known by another of its keys.
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
            f"{shown(table)} is no hyperparameter: write one as "
            '{ type = "float", min = 0.0, max = 1.0 }, and what is fixed under [constants]'
        )
        raise Mistakes([Mistake(where, message)])
    kind = table.get("type")
    if kind is None:
        message = f"has no type: one of {', '.join(KINDS)}"
        raise Mistakes([Mistake(where, message)])
    if not isinstance(kind, str) or kind not in KINDS:
        called = FOREIGN_KINDS.get(str(kind).lower())
        hint = f"it is called {called} here" if called else did_you_mean(kind, KINDS)
        message = f"{shown(kind)} is no kind of hyperparameter: {hint}"
        raise Mistakes([Mistake((*where, "type"), message)])
    model = KINDS[kind]
    if isinstance(table.get("when"), dict):
        table = {**table, "when": by_name(table["when"], tables)}
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise Mistakes(mistakes_of(error, model, where)) from None


def check_json(values: Mapping[str, Any], where: Where) -> list[Mistake]:
    """What is wrong with values that must be JSON."""
    mistakes = []
    for name, value in values.items():
        try:
            identity(value)
        except SpaceError as error:
            mistakes.append(Mistake((*where, name), f"{shown(value)} is {error}"))
    return mistakes
