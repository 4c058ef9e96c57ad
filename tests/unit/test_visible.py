"""Untrusted text that is shown on a terminal."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from romul_actors.cli.output.printing import LONGEST, Console, Table, shortened
from romul_actors.observe.html import code
from romul_actors.observe.visible import VisibleFormatter, ascii_json, visible

CODES = (*range(9), *range(11, 32), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F))
CONTROLS = [chr(code) for code in (*CODES, *range(0x2066, 0x206A), 0xD800, 0xDFFF)]
TITLE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TITLE, r"\x1b]0;owned\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\r\nb\tc", "a\\x0d\nb\tc"),
        ("\u202e\u2069\u2028\udcff", r"\u202e\u2069\u2028\udcff"),
        ("café 日本 עברית 🙂", "café 日本 עברית 🙂"),
    ],
)
def test_control_characters_are_written_out_and_text_stays(text, shown):
    assert visible(text) == shown


@given(st.text(st.sampled_from([*CONTROLS, "a", "\n", "é"])))
def test_none_is_left_and_what_was_visible_stays_as_it_was(text):
    shown = visible(text)
    assert not set(shown) & set(CONTROLS)
    assert visible(shown) == shown


@given(st.recursive(st.text() | st.floats(allow_nan=False) | st.none(), st.lists))
def test_json_keeps_every_character(value):
    for ascii_only in (True, False):
        found = ascii_json(json.dumps(value, ensure_ascii=ascii_only))
        assert json.loads(found) == value
        assert not set(found) & set(CONTROLS)


def shown(*what, **more):
    """The output to a terminal with colours."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=60, **more)
    for one in what:
        console.print(one)
    return file.getvalue()


def test_a_terminal_is_sent_neither_sequences_nor_markup():
    table = Table(f"[red]{TITLE}")
    table.add_row(f"[b]{TITLE}[/b]")
    table.add_row(Text(TITLE))
    table.title = table.caption = TITLE
    text = shown(TITLE, Text(TITLE), table, ":smile:", "[link=http://a]b[/link]")
    assert not set(text) & set(CONTROLS)
    # Other objects are formatted first; the result is as harmless, and may be truncated.
    assert text.count(r"\x1b]0;owned\x07") == 5
    assert text.count(r"\x1b]0;") == 7
    for plain in ("[red]", "[b]", "[/b]", ":smile:", "[link=http://a]b[/link]"):
        assert plain in text
    # Our own styles are kept.
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard")
    console.print(TITLE, style="red")
    assert file.getvalue() == "\x1b[31m\\x1b]0;owned\\x07\x1b[0m\n"


def test_a_long_name_is_shortened_in_its_middle():
    name = "".join(chr(65 + n % 26) for n in range(100))
    short = shortened(name)
    assert len(short) == LONGEST
    head, tail = short.split("…")
    assert (name.startswith(head), name.endswith(tail)) == (True, True)
    assert shortened(name[:LONGEST]) == name[:LONGEST]
    assert shortened(5 * "\x1b", 8) == r"\x1b…x1b"


def test_a_log_line_and_its_traceback_are_visible_text():
    error = ValueError(TITLE)
    found = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("romul", logging.ERROR, "", 1, "%s: failed", (TITLE,), found)
    line = VisibleFormatter("%(message)s").format(record)
    assert not set(line) & set(CONTROLS)
    assert line.count(r"\x1b]0;owned\x07") == 2


def test_a_page_holds_visible_text():
    assert code(f"<{TITLE}>") == r"<p><code>&lt;\x1b]0;owned\x07&gt;</code></p>"
