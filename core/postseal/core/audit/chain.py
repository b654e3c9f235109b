"""Lines that hang together: each carries the hash of the one before, so that none can be changed, taken out or moved unseen.

A line is a JSON object whose last three members are its number, the hash of the line before, and its own hash: SHA-256 of all that
stands before ``,"hash"``, or HMAC-SHA-256 of it under a secret. Without a secret whoever can write the file can make a new chain; with
one, only who knows it. A head beside the file says which line was the last, so that lines cut off at the end are missed, too.

Source: docs/audit.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from postseal.core.crypto import equal, hmac_context, sha256
from postseal.core.errors import ConfigError

__all__ = ["START", "Chain", "Head", "Problem", "Report", "head_of", "verify"]

START: Final = "0" * 64
"""What the first line of a chain has for the hash of the one before."""
_LINE: Final = re.compile(
    rb'(?P<text>\{.*,"n":(?P<n>[1-9][0-9]{0,17}),"prev":"(?P<prev>[0-9a-f]{64})"),"hash":"(?P<hash>[0-9a-f]{64})"\}\n'
)
_HEAD: Final = re.compile(rb"([0-9]{20}) ([0-9a-f]{64}) ([0-9]{20}) ([0-9a-f]{64})\n")
_LONGEST: Final = 2**20
"""Bytes of a line."""
_MAX_PROBLEMS: Final = 100
_LEAST_SECRET: Final = 32


class Head(NamedTuple):
    """The last line of a chain."""

    n: int
    hash: str
    size: int
    """Bytes of the file up to its end."""


class Link(NamedTuple):
    """What a line says of itself."""

    n: int
    prev: str
    hash: str


class Chain:
    """Makes and checks the links.

    Args:
        secret: At least 32 random bytes; None for a chain without a key.

    Raises:
        ConfigError: The secret is too short.
    """

    def __init__(self, secret: bytes | None) -> None:
        if secret is not None and len(secret) < _LEAST_SECRET:
            raise ConfigError(f"the secret of an audit chain has at least {_LEAST_SECRET} bytes")
        self._context = None if secret is None else hmac_context(secret)

    def hash(self, text: bytes) -> str:
        """Return the hash of *text*, in hex."""
        if self._context is None:
            return sha256(text).hex()
        context = self._context.copy()
        context.update(text)
        return context.finalize().hex()

    def line(self, text: str, n: int, prev: str) -> tuple[bytes, str]:
        """Make the line of a JSON object *text*; return it with its hash."""
        linked = f'{text[:-1]},"n":{n},"prev":"{prev}"'.encode()
        own = self.hash(linked)
        return b'%b,"hash":"%b"}\n' % (linked, own.encode()), own

    def read(self, line: bytes) -> Link | None:
        """Return what *line* says, if its hash is right.

        Raises:
            ValueError: It is no line of a chain.
        """
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError("is no line of a chain")
        own = found["hash"].decode()
        if not equal(self.hash(found["text"]).encode(), own.encode()):
            return None
        return Link(int(found["n"]), found["prev"].decode(), own)

    def head(self, head: Head) -> bytes:
        """Encode *head*. It is authenticated where lines are, and is no line."""
        text = b"%020d %b %020d" % (head.n, head.hash.encode(), head.size)
        return b"%b %b\n" % (text, self.hash(b"head " + text).encode())

    def read_head(self, data: bytes) -> Head | None:
        """Return the head that *data* holds; None if it is none of this chain."""
        found = _HEAD.fullmatch(data)
        if found is None or not equal(self.hash(b"head " + data[:106]).encode(), found[4]):
            return None
        return Head(int(found[1]), found[2].decode(), int(found[3]))


def head_of(file: Path) -> Path:
    """Return where the head of *file* is."""
    return file.with_name(file.name + ".head")


class Problem(NamedTuple):
    """Something that is not as it was written."""

    file: str
    line: int
    """In the file, from 1; 0 where it is no line's."""
    what: str


