"""A fingerprint changes if and only if a function does."""

import os
import subprocess
import sys
from typing import Any

import pytest

from romul.fingerprint import MOST, fingerprint

CODE = """
import collections, enum, functools, time, types
import numpy as np
class Kind(enum.Enum):
    A = 1
class Net:
    k = 1
    sizes = {"a": [1, 2], "b": {3, "c", (4, Kind.A)}}
    __slots__ = ("x", "y")
    def __init__(self, x=1):
        self.x = x
    @property
    def twice(self):
        return 2 * self.x
    @classmethod
    def made(cls):
        return cls(cls.k)
CFG = {"k": 1, "deep": [(1, {"z": 2})]}
CFG["itself"] = CFG
WORDS = {"x", "y", "z", len}
ARGS = types.SimpleNamespace(k=1)
START = 5
@functools.lru_cache
def helper(x):
    return x * 1
def timed(function):
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner
def train(trial, *, scale=1):
    def inner():
        return Net.made().twice * CFG["k"] + len(WORDS) + ARGS.k
    return helper(inner()) * scale * np.ones(1) * trial.START * ("a" in {"a", "b"}) + again()
def again():
    return train
def make(cfg):
    def closure(trial):
        return cfg["k"]
    return closure
def wide(trial, k=1, cfg=None):
    return k
class Trainer:
    def __init__(self, k):
        self.k = k
    def __call__(self, trial):
        return self.k
    def method(self, trial):
        return Net(self.k)
made = {
    "function": train,
    "wrapped": timed(train),
    "partial": functools.partial(wide, k=1, cfg={"a": 1}),
    "closure": make({"k": 1}),
    "object": Trainer(1),
    "method": Trainer(1).method,
}
"""


def of(name, text=CODE):
    made: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec"), made)
    return fingerprint(made["made"][name], None)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("function", "x * 1", "x * 2"),
        ("function", "*, scale=1", "*, scale=2"),
        ("function", "    k = 1", "    k = 2"),
        ("function", "2 * self.x", "3 * self.x"),
        ("function", "cls(cls.k)", "cls(cls.x)"),
        ("function", '{"a": [1, 2]', '{"a": [1, 3]'),
        ("function", "(4, Kind.A)", "(4, Kind)"),
        ("function", '{"k": 1, "deep"', '{"k": 2, "deep"'),
        ("function", '{"z": 2}', '{"z": 3}'),
        ("function", '"z", len', '"z", max'),
        ("function", "SimpleNamespace(k=1)", "SimpleNamespace(k=2)"),
        ("wrapped", "x * 1", "x * 2"),
        ("partial", "wide, k=1", "wide, k=2"),
        ("partial", 'cfg={"a": 1}', 'cfg={"a": 2}'),
        ("partial", "return k", "return -k"),
        ("closure", 'make({"k": 1})', 'make({"k": 2})'),
        ("object", '"object": Trainer(1)', '"object": Trainer(2)'),
        ("object", "return self.k", "return -self.k"),
        ("method", "Trainer(1).method", "Trainer(2).method"),
        ("method", "Net(self.k)", "Net(-self.k)"),
    ],
)
def test_it_differs_where_what_is_called_does(name, before, after):
    assert CODE.count(before) == 1
    assert of(name) != of(name, CODE.replace(before, after))


@pytest.mark.parametrize("name", ["function", "wrapped", "partial", "closure", "object", "method"])
def test_it_is_the_same_where_nothing_of_the_function_has_changed(name):
    # Other lines, an order that means nothing, and a name that is an attribute of something else.
    moved = "import os\n\n" + CODE.replace('"x", "y", "z", len', 'len, "z", "y", "x"')
    moved = moved.replace("START = 5", "START = time.time()")
    assert of(name) == of(name) == of(name, moved)


def test_it_is_the_same_in_another_process():
    code = (
        "from tests.unit.test_fingerprint import CODE, of\n"
        "print([of(name) for name in ('function', 'wrapped', 'partial', 'object', 'method')])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert found != {""}


class Link:
    def __init__(self, following):
        self.following = following


def test_long_and_deep_values_are_read_in_part_in_a_fixed_order():
    def digest(pairs, chain):
        def train(trial):
            return trial, pairs, chain

        return fingerprint(train, None)

    chain = None
    for _ in range(2000):
        chain = Link(chain)
    many = 3 * MOST
    pairs = [[f"token{i}", {(i, "a"): i}] for i in range(many)]
    assert digest(pairs, chain) == digest([*pairs], chain)
    assert digest(pairs, chain) != digest(pairs[:-1], chain)
    # Objects at this depth count by their type only.
    assert digest([*pairs[:-1], ["other", {}]], chain) == digest(pairs, chain)
    assert digest([["other", {}], *pairs[1:]], chain) != digest(pairs, chain)
