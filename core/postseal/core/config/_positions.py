"""Where in the text of a TOML file each key and each value stands.

The standard library reads TOML without keeping lines, and is what reads the file here, too: it alone decides what the file says. This is
only asked where there is something to complain of, about a text that it has read already, so it needs no rule of TOML but those that say
where a key or a value ends.

Source: TOML 1.0; 1.1 for tables in braces that take several lines.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Final, TypeAlias

__all__ = ["Path", "Positions"]

Path: TypeAlias = tuple[str | int, ...]
"""Names and indices from the top of a document down: ``("policy", 0, "keys", 1)``."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_VALUE: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\d{4}-\d\d-\d\d \d\d:[^,\]}\s#]*"  # a date and a time with a space between them
    r"|[^,\]}\s#]+",
    re.DOTALL,
)


class Positions:
    """Lines and columns, both from 1, of what stands in *text*, which is TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._keys: dict[Path, int] = {}
        self._values: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._at = 0
        self._scan()

    def of_key(self, path: Path) -> tuple[int, int]:
        """Return where the last name of *path* stands, or what is nearest above it."""
        return self._place(self._found(path, self._keys, self._values))

    def of_value(self, path: Path) -> tuple[int, int]:
        """Return where the value of *path* begins, or what is nearest above it."""
        return self._place(self._found(path, self._values, self._keys))

    @property
    def end(self) -> tuple[int, int]:
        """Where the text ends."""
        return self._place(len(self._text.rstrip()))

    def _found(self, path: Path, first: dict[Path, int], second: dict[Path, int]) -> int:
        while path:
            for places in (first, second):
                if (offset := places.get(path)) is not None:
                    return offset
            path = path[:-1]
        return 0

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    # -- reading -------------------------------------------------------------------------------------------------------

    def _scan(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise AssertionError(self._place(self._at))  # not reached with what tomllib took
        self._at = match.end()
        return match[0]

    def _header(self) -> Path:
        """Read ``[a.b]`` or ``[[a.b]]``, and return which table that is."""
        start = self._at
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        path: Path = ()
        names = self._names()
        for index, (name, offset) in enumerate(names):
            path += (name,)
            self._keys.setdefault(path, offset)
            if index == len(names) - 1 and brackets == 2:  # noqa: PLR2004 - [[
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                self._values.setdefault(path, start)
                path += (self._counts[path] - 1,)
                self._keys.setdefault(path, start)
            self._values.setdefault(path, start)
        self._at += brackets
        return path

    def _names(self) -> list[tuple[str, int]]:
        """Read ``a.b . "c"``: the names, and where each stands."""
        names = []
        while True:
            self._skip(_SPACE)
            offset = self._at
            names.append((_name(self._take(_KEY)), offset))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _pair(self, table: Path) -> None:
        """Read ``a.b = value``."""
        path = table
        for name, offset in self._names():
            path += (name,)
            self._keys.setdefault(path, offset)
            self._values.setdefault(path, offset)
        self._at += 1  # =
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        self._values[path] = self._at
        self._keys.setdefault(path, self._at)
        opened = self._text[self._at]
        if opened not in "[{":
            self._take(_VALUE)
            return
        self._at += 1
        index = 0
        while self._text[self._skip(_BLANK)] not in "]}":
            if opened == "[":
                self._value((*path, index))
                index += 1
            else:
                self._pair(path)
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1


def _name(written: str) -> str:
    if written[0] not in "\"'":
        return written
    if written[0] == '"' and "\\" in written:
        (name,) = tomllib.loads(f"{written} = 0")
        return name
    return written[1:-1]
