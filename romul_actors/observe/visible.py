"""Control characters as visible text, so that no task or worker can control a terminal.

Commands (`romul_actors.cli.output.printing`), logs and HTML pages use this module. Files for
programs keep every character.
"""

import logging
import re

_CONTROL = re.compile(
    "["
    "\x00-\x08\x0b-\x1f"  # C0, escape among it, but tab and newline
    "\x7f-\x9f"  # DEL, and C1: some terminals take U+009B for the beginning of a sequence
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # text in another direction than it is read
    "\ud800-\udfff"  # halves of surrogate pairs, which no terminal can be sent
    "]"
)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004


def visible(text: str) -> str:
    r"""Text with control, separator and direction characters written out, as in `\x1b` or `\u202e`.

    Tab and newline are kept.
    """
    return _CONTROL.sub(_escaped, text)


def ascii_json(text: str) -> str:
    r"""JSON text with these characters as JSON escapes such as `\u001b`; the values do not change.

    In JSON, these characters occur only in strings.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class VisibleFormatter(logging.Formatter):
    """Log lines and tracebacks without control characters, whatever they quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as visible text."""
        return visible(super().format(record))
