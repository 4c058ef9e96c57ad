"""Finds the line of each key in a TOML text, which the standard library's parser does not report.

The text must have been accepted by the parser. For any other text, the result is arbitrary.
"""

from collections.abc import Mapping, Sequence

_SPACE = " \t\r"
_BARE_END = ",]}\n#"


def lines_of(text: str) -> Mapping[str, int]:
    """For each key's path, joined with dots, the number of the line that sets it first, from 1.

    An element of a list has its index in the path: "initial.0.lr".
    """
    return _Scanner(text).scan()


def line_at(where: Sequence[str | int], lines: Mapping[str, int]) -> int:
    """The line of a path, or of its nearest known parent; 0 if none is known."""
    # A single table may be used in place of a list of one.
    without_numbers = [part for part in where if isinstance(part, str)]
    for length in range(len(where), 0, -1):
        line = lines.get(".".join(map(str, where[:length])))
        if line is None and length == len(where):
            line = lines.get(".".join(without_numbers))
        if line is not None:
            return line
    return 0


class _Scanner:
    """Scans a text character by character."""

    def __init__(self, text: str) -> None:
        self._text = text + "\n"
        self._at = 0
        self._lines: dict[str, int] = {}
        self._tables: dict[str, int] = {}

    def scan(self) -> dict[str, int]:
        table: tuple[str, ...] = ()
        while self._skip(newlines=True):
            began = self._at
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            # If the text is not TOML, advance anyway.
            self._at += self._at == began
        return self._lines

    def _skip(self, *, newlines: bool) -> bool:
        """Skip spaces and comments; return whether any text is left."""
        while self._at < len(self._text):
            here = self._text[self._at]
            if here == "#":
                self._at = self._text.index("\n", self._at)
            elif here in _SPACE or (newlines and here == "\n"):
                self._at += 1
            else:
                return True
        return False

    def _note(self, path: tuple[str, ...]) -> None:
        line = self._text.count("\n", 0, self._at) + 1
        for length in range(1, len(path) + 1):
            self._lines.setdefault(".".join(path[:length]), line)

    def _header(self) -> tuple[str, ...]:
        many = self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        path = self._key()
        if many:
            number = self._tables[".".join(path)] = self._tables.get(".".join(path), -1) + 1
            path = (*path, str(number))
        elif (last := self._tables.get(path[0])) is not None:
            path = (path[0], str(last), *path[1:])
        self._note(path)
        self._at = self._text.index("\n", self._at)
        return path

    def _key(self) -> tuple[str, ...]:
        """Read a key, which may have several parts."""
        parts: list[str] = []
        while self._skip(newlines=False):
            here = self._text[self._at]
            if here in "\"'":
                parts.append(self._quoted())
            elif here == ".":
                self._at += 1
            elif here in "=]\n":
                break
            else:
                began = self._at
                while self._text[self._at] not in " \t\r\n.=]\"'":
                    self._at += 1
                parts.append(self._text[began : self._at])
        return tuple(parts)

    def _quoted(self) -> str:
        """Read a quoted text, and return it without quotes."""
        mark = self._text[self._at]
        mark = mark * 3 if self._text.startswith(mark * 3, self._at) else mark
        self._at += len(mark)
        began = self._at
        while self._at < len(self._text) and not self._text.startswith(mark, self._at):
            self._at += 2 if self._text[self._at] == "\\" and mark[0] == '"' else 1
        inside = self._text[began : self._at]
        self._at = min(self._at + len(mark), len(self._text))
        # Up to two quotes may precede the three that end a text.
        while len(mark) > 1 and self._text.startswith(mark[0], self._at):
            self._at += 1
        return inside

    def _pair(self, table: tuple[str, ...]) -> None:
        path = (*table, *self._key())
        self._note(path)
        if self._text.startswith("=", self._at):
            self._at += 1
            self._value(path)

    def _value(self, path: tuple[str, ...]) -> None:
        self._skip(newlines=False)
        here = self._text[self._at]
        if here in "\"'":
            self._quoted()
        elif here in "[{":
            self._inside(path, "]" if here == "[" else "}")
        else:
            while self._text[self._at] not in _BARE_END:
                self._at += 1

    def _inside(self, path: tuple[str, ...], end: str) -> None:
        """Read the elements of a list or the pairs of an inline table, up to `end`."""
        self._at += 1
        number = 0
        while self._skip(newlines=True) and self._text[self._at] != end:
            began = self._at
            if self._text[self._at] == ",":
                self._at += 1
                number += 1
            elif end == "}":
                self._pair(path)
            else:
                self._note((*path, str(number)))
                self._value((*path, str(number)))
            self._at += self._at == began
        self._at = min(self._at + 1, len(self._text))
