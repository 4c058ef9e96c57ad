"""Random spaces and populations for property tests."""

from hypothesis import strategies as st

from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Space,
)

MUTABLE = st.booleans()


@st.composite
def floats(draw, name):
    scale = draw(st.sampled_from(["linear", "log"]))
    if scale == "log":
        low = draw(st.floats(1e-9, 1e3))
        high = low * draw(st.floats(1.001, 1e6))
    else:
        low = draw(st.floats(-1e6, 1e6))
        high = low + draw(st.floats(1e-3, 1e6))
    return FloatParameter(name, low, high, scale, draw(MUTABLE))


@st.composite
def ints(draw, name):
    scale = draw(st.sampled_from(["linear", "log"]))
    low = draw(st.integers(1 if scale == "log" else -1000, 1000))
    return IntParameter(name, low, low + draw(st.integers(1, 5000)), scale, draw(MUTABLE))


@st.composite
def categoricals(draw, name):
    choices = st.one_of(st.text(max_size=4), st.integers(-9, 9), st.booleans(), st.floats(-9, 9))
    drawn = draw(st.lists(choices, min_size=2, max_size=6, unique_by=lambda c: (type(c), c)))
    return CategoricalParameter(name, tuple(drawn), draw(MUTABLE))


@st.composite
def spaces(draw):
    kinds = draw(
        st.lists(
            st.sampled_from(
                [floats, ints, categoricals, lambda n: st.builds(BooleanParameter, st.just(n))]
            ),
            min_size=1,
            max_size=5,
        )
    )
    return Space([draw(kind(f"p{i}")) for i, kind in enumerate(kinds)])


@st.composite
def values(draw, space):
    """One allowed value of each parameter."""
    found = {}
    for parameter in space:
        match parameter:
            case FloatParameter(low=low, high=high):
                found[parameter.name] = draw(st.floats(low, high))
            case IntParameter(low=low, high=high):
                found[parameter.name] = draw(st.integers(low, high))
            case _:
                found[parameter.name] = draw(st.sampled_from(parameter.choices))
    return found
