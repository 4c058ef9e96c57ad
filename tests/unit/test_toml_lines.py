import tomllib

from hypothesis import given
from hypothesis import strategies as st

from romul_actors.protocol.toml_lines import line_at, lines_of

TEXT = '''\
# name = "not this one"
name = "e"   # steps = 1
"odd key".'and more' = 1
text = """
steps = 2
\\""" ""
"""
raw = \'\'\'
[space]
\'\'\'
steps = 3
many = [1, [
  2, "]", # ]
  { x = 1, y.z = 2 },
]]

[space]  # [other]
lr = { type = "float", min = 0, "max" = 1 }
[space.net."a.b"]
type = "int"
[[initial]]
lr = 1
[[initial]]
lr = 2
[initial.deep]
x = 1
'''


def test_each_key_has_the_line_where_it_stands():
    found = tomllib.loads(TEXT)
    assert found["steps"] == 3
    lines = lines_of(TEXT)
    wanted = {
        "name": "name =",
        "odd key.and more": '"odd key"',
        "text": "text =",
        "raw": "raw =",
        "steps": "steps = 3",
        "many.0": "many =",
        "many.1.0": "  2,",
        "many.1.2.y.z": "  { x",
        "space": "[space]  #",
        "space.lr.max": "lr = {",
        "space.net.a.b.type": "type =",
        "initial.0.lr": "lr = 1",
        "initial.1.lr": "lr = 2",
        "initial.1.deep.x": "x = 1",
    }
    texts = TEXT.splitlines()
    assert {path: texts[lines[path] - 1].startswith(text) for path, text in wanted.items()} == (
        dict.fromkeys(wanted, True)
    )


def test_what_has_no_line_has_that_of_what_is_around_it():
    lines = lines_of(TEXT)
    assert line_at(("space", "lr", "missing"), lines) == lines["space.lr"]
    assert line_at(("initial", 1, "lr"), lines) == lines["initial.1.lr"]
    assert line_at(("steps",), lines) == lines["steps"]
    assert line_at(("nowhere", "at all"), lines) == 0
    assert line_at((), lines) == 0
    assert line_at(("initial", 0, "lr"), lines_of("[initial]\nlr = 1")) == 2


PIECES = st.sampled_from(
    ["a", "b.c", "'q'", '"s"', "=", "[", "]", "{", "}", ",", "\n", " ", "#", '"""', "1", ".", "\\"]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_text_that_the_parser_accepts_is_scanned_to_its_end(text):
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = lines_of(text)
    assert {path.partition(".")[0] for path in lines} >= {key.partition(".")[0] for key in found}
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
