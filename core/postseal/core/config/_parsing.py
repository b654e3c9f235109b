"""From the bytes of a file to what it says, or to all the places where it is no TOML."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from postseal.core.config._report import Report
from postseal.core.errors import Mistake, PolicyFileError

__all__ = ["parse"]

_PLACE: Final = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_STATEMENT: Final = re.compile(
    r"(?P<name>[ \t]*[A-Za-z0-9_.\"'-]+[ \t]*=[ \t]*)(?P<value>[^\s\"'\[{#][^\"'\[{#]*?)(?P<rest>[ \t]*(?:#.*)?)"
)
_LIKE_DATE: Final = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}")
_SOME_DATE: Final = "9999-12-31"
_MAX_REPAIRS: Final = 100


def parse(content: bytes, name: str) -> tuple[Report, dict[str, Any]]:
    """Read *content*, the bytes of the file of that *name*.

    Where a value is no TOML, mostly text without its quotes, that is noted, and the rest is read as if it had them: so that one such slip
    does not hide what else is wrong. Nothing is ever used of a file with a mistake.

    Raises:
        PolicyFileError: It is no TOML, beyond such slips.
    """
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise PolicyFileError([Mistake(name, line, column, "the file is not UTF-8 from here on")]) from None
    slips: list[Mistake] = []
    if text.startswith("\ufeff"):
        slips.append(
            Mistake(name, 1, 1, "the file begins with a byte order mark: save it as UTF-8 without one")
        )
        text = text[1:]
    for _ in range(_MAX_REPAIRS):
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line, column, complaint = _told(error, text)
            slip, repaired = _repaired(text, line, column, complaint)
            slips.append(Mistake(name, line, column, slip))
            if repaired is None:
                break
            text = repaired
        except (ValueError, RecursionError) as error:  # a date that is none; tables within tables without end
            slips.append(Mistake(name, 1, 1, f"the file is no TOML: {error}"))
            break
        else:
            report = Report(name, text)
            for slip_ in slips:
                report.wrong_at((slip_.line, slip_.column), slip_.text)
            return report, found
    raise PolicyFileError(sorted(slips)) from None


def _told(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, int, str]:
    """Return line, column and words of what the standard library says."""
    words = str(error)
    place = _PLACE.search(words)
    if place is None or place["line"] is None:
        return text.rstrip().count("\n") + 1, 1, words[: place.start()] if place else words
    return int(place["line"]), int(place["column"]), words[: place.start()]


def _repaired(text: str, line: int, column: int, complaint: str) -> tuple[str, str | None]:
    """Say what is wrong in a *line*, and return the text as it may have been meant; None where that cannot be told."""
    lines = text.split("\n")
    written = lines[line - 1]
    if complaint.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate")):
        # The one is said at the end of a value, the other behind the bracket of a table.
        name = written.strip().partition("=")[0].strip()
        if not written.lstrip().startswith("[") and "=" in written and _is_whole(written):
            lines[line - 1] = ""
            return f"{name} is here twice in one table", "\n".join(lines)
        return f"{name} is here twice", None
    statement = _STATEMENT.fullmatch(written)
    if statement is not None and complaint.startswith(
        ("Invalid value", "Expected newline or end of document", "Invalid date")
    ):
        value = statement["value"]
        if _LIKE_DATE.match(value):
            lines[line - 1] = f"{statement['name']}{_SOME_DATE}{statement['rest']}"
            return f"{value!r} is no date; write one like 2027-01-31", "\n".join(lines)
        slip = f'{value!r} is no value of TOML: text stands in quotes; write {statement["name"].strip()} "{value}"'
        if value.lower() in ("true", "false"):
            slip = f"{value!r} is no value of TOML; write {value.lower()}"
            lines[line - 1] = f"{statement['name']}{value.lower()}{statement['rest']}"
        else:
            lines[line - 1] = f'{statement["name"]}"{value}"{statement["rest"]}'.replace("\\", "\\\\")
        return slip, "\n".join(lines)
    near = written[max(0, column - 1) :].strip()[:40] or written.strip()[:40]
    # Not what stands in quotes: that may be a secret.
    near = re.split(r"[\"']", near)[0].strip()
    return f"this is no TOML: {complaint[:1].lower()}{complaint[1:]}" + (
        f" at {near!r}" if near else ""
    ), None


def _is_whole(statement: str) -> bool:
    """Tell whether *statement*, one line, is a whole one."""
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True