class Report(NamedTuple):
    """What was found."""

    lines: int
    first: int
    """Number of the first line; 0 where there is none."""
    last: int
    last_hash: str
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every line is as it was written, and none is missing in between or, if there is a head, at the end."""
        return not self.problems


class _Line(NamedTuple):
    file: Path
    at: int
    raw: bytes


def verify(
    files: Sequence[Path],
    *,
    secret: bytes | None = None,
    needs_head: bool = True,
    from_start: bool = False,
    expected: tuple[int, str] | None = None,
) -> Report:
    """Check one chain in *files*, given in any order.

    Args:
        files: The current file, and older ones.
        secret: Of the chain; None where it has none.
        needs_head: Whether it is a problem if there is no head.
        from_start: Whether it is a problem if the first line is not number 1.
        expected: Number and hash of a line that was there when someone last looked, and must be there.

    Raises:
        ConfigError: The secret is too short.
        OSError: A file cannot be read.
    """
    return _Check(Chain(secret), keyed=secret is not None).run(
        files, needs_head=needs_head, from_start=from_start, expected=expected
    )


class _Check:
    """One verification."""

    def __init__(self, chain: Chain, *, keyed: bool) -> None:
        self._chain = chain
        self._keyed = keyed
        self._problems: list[Problem] = []
        self._remarks: list[str] = []
        self._last = Link(0, START, START)
        self._first = 0
        self._lines = self._altered = 0
        self._where = _Line(Path(), 0, b"")

    def run(
        self,
        files: Sequence[Path],
        *,
        needs_head: bool,
        from_start: bool,
        expected: tuple[int, str] | None,
    ) -> Report:
        """Check *files*."""
        ordered = sorted(files, key=_number)
        head = self._read_heads(ordered, needed=needs_head)
        wanted = {head.n: head.hash} if head is not None else {}
        if expected is not None:
            wanted.setdefault(*expected)
        met = set()
        for line in _lines(ordered):
            link = self._check(line)
            if link is not None and link.n in wanted:
                met.add(link.n)
                if wanted[link.n] != link.hash or (
                    expected and link[::2] != expected and link.n == expected[0]
                ):
                    self._problem(line, f"line {link.n} is another one than it was")
        self._check_ends(head, from_start=from_start)
        if expected is not None and expected[0] not in met and not self._problems:
            self._problem(self._where, f"line {expected[0]}, which was expected, is not there")
        if self._altered and self._altered == self._lines:
            hint = "is it the right secret?" if self._keyed else "was the chain made with a secret? Name it."
            self._remarks.append(f"not one line has the right hash: {hint}")
        return Report(
            self._lines,
            self._first,
            self._last.n,
            self._last.hash,
            tuple(self._problems),
            tuple(self._remarks),
        )

    def _problem(self, line: _Line, what: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems.append(Problem(str(line.file), line.at, what))

    def _read_heads(self, files: Sequence[Path], *, needed: bool) -> Head | None:
        heads = [(file, head_of(file)) for file in files if head_of(file).is_file()]
        found = []
        for file, at in heads:
            head = self._chain.read_head(at.read_bytes())
            if head is None:
                self._problem(_Line(at, 0, b""), "this head was altered, or is of another chain or secret")
            else:
                found.append((head, file))
        if not heads and needed:
            self._problem(
                _Line(files[-1], 0, b""),
                "there is no head beside any of the files: lines cut off at the end would not be missed",
            )
        return max(found)[0] if found else None

    def _check(self, line: _Line) -> Link | None:
        """Check one line against the one before."""
        self._lines += 1
        self._where = line
        try:
            link = self._chain.read(line.raw)
        except ValueError as error:
            self._problem(line, str(error))
            return None
        if link is None:
            self._altered += 1
            self._problem(line, "was altered: its hash is wrong")
            # Its number may be wrong, too; but the next line is judged by what stands here.
            found = _LINE.fullmatch(line.raw)
            if found is not None:
                self._last = Link(int(found["n"]), found["prev"].decode(), found["hash"].decode())
                self._first = self._first or self._last.n
            return None
        before, self._last = self._last, link
        if not self._first:
            self._first = link.n
            if link.n == 1 and link.prev != START:
                self._problem(line, "is number 1, and yet follows another line")
        elif link.n > before.n + 1:
            self._problem(
                line, f"is number {link.n} after {before.n}: {_range(before.n + 1, link.n - 1)} missing"
            )
        elif link.n <= before.n:
            self._problem(line, f"is out of order: number {link.n} after {before.n}")
        elif link.prev != before.hash:
            self._problem(line, "does not follow the line before it, which was replaced")
        return link

    def _check_ends(self, head: Head | None, *, from_start: bool) -> None:
        if self._first > 1:
            what = f"begins at number {self._first}: earlier lines are in older files, or were rotated away"
            if from_start:
                self._problem(_Line(self._where.file, 0, b""), what)
            else:
                self._remarks.append(what)
        if head is not None and head.n > self._last.n:
            self._problem(
                self._where, f"is the last, but {_range(self._last.n + 1, head.n)} missing behind it"
            )


def _range(first: int, last: int) -> str:
    return f"number {first} is" if first == last else f"numbers {first} to {last} are"


def _number(file: Path) -> tuple[int, str]:
    """Return the number of the first line of *file*, to put files in order by; an empty file is the newest."""
    with file.open("rb") as lines:
        found = _LINE.fullmatch(lines.readline(_LONGEST))
        return (2**63 if found is None and not lines.tell() else int(found["n"]) if found else 0), str(file)


def _lines(files: Sequence[Path]) -> Iterator[_Line]:
    for file in files:
        with file.open("rb") as lines:
            at = 0
            while raw := lines.readline(_LONGEST):
                at += 1
                yield _Line(file, at, raw)
